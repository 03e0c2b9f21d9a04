// SPDX-License-Identifier: MIT
// Why pages could not be had, in words that tell what to do about it. Where Linux has one errno for
// many causes (ENOMEM for a limit, for fragmentation and for no memory), these are told apart.

import { FarpageError } from "../../base/index.js";

/** Errno that each cause has, for programs that know no more than that. */
const CODES = {
  /** Addresses that no process has. */
  "bad-range": "EINVAL",
  /** An option that means nothing for the purpose. */
  "bad-option": "EINVAL",
  /** More than the process may have pinned. */
  limit: "ENOMEM",
  /** Too many pieces for the device. */
  fragmented: "EMSGSIZE",
  "not-mapped": "EFAULT",
  /** Mapped, but not to be touched. */
  "no-access": "EACCES",
  /** Mapped, but not to be written. */
  "read-only": "EACCES",
  /** Behind the end of a file. */
  "past-end": "EFAULT",
  "io-error": "EIO",
  "out-of-memory": "ENOMEM",
  /** Asked for without a fault, and a fault is needed. */
  "not-present": "EAGAIN",
  /** Mappings are changing, or a page under writeback must stay as it is. */
  busy: "EAGAIN",
  /** It must move before it is pinned for long, and can't now. */
  "migration-busy": "EBUSY",
  /** A file's page pinned for long without the file's consent. */
  "file-lease-missing": "EOPNOTSUPP",
  /** Memory of a device that the asking device can't reach, or that none was named for. */
  "device-path-refused": "EREMOTEIO",
  /** Memory of a device pinned for long by somebody who could not give it back. */
  "device-not-revocable": "EOPNOTSUPP",
  /** Memory of a device, asked for by the CPU. */
  "device-memory": "EOPNOTSUPP",
  /** Another process's memory, without the right to it. */
  "not-permitted": "EPERM",
} as const;

export type PinReason = keyof typeof CODES;
export type PinErrorCode = (typeof CODES)[PinReason];

/** Pages could not be had. Nothing stays held of those that had been had before. */
export class PinError extends FarpageError<PinErrorCode> {
  readonly reason: PinReason;
  /** Of the page that could not be had. */
  readonly address: number;
  /** What a person can do about it. */
  readonly advice: string;

  /** @param what the cause as a sentence's first half, without the address. */
  constructor(reason: PinReason, address: number, what: string, advice: string) {
    super(CODES[reason], `${what} (address 0x${address.toString(16)}): ${advice}`);
    this.name = "PinError";
    this.reason = reason;
    this.address = address;
    this.advice = advice;
  }
}

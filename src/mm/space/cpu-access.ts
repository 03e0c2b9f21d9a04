// SPDX-License-Identifier: MIT
// A process reads and writes its own memory, with the faults that this takes.

import { FarpageError } from "../../base/index.js";
import type { AddressSpace } from "./address-space.js";
import {
  ACCESS,
  type Access,
  ADDRESS_END,
  FAULT,
  type FaultResult,
  PAGE_BYTES,
} from "./constants.js";

/** @param bytes filled, or written, from `address` on. */
export function accessBytes(
  space: AddressSpace,
  address: number,
  bytes: Uint8Array,
  access: Access,
): void {
  const isRange = Number.isSafeInteger(address) && address >= 0;
  if (!isRange || address + bytes.length > ADDRESS_END) fail(space, address, FAULT.NOT_MAPPED);
  const { memory } = space.manager;
  let done = 0;
  while (done < bytes.length) {
    const at = address + done;
    const page = Math.floor(at / PAGE_BYTES);
    const result = space.fault(page, access);
    if (result !== FAULT.READY) fail(space, at, result);
    const pfn = space.table.frameOf(page);
    const inPage = at % PAGE_BYTES;
    const count = Math.min(bytes.length - done, PAGE_BYTES - inPage);
    const offset = memory.offsetOf(pfn) + inPage;
    const frames = memory.bytesOf(pfn);
    if (access === ACCESS.WRITE) frames.set(bytes.subarray(done, done + count), offset);
    else bytes.set(frames.subarray(offset, offset + count), done);
    done += count;
  }
}

/** What a fault's result is to a caller. */
export function faultError(
  space: AddressSpace,
  address: number,
  result: FaultResult,
): FarpageError {
  const where = `0x${address.toString(16)} of ${space.name}`;
  switch (result) {
    case FAULT.NO_ACCESS:
      return new FarpageError("EACCES", `${where} may not be touched`);
    case FAULT.READ_ONLY:
      return new FarpageError("EACCES", `${where} may not be written`);
    case FAULT.PAST_END:
      return new FarpageError("EFAULT", `${where} is behind the end of what is mapped there`);
    case FAULT.IO_ERROR:
      return new FarpageError("EIO", `${where} could not be read from its file`);
    case FAULT.NO_MEMORY:
      return new FarpageError("ENOMEM", `there is no memory for ${where}`);
    case FAULT.BUSY:
      return new FarpageError("EAGAIN", `${where} is being changed or written back: try again`);
    case FAULT.DEVICE:
      return new FarpageError(
        "EFAULT",
        `${where} is in a device's memory, and none brings it back`,
      );
    default:
      return new FarpageError("EFAULT", `nothing is mapped at ${where}`);
  }
}

function fail(space: AddressSpace, address: number, result: FaultResult): never {
  throw faultError(space, address, result);
}

// SPDX-License-Identifier: MIT
// What a client can be told, and what it stands on.

import type { FarpageError } from "../base/index.js";
import type { RtrsClient, RtrsClientOptions } from "../rtrs/index.js";
import type { RnbdDevice } from "./rnbd-device.js";
import type { SessionGroup } from "./session-group.js";

export interface RnbdClientOptions
  extends Omit<RtrsClientOptions, "requestTimeoutNs" | "userBytesMax"> {
  /**
   * How long I/O waits while its device is not reachable; then it fails with ETIMEDOUT, and so does
   * new I/O at once until the device is back. Default Infinity.
   */
  readonly ioTimeoutNs?: number;
  /** Largest READ and WRITE that devices take, split as the session demands. Default 32 MiB. */
  readonly transferBytesMax?: number;
  /** How often to ask for a device that the server would not open again. Default 1 s. */
  readonly reopenDelayNs?: number;
  /** The sessions of this client that the session is one of; default: it is alone. */
  readonly group?: SessionGroup;
}

/** What `RnbdClient` uses of `RtrsClient`. */
export type RtrsSession = Pick<
  RtrsClient,
  | "state"
  | "lastError"
  | "unsettledCount"
  | "queueDepth"
  | "maxIoBytes"
  | "connect"
  | "close"
  | "acquire"
  | "acquireReserved"
  | "submitRead"
  | "submitWrite"
  | "release"
  | "reissue"
  | "failWaiting"
  | "registerMemory"
  | "unregisterMemory"
  | "pump"
  | "deadlineNs"
  | "checkInvariants"
>;

/** Hears how an `open` went: exactly one of the two is null. */
export type OpenCallback = (error: FarpageError | null, device: RnbdDevice | null) => void;

// SPDX-License-Identifier: MIT
// The messages by which a client manages its devices: filled in, sent by the client.

import type { Memory } from "../base/index.js";
import type { ClientRequest } from "../rtrs/index.js";
import {
  RNBD_CLOSE_BYTES,
  RNBD_OPEN_BYTES,
  RNBD_OPEN_RSP_BYTES,
  RNBD_SESS_INFO_BYTES,
  RNBD_VERSION_MAJOR,
  writeRnbdClose,
  writeRnbdOpen,
  writeRnbdSessInfo,
} from "../wire/index.js";
import type { RnbdDevice } from "./rnbd-device.js";

export interface Admin {
  readonly kind: "SESS_INFO" | "OPEN" | "CLOSE";
  /** Null with SESS_INFO. */
  readonly device: RnbdDevice | null;
}

/**
 * Writes the message of `admin` into `request`, whose answer comes to `memory`.
 * @param group the name of the session's group, or null.
 * @returns the length of the answer; 0 for CLOSE, which is a WRITE.
 */
export function fillAdmin(
  request: ClientRequest,
  { kind, device }: Admin,
  memory: Memory,
  group: Uint8Array | null,
): number {
  // It doesn't outlive the connection: what it asks for would be gone with the session.
  request.retry = false;
  request.memory = memory;
  request.memoryOffset = 0;
  // The server could answer with nothing: an old answer must not pass for it.
  memory.bytes.fill(0, 0, RNBD_OPEN_RSP_BYTES);
  if (kind === "SESS_INFO" || device === null) {
    writeRnbdSessInfo(request.userView, 0, RNBD_VERSION_MAJOR, group);
    request.userLength = RNBD_SESS_INFO_BYTES;
    return RNBD_SESS_INFO_BYTES;
  }
  if (kind === "OPEN") {
    writeRnbdOpen(request.userView, 0, device.access, device.name);
    request.userLength = RNBD_OPEN_BYTES;
    return RNBD_OPEN_RSP_BYTES;
  }
  writeRnbdClose(request.userView, 0, device.deviceId);
  request.userLength = RNBD_CLOSE_BYTES;
  return 0;
}

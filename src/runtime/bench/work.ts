// SPDX-License-Identifier: MIT
import {
  type MemoryRegion,
  SEND_FLAG,
  type SendWorkRequest,
  type WrOpcode,
} from "../../verbs/index.js";

/**
 * One signalled request over `length` bytes of `mr` from `offset` on; the remote side is the
 * caller's.
 */
export function fillRemote(
  wr: SendWorkRequest,
  opcode: WrOpcode,
  mr: MemoryRegion,
  offset: number,
  length: number,
): void {
  wr.opcode = opcode;
  wr.sendFlags = SEND_FLAG.SIGNALED;
  wr.sgeCount = 1;
  const entry = wr.sges[0];
  if (entry === undefined) return;
  entry.address = mr.address + offset;
  entry.length = length;
  entry.lkey = mr.lkey;
}

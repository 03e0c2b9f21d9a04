// SPDX-License-Identifier: MIT
// Atomic operations on memory (IBTA vol1 §9.4.5). Atomic with respect to every other operation of
// this device, which runs one at a time; not with respect to other threads that share the memory.

import {
  atomicEthCompareHigh,
  atomicEthCompareLow,
  atomicEthSwapAddHigh,
  atomicEthSwapAddLow,
  RC,
} from "../wire/index.js";
import { nativeHigh, nativeLow, writeNative64 } from "./native64.js";
import type { RxPacket } from "./packet-io.js";
import type { ResponderResources } from "./responder-resources.js";

/**
 * Executes the atomic request of `packet` on the eight bytes at `offset` and saves what they held
 * in `slot`. Preconditions: key, rights, bounds and alignment have been checked.
 */
export function executeAtomic(
  packet: RxPacket,
  memory: DataView,
  offset: number,
  resources: ResponderResources,
  slot: number,
): void {
  const { view, extended } = packet;
  const high = nativeHigh(memory, offset);
  const low = nativeLow(memory, offset);
  const operandHigh = atomicEthSwapAddHigh(view, extended);
  const operandLow = atomicEthSwapAddLow(view, extended);
  resources.originalHighs[slot] = high;
  resources.originalLows[slot] = low;
  if (packet.opcode === RC.FETCH_ADD) {
    const sum = low + operandLow;
    const carry = sum > 0xffff_ffff ? 1 : 0;
    writeNative64(memory, offset, (high + operandHigh + carry) >>> 0, sum >>> 0);
    return;
  }
  const isEqual =
    atomicEthCompareHigh(view, extended) === high && atomicEthCompareLow(view, extended) === low;
  if (isEqual) writeNative64(memory, offset, operandHigh, operandLow);
}

// SPDX-License-Identifier: MIT
// The sessions of one client that has one on each of its lanes: how they know each other, and what
// they share, so that the devices that they have of a volume are one device to its users.

import { ChangeGuard } from "./change-guard.js";
import { FlushLedger } from "./flush-ledger.js";
import { LaneGuard, type LaneSeat } from "./lane-guard.js";

/** What all lanes share of one volume. */
export interface SharedVolumeMemory {
  /** Of `LaneGuard`. */
  readonly guard: SharedArrayBuffer;
  /** Of `FlushLedger`. */
  readonly ledger: SharedArrayBuffer;
}

/** A session's part in the group. */
export interface SessionGroup extends LaneSeat {
  /**
   * 16 random bytes (`RNBD_GROUP_BYTES`) that nobody else knows, the same for all sessions: who
   * names them to a server shares the group's right to write.
   */
  readonly name: Uint8Array;
  /** Asked for each volume that is opened for writing; the same on all lanes. */
  readonly memoryOf: (volume: string) => SharedVolumeMemory;
}

/** What `laneCount` lanes need to write one volume together. */
export function allocateSharedVolume(laneCount: number): SharedVolumeMemory {
  return {
    guard: LaneGuard.allocate(laneCount),
    ledger: new SharedArrayBuffer(FlushLedger.byteLength(laneCount)),
  };
}

/** The parts of a device that are the group's, or its own where `group` is null. */
export function joinGroup(
  group: SessionGroup | null,
  volume: string,
): { readonly guard: ChangeGuard; readonly ledger: FlushLedger } {
  if (group === null) {
    const memory = new ArrayBuffer(FlushLedger.byteLength(1));
    return { guard: new ChangeGuard(null), ledger: new FlushLedger(memory, 0, 1) };
  }
  const { guard, ledger } = group.memoryOf(volume);
  return {
    guard: new ChangeGuard(new LaneGuard(guard, group)),
    ledger: new FlushLedger(ledger, group.lane, group.laneCount),
  };
}

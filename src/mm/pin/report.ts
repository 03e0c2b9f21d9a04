// SPDX-License-Identifier: MIT
// Who holds what, for people; and all counts anew from what is held, for tests.

import { assert } from "../../base/index.js";
import { FRAME_STATE, type Pfn, type PhysicalMemory } from "../frames/index.js";
import { ACCESS, type AddressSpace } from "../space/index.js";
import { PinAccount } from "./account.js";
import { FrameCounts } from "./frame-counts.js";
import type { Hold } from "./holds.js";
import type { PinPurpose } from "./options.js";

/** One hold. */
export interface PinReport {
  readonly process: string;
  readonly holder: string;
  readonly purpose: PinPurpose;
  readonly address: number;
  readonly length: number;
  readonly isWrite: boolean;
  readonly isPinned: boolean;
  readonly frames: number;
  /** Contiguous pieces that they are in. */
  readonly pieces: number;
}

/** All of one process. */
export interface ProcessPins {
  readonly process: string;
  readonly holds: number;
  /** Frames that are pinned, each counted once. */
  readonly pinnedFrames: number;
  readonly chargedBytes: number;
  /** Infinity for none. */
  readonly lockedBytesMax: number;
}

export function reportOf(hold: Hold): PinReport {
  return {
    process: hold.space.name,
    holder: hold.holder,
    purpose: hold.purpose,
    address: hold.address,
    length: hold.length,
    isWrite: hold.access === ACCESS.WRITE,
    isPinned: hold.isPinned,
    frames: hold.frameCount,
    pieces: hold.runs.length,
  };
}

export function sumByProcess(
  holds: Iterable<Hold>,
  chargedBytes: (space: AddressSpace) => number,
): ProcessPins[] {
  const bySpace = new Map<AddressSpace, { holds: number; frames: FrameCounts }>();
  for (const hold of holds) {
    const sum = bySpace.get(hold.space) ?? { holds: 0, frames: new FrameCounts() };
    bySpace.set(hold.space, sum);
    sum.holds++;
    if (!hold.isPinned) continue;
    for (const { pfn, count } of hold.runs) {
      sum.frames.add(pfn, count);
    }
  }
  const sums = [...bySpace].map(([space, sum]) => ({
    process: space.name,
    holds: sum.holds,
    pinnedFrames: sum.frames.frameCount,
    chargedBytes: chargedBytes(space),
    lockedBytesMax: space.limits.lockedBytesMax,
  }));
  return sums.sort((a, b) => b.pinnedFrames - a.pinnedFrames);
}

/**
 * Counts pins and charges anew from what is held, and asserts that the frames' and the accounts'
 * agree. @returns references held, by first frame of the block.
 */
export function checkPins(
  memory: PhysicalMemory,
  holds: ReadonlySet<Hold>,
  accounts: ReadonlyMap<AddressSpace, PinAccount>,
  pagesHeld: number,
): Map<Pfn, number> {
  const references = new Map<Pfn, number>();
  const pins = new Map<Pfn, number>();
  const charges = new Map<AddressSpace, PinAccount>();
  let frames = 0;
  for (const hold of holds) {
    assert(!hold.isReleased, "what is listed is held");
    for (const { pfn, count } of hold.runs) {
      for (let frame = pfn; frame < pfn + count; frame++) {
        const head = memory.headOf(frame);
        frames++;
        references.set(head, (references.get(head) ?? 0) + 1);
        if (hold.isPinned) pins.set(head, (pins.get(head) ?? 0) + 1);
        if (hold.purpose !== "long-term-dma") continue;
        const account = charges.get(hold.space) ?? new PinAccount(memory.policy.baseShift);
        charges.set(hold.space, account);
        account.charge(frame, 1, Number.POSITIVE_INFINITY);
      }
    }
  }
  assert(frames === pagesHeld, "pages taken and not given back are those that are held");
  checkFramePins(memory, pins);
  checkAccounts(charges, accounts);
  return references;
}

/** Every frame of the host has just the pins of what is held. */
function checkFramePins(memory: PhysicalMemory, expected: ReadonlyMap<Pfn, number>): void {
  let seen = 0;
  for (const zone of memory.zones) {
    const { pins, states } = zone.table;
    for (let record = 0; record < zone.table.recordCount; record++) {
      const count = pins[record] as number;
      if (count === 0) continue;
      assert(states[record] === FRAME_STATE.USED, "a pinned frame is in use");
      assert(count === expected.get(zone.pfnOf(record)), "a frame has the pins that are held");
      seen++;
    }
  }
  assert(seen === expected.size, "every pin that is held is on its frame");
}

function checkAccounts(
  charges: ReadonlyMap<AddressSpace, PinAccount>,
  accounts: ReadonlyMap<AddressSpace, PinAccount>,
): void {
  for (const [space, account] of accounts) {
    const anew = charges.get(space);
    assert(anew !== undefined, "an account without pins is closed");
    assert(account.chargedBytes === anew.chargedBytes, "each pinned frame is charged once");
    assert(account.chargedBytes <= account.bytesMax, "limits are kept");
  }
  assert(charges.size === accounts.size, "who has pinned for long has an account");
}

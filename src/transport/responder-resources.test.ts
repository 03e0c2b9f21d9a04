// SPDX-License-Identifier: MIT
// What a responder keeps of READs and atomics, without a responder.

import { describe, expect, it } from "vitest";
import { RESOURCE_KIND, ResponderResources } from "./responder-resources.js";

const PACKETS = 4;

/** Takes READs of four packets each at the given PSNs and queues their answers. */
function queued(psns: readonly number[]): { resources: ResponderResources; slots: number[] } {
  const resources = new ResponderResources(4);
  const slots = psns.map((psn) => {
    const slot = resources.take();
    resources.kinds[slot] = RESOURCE_KIND.READ;
    resources.psns[slot] = psn;
    resources.packetCounts[slot] = PACKETS;
    queue(resources, slot, psn, psn, false);
    return slot;
  });
  return { resources, slots };
}

/** Queues the answer of the READ at `start`, from `psn` on. */
function queue(
  resources: ResponderResources,
  slot: number,
  start: number,
  psn: number,
  isRepeat: boolean,
): void {
  resources.replyPsns[slot] = psn;
  resources.replyPacketCounts[slot] = PACKETS - (psn - start);
  resources.replySents[slot] = 0;
  resources.queueReply(slot, isRepeat);
}

/** PSNs of the queued answers in the order in which they leave. */
function order(resources: ResponderResources): number[] {
  const psns: number[] = [];
  resources.checkInvariants();
  while (resources.replyHead >= 0) {
    psns.push(resources.replyPsns[resources.replyHead] as number);
    resources.removeReply(resources.replyHead);
  }
  return psns;
}

describe("responder resources", () => {
  it("answers in the order of the requests", () => {
    expect(order(queued([10, 14, 18]).resources)).toEqual([10, 14, 18]);
  });

  it("puts a repeated answer before newer ones, whether or not it was still queued", () => {
    const { resources, slots } = queued([10, 14, 18]);
    const [first, second] = slots as [number, number];
    resources.removeReply(first);
    queue(resources, first, 10, 12, true);
    queue(resources, second, 14, 15, true);
    expect(order(resources)).toEqual([12, 15, 18]);
  });

  it("keeps that order where PSNs wrap", () => {
    const { resources, slots } = queued([0xfffffc, 0, 4]);
    queue(resources, slots[0] as number, 0xfffffc, 0xfffffd, true);
    expect(order(resources)).toEqual([0xfffffd, 0, 4]);
  });

  it("knows what it has still to send in any case", () => {
    const { resources, slots } = queued([10]);
    const slot = slots[0] as number;
    expect(resources.isStillToSend(slot, 10, 4)).toBe(true);
    resources.replySents[slot] = 2;
    expect(resources.isStillToSend(slot, 11, 3)).toBe(false);
    expect(resources.isStillToSend(slot, 12, 2)).toBe(true);
    expect(resources.isStillToSend(slot, 12, 3)).toBe(false);
    resources.removeReply(slot);
    expect(resources.isStillToSend(slot, 12, 2)).toBe(false);
  });

  it("gives a repeat's place to a newer request, but not a first answer's", () => {
    const { resources, slots } = queued([10, 14, 18, 22]);
    expect(resources.take()).toBe(-1);
    queue(resources, slots[0] as number, 10, 10, true);
    expect(resources.take()).toBe(slots[0]);
    expect(order(resources)).toEqual([14, 18, 22]);
  });
});

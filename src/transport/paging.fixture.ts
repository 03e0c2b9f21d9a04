// SPDX-License-Identifier: MIT
// Any work between two hosts whose memory comes and goes, on a network that loses packets: what
// arrives is what a connection between pinned memories would have brought, and no packet touches a
// page that was taken away.

import fc from "fast-check";
import { expect } from "vitest";
import { highOf, lowOf, SeededRandom } from "../base/index.js";
import { firstDifference, Pair } from "./network.fixture.js";
import { TestPages } from "./test-pages.fixture.js";
import { RecvWorkRequest, WR_OPCODE } from "./work-request.js";

const ADDRESS_A = 0x5000_0000_0000;
const ADDRESS_B = 0x6000_0000_0000;
const PAGE = 4096;
/** Of A: four pages that are sent, six for what comes back. Of B: see `AREA`. */
const PAGES_A = 10;
const PAGES_B = 11;
const TARGET_A = 4 * PAGE;
const AREA = { WRITES: 0, READS: 4 * PAGE, COUNTERS: 6 * PAGE, RECEIVES: 7 * PAGE };
const SLOT_BYTES = 1601;

export interface Step {
  kind: "write" | "read" | "send" | "add";
  from: number;
  to: number;
  length: number;
}

export const step = fc.record<Step>({
  kind: fc.constantFrom("write", "read", "send", "add"),
  from: fc.nat(2 * PAGE - 1),
  to: fc.nat(2 * PAGE - 1),
  length: fc.integer({ min: 1, max: 6000 }),
});

export class Paging {
  readonly pair: Pair;
  readonly a = new TestPages(PAGES_A, ADDRESS_A);
  readonly b = new TestPages(PAGES_B, ADDRESS_B);
  readonly modelA: Uint8Array;
  readonly modelB: Uint8Array;
  isWild = true;
  private readonly random: SeededRandom;
  private readonly keyA: number;
  private readonly keyB: number;
  private slots = 0;
  private sends = 0;

  constructor(seed: number) {
    const random = new SeededRandom(seed);
    this.random = random;
    this.pair = new Pair({ rnrRetry: 7, retryCount: 7, timeout: 9 }, { faultRnrTimer: 1 });
    const { a, b } = this.pair;
    const regions = [
      a.device.regions.registerPages(a.pd, this.a, ADDRESS_A, PAGES_A * PAGE, 15),
      b.device.regions.registerPages(b.pd, this.b, ADDRESS_B, PAGES_B * PAGE, 15),
    ] as const;
    this.keyA = a.device.regions.keyOf(regions[0]);
    this.keyB = b.device.regions.keyOf(regions[1]);
    this.modelA = Uint8Array.from({ length: PAGES_A * PAGE }, (_, i) => (i * 7) >> 2);
    this.modelB = Uint8Array.from({ length: PAGES_B * PAGE }, (_, i) => (i * 11) >> 3);
    this.a.fill(this.modelA);
    this.b.fill(this.modelB);
    // What happens between any two packets: one is lost, a page of either side goes.
    this.pair.fate = () => {
      if (!this.isWild) return null;
      this.takeSomethingAway();
      return random.nextU32() % 12 === 0 ? { drop: true } : null;
    };
  }

  takeSomethingAway(): void {
    const draw = this.random.nextU32();
    if (draw % 2 === 0) this.a.takeAway((draw >>> 8) % PAGES_A);
    if (draw % 3 === 0) this.b.takeAway((draw >>> 16) % PAGES_B);
  }

  post(wrId: number, { kind, from, to, length }: Step): void {
    const { pair } = this;
    const post = (
      opcode: Parameters<Pair["post"]>[1],
      local: number,
      bytes: number,
      remote = 0,
    ) => {
      const address = ADDRESS_B + remote;
      const errno = pair.post(wrId, opcode, 0, {
        sges: [{ address: ADDRESS_A + local, length: bytes, lkey: this.keyA }],
        sgeCount: 1,
        remoteAddressHigh: highOf(address),
        remoteAddressLow: lowOf(address),
        rkey: this.keyB,
        compareAddLow: wrId + 1,
      });
      expect(errno).toBe(0);
    };
    const slot = TARGET_A + this.slots * SLOT_BYTES;
    if (kind === "write") {
      post(WR_OPCODE.RDMA_WRITE, from, length, AREA.WRITES + to);
      const source = this.modelA.subarray(from, from + length);
      this.modelB.set(source, AREA.WRITES + to);
    } else if (kind === "read") {
      const bytes = 1 + (length % SLOT_BYTES);
      post(WR_OPCODE.RDMA_READ, slot, bytes, AREA.READS + (to % PAGE));
      const at = AREA.READS + (to % PAGE);
      this.modelA.set(this.modelB.subarray(at, at + bytes), slot);
      this.slots++;
    } else if (kind === "add") {
      const at = AREA.COUNTERS + ((to & ~7) % PAGE);
      post(WR_OPCODE.ATOMIC_FETCH_AND_ADD, slot, 8, at);
      this.modelA.set(this.modelB.subarray(at, at + 8), slot);
      const view = new DataView(this.modelB.buffer);
      view.setBigUint64(
        at,
        (view.getBigUint64(at, true) + BigInt(wrId + 1)) & (2n ** 64n - 1n),
        true,
      );
      this.slots++;
    } else {
      const at = AREA.RECEIVES + this.sends * SLOT_BYTES;
      const bytes = 1 + (length % SLOT_BYTES);
      const wr = new RecvWorkRequest();
      wr.sgeCount = 1;
      wr.sges[0] = { address: ADDRESS_B + at, length: SLOT_BYTES, lkey: this.keyB };
      expect(pair.qpB.postRecv(wr)).toBe(0);
      post(WR_OPCODE.SEND, from, bytes);
      this.modelB.set(this.modelA.subarray(from, from + bytes), at);
      this.sends++;
    }
  }

  /** Posts all of it, and runs until all of it has completed. */
  play(steps: readonly Step[]): void {
    steps.forEach((one, i) => {
      this.post(i, one);
    });
    this.run(steps.length);
  }

  /** Wild for a while, then tame until everything has completed. */
  run(count: number): void {
    const done: string[] = [];
    for (let turn = 0; done.length < count; turn++) {
      if (turn > 20_000) throw new Error(`${count - done.length} requests never complete`);
      this.isWild = turn < 100;
      if (this.isWild) this.takeSomethingAway();
      this.pair.run(this.isWild ? 20_000 : 500_000);
      const draw = this.random.nextU32();
      this.a.serve(draw % 5);
      this.b.serve((draw >>> 8) % 5);
      done.push(...this.pair.a.completions());
    }
    expect(done).toEqual(done.map((_, i) => `${i} SUCCESS`));
    expect(firstDifference(this.a.contents(), this.modelA)).toBe(-1);
    expect(firstDifference(this.b.contents(), this.modelB)).toBe(-1);
    // Nothing was there at first, so the test can't have passed by it.
    expect(this.pair.a.device.counters.pageFaults).toBeGreaterThan(0);
    expect(this.a.areFreePlacesUntouched()).toBe(true);
    expect(this.b.areFreePlacesUntouched()).toBe(true);
  }
}

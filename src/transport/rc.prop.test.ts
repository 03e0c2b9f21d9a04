// SPDX-License-Identifier: MIT
// The promise of a reliable connection, on a network that breaks every one of its own: every
// request takes effect exactly once and in order, every completion comes once and in order, every
// byte is where it belongs and no other has changed.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { SeededRandom } from "../base/index.js";
import { firstDifference, Pair } from "./network.fixture.js";
import type { PathMtu, QpAttributes } from "./qp-state.js";
import { QP_STATE } from "./qp-state.js";
import { type SendWorkRequest, WR_OPCODE } from "./work-request.js";

/** How the network treats packets, each a probability. */
interface Weather {
  loss: number;
  duplicate: number;
  late: number;
  corrupt: number;
}

const SLOT_BYTES = 20_000;
const SLOTS = 24;
/** Where reads are from, and where the counter of the atomics is. */
const READ_AREA = SLOT_BYTES * SLOTS;
const COUNTER = 1_000_000;

function stormy(pair: Pair, seed: number, weather: Weather): void {
  const random = new SeededRandom(seed);
  const chance = (p: number): boolean => random.nextU32() / 2 ** 32 < p;
  pair.fate = () => ({
    drop: chance(weather.loss),
    duplicate: chance(weather.duplicate),
    delayNs: chance(weather.late) ? random.nextU32() % 3_000_000 : 0,
    ...(chance(weather.corrupt) && {
      alter: (view: DataView, length: number) => {
        const at = random.nextU32() % length;
        view.setUint8(at, view.getUint8(at) ^ (1 << (random.nextU32() % 8)));
      },
    }),
  });
}

/** Byte counts that sit on and beside the packet boundaries of an MTU. */
const sizes = (mtu: number) =>
  fc.oneof(
    fc.constantFrom(0, 1, 3, mtu - 1, mtu, mtu + 1, 2 * mtu, 3 * mtu - 1, 4 * mtu + 3),
    fc.integer({ min: 0, max: Math.min(SLOT_BYTES, 5 * mtu) }),
  );

const scenario = fc.constantFrom<PathMtu>(256, 512, 1024, 2048, 4096).chain((mtu) =>
  fc.record({
    mtu: fc.constant(mtu),
    seed: fc.integer(),
    probes: fc.boolean(),
    weather: fc.record({
      loss: fc.constantFrom(0, 0.02, 0.1),
      duplicate: fc.constantFrom(0, 0.1),
      late: fc.constantFrom(0, 0.05),
      corrupt: fc.constantFrom(0, 0.02),
    }),
    windowBytes: fc.constantFrom(4096, 20_000, 1 << 20),
    maxRdAtomic: fc.integer({ min: 1, max: 8 }),
    psn: fc.constantFrom(0, 0xfffffa, 0x7ffffe),
    operations: fc.array(
      fc.record({ kind: fc.integer({ min: 0, max: 6 }), size: sizes(mtu), fence: fc.boolean() }),
      { minLength: 1, maxLength: SLOTS },
    ),
  }),
);

/** Posts operation `index`; its data comes from and goes to slot `index`. */
function postOne(
  pair: Pair,
  index: number,
  kind: number,
  size: number,
  fence: boolean,
  rkey = pair.b.key,
): void {
  const change: Partial<SendWorkRequest> & { offset: number; remote: number } = {
    offset: index * SLOT_BYTES,
    remote: index * SLOT_BYTES,
    sendFlags: 2 | (fence ? 1 : 0),
    immediate: index,
    rkey,
  };
  const opcodes = [
    WR_OPCODE.RDMA_WRITE,
    WR_OPCODE.SEND,
    WR_OPCODE.RDMA_READ,
    WR_OPCODE.ATOMIC_FETCH_AND_ADD,
    WR_OPCODE.RDMA_WRITE_WITH_IMM,
    WR_OPCODE.SEND_WITH_IMM,
    WR_OPCODE.ATOMIC_CMP_AND_SWP,
  ] as const;
  const opcode = opcodes[kind] as (typeof opcodes)[number];
  const isAtomic = kind === 3 || kind === 6;
  if (isAtomic) Object.assign(change, { remote: COUNTER, compareAddLow: 1, swapLow: 0 });
  if (kind === 2) change.remote = READ_AREA + index;
  if (kind === 6) Object.assign(change, { compareAddHigh: 1 });
  expect(pair.post(index, opcode, isAtomic ? 8 : size, change)).toBe(0);
  if (kind === 1 || kind === 4 || kind === 5) {
    expect(pair.receive(index, kind === 4 ? 0 : SLOT_BYTES, index * SLOT_BYTES)).toBe(0);
  }
}

describe("RC on a bad network", () => {
  it("everything happens exactly once and in order, for every MTU, size and window", () => {
    fc.assert(
      fc.property(scenario, (s) => {
        const attributes: QpAttributes = {
          pathMtu: s.mtu,
          maxRdAtomic: s.maxRdAtomic,
          maxDestRdAtomic: 8,
          timeout: 12,
          retryCount: 7,
          rnrRetry: 7,
        };
        const options = { probes: s.probes, windowBytes: s.windowBytes };
        const addresses = ["10.79.0.2", "10.79.0.3"];
        const pair = new Pair(attributes, options, {}, addresses, [s.psn, 0xfffff0]);
        pair.b.memory.view.setBigUint64(COUNTER, 0n, true);
        const wanted = pair.b.memory.bytes.slice();
        const source = pair.a.memory.bytes.slice();
        stormy(pair, s.seed, s.weather);
        let added = 0;
        const receives: string[] = [];
        for (const [i, { kind, size, fence }] of s.operations.entries()) {
          postOne(pair, i, kind, size, fence);
          const at = i * SLOT_BYTES;
          const isData = kind !== 2 && kind !== 3 && kind !== 6;
          if (isData) wanted.set(source.subarray(at, at + size), at);
          if (kind === 3) added++;
          const text = `recv ${i} SUCCESS ${size}`;
          if (kind === 1) receives.push(text);
          if (kind === 4 || kind === 5) receives.push(`${text} imm ${i.toString(16)}`);
        }
        pair.runToRest();
        expect(pair.a.completions()).toEqual(s.operations.map((_, i) => `${i} SUCCESS`));
        expect(pair.b.completions()).toEqual(receives);
        let seen = 0n;
        for (const [i, { kind, size }] of s.operations.entries()) {
          const at = i * SLOT_BYTES;
          if (kind === 2) {
            const from = READ_AREA + i;
            const expected = wanted.subarray(from, from + size);
            expect(firstDifference(pair.a.memory.bytes.subarray(at, at + size), expected)).toBe(-1);
          } else if (kind === 3 || kind === 6) {
            expect(pair.a.memory.view.getBigUint64(at, true)).toBe(seen);
            if (kind === 3) seen++;
          }
        }
        new DataView(wanted.buffer).setBigUint64(COUNTER, BigInt(added), true);
        expect(firstDifference(pair.b.memory.bytes, wanted)).toBe(-1);
        expect(pair.qpA.requester?.isOutstanding).toBe(false);
        expect(pair.qpA.sendCount).toBe(0);
      }),
      { numRuns: 60, seed: 20191 },
    );
  });

  it("both directions at once over the same queue pairs", () => {
    fc.assert(
      fc.property(fc.integer(), fc.constantFrom<PathMtu>(256, 1024, 4096), (seed, mtu) => {
        const pair = new Pair({ pathMtu: mtu, timeout: 12, retryCount: 7, rnrRetry: 7 });
        stormy(pair, seed, { loss: 0.05, duplicate: 0.05, late: 0.02, corrupt: 0.01 });
        const back = Object.assign(Object.create(Pair.prototype), pair) as Pair;
        Object.assign(back, { a: pair.b, b: pair.a, qpA: pair.qpB, qpB: pair.qpA });
        for (let i = 0; i < 12; i++) {
          const size = 700 * i + 1;
          postOne(pair, i, i % 3, size, false);
          postOne(back, 12 + i, (i + 1) % 3, size, false);
        }
        pair.runToRest();
        const sends = (lines: string[]): string[] => lines.filter((line) => !line.startsWith("r"));
        const range = (from: number) => Array.from({ length: 12 }, (_, i) => `${from + i} SUCCESS`);
        expect(sends(pair.a.completions())).toEqual(range(0));
        expect(sends(pair.b.completions())).toEqual(range(12));
      }),
      { numRuns: 30, seed: 7 },
    );
  });

  it("no packet, mutated and sealed again, moves a byte that its key does not open", () => {
    const open = 10 * SLOT_BYTES;
    let errors = 0;
    fc.assert(
      fc.property(fc.nat(), (seed) => {
        const pair = new Pair({ timeout: 12, retryCount: 2, rnrRetry: 2 });
        const random = new SeededRandom(seed);
        pair.fate = () => ({
          alter: (view: DataView, length: number) => {
            if (random.nextU32() % 3 !== 0) return;
            // Headers above all; then sealed again, as a hostile peer would.
            for (let n = random.nextU32() % 3; n >= 0; n--) {
              view.setUint8(random.nextU32() % Math.min(length, 44), random.nextU32() & 255);
            }
            reseal(pair, view, length);
          },
        });
        const { regions } = pair.b.device;
        const region = regions.register(pair.b.pd, pair.b.memory, 0, open, 15);
        const before = pair.b.memory.bytes.slice();
        const rkey = regions.keyOf(region);
        for (let i = 0; i < 10; i++) postOne(pair, i, (seed + i) % 3, 300 * i, false, rkey);
        pair.run(2_000_000_000);
        const after = pair.b.memory.bytes;
        expect(firstDifference(after.subarray(open), before.subarray(open))).toBe(-1);
        if (pair.qpB.state === QP_STATE.ERR) errors++;
      }),
      { numRuns: 100, seed: 3 },
    );
    // Most runs must have got as far as a refusal, or this has tested nothing.
    expect(errors).toBeGreaterThan(50);
  });
});

/** Gives an altered packet a right ICRC for the direction in which its QPN points. */
function reseal(pair: Pair, view: DataView, length: number): void {
  const bytes = new Uint8Array(view.buffer, view.byteOffset, length);
  const qpn = view.getUint32(4) & 0xffffff;
  pair.seal(qpn === pair.qpA.qpn ? 1 : 0, bytes);
}

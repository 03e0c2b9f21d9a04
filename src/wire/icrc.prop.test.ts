// SPDX-License-Identifier: MIT
// The ICRC against its definition (a masked packet put together byte by byte and given to zlib),
// and the laws of the check that doesn't see the IP header.

import { crc32 } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { IpAddress, SeededRandom } from "../base/index.js";
import { ICRC_RESULT, IcrcEngine, IcrcFlow } from "./icrc.js";
import { ICRC_SOLVABLE_BYTES_MAX } from "./icrc-solver.js";

const engine = new IcrcEngine();

interface Sample {
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly sourcePort: number;
  readonly id: number;
  /** The UDP payload; the last four bytes are the ICRC's place. */
  readonly packet: Uint8Array;
}

const u16 = fc.nat({ max: 0xffff });
const u32 = fc.nat({ max: 0xffff_ffff });
const v4 = u32.map((word) => IpAddress.v4(word));
const v6 = fc
  .tuple(u32, u32, u32, u32)
  .map(([a, b, c, d]) => new IpAddress(a | 0x2000_0000, b, c, d));
const packet = fc.uint8Array({ minLength: 16, maxLength: 500, size: "max" });

function samplesOf(address: fc.Arbitrary<IpAddress>): fc.Arbitrary<Sample> {
  return fc.record({
    source: address,
    destination: address,
    sourcePort: u16,
    id: u16,
    packet,
  });
}
const v4Sample = samplesOf(v4);
const anySample = fc.oneof(v4Sample, samplesOf(v6));

/**
 * The masked input of facts §6, given to zlib.
 * @param fragmentWord flags and fragment offset of IPv4.
 */
function reference(s: Sample, fragmentWord = 0x4000): number {
  const length = s.packet.length;
  const word16 = (n: number) => [n >>> 8, n & 255];
  const gid = (address: IpAddress) => {
    const view = new DataView(new ArrayBuffer(16));
    address.writeGid(view, 0);
    return [...new Uint8Array(view.buffer)];
  };
  const ip =
    s.source.family === 4
      ? [
          [0x45, 0xff, ...word16(length + 28), ...word16(s.id), ...word16(fragmentWord)],
          [0xff, 17, 0xff, 0xff, ...gid(s.source).slice(12), ...gid(s.destination).slice(12)],
        ].flat()
      : [
          [0x6f, 0xff, 0xff, 0xff, ...word16(length + 8), 17, 0xff],
          [...gid(s.source), ...gid(s.destination)],
        ].flat();
  const udp = [...word16(s.sourcePort), ...word16(4791), ...word16(length + 8), 0xff, 0xff];
  const rest = s.packet.slice(0, length - 4);
  rest[4] = 0xff;
  const input = [new Array<number>(8).fill(0xff), ip, udp].flat();
  return crc32(rest, crc32(Uint8Array.from(input)));
}

function flowOf(s: Sample): IcrcFlow {
  return IcrcFlow.between(s.source, s.sourcePort, s.destination, 4791);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** The sample's packet with its right ICRC. */
function sealed(s: Sample, fragmentWord = 0x4000): Uint8Array {
  const bytes = s.packet.slice();
  viewOf(bytes).setUint32(bytes.length - 4, reference(s, fragmentWord), true);
  return bytes;
}

describe("ICRC: the definition", () => {
  it("compute and write give the CRC of the masked packet, IPv4 and IPv6", () => {
    fc.assert(
      fc.property(anySample, (s) => {
        const bytes = s.packet.slice();
        const view = viewOf(bytes);
        const icrc = engine.compute(flowOf(s), bytes, view, 0, bytes.length, s.id);
        expect(icrc >>> 0).toBe(reference(s));
        engine.write(flowOf(s), bytes, view, 0, bytes.length, s.id);
        expect(bytes).toEqual(sealed(s));
      }),
      { numRuns: 300 },
    );
  });

  it("the two examples of the facts page", () => {
    const bytes = (text: string) => Uint8Array.from(Buffer.from(text.replaceAll(" ", ""), "hex"));
    const small = bytes("0430ffff00000011801234570700 00005aba6c0e");
    const first = IpAddress.parse("10.79.0.2");
    const flow = IcrcFlow.between(first, 0xc121, IpAddress.parse("10.79.0.3"), 4791);
    expect(engine.compute(flow, small, viewOf(small), 0, 20, 0x9274) >>> 0).toBe(0x0e6cba5a);
    expect(engine.compute(flow, small, viewOf(small), 0, 20, 0) >>> 0).toBe(0xcedbf818);
    expect(engine.check(flow, small, viewOf(small), 0, 20, 0)).toBe(ICRC_RESULT.SOLVED);
    expect(flow.identification).toBe(0x9274);
    const sixth = bytes("0430ffff000000808012345607000000756c5295");
    const source = IpAddress.parse("fd00:79::2");
    const flow6 = IcrcFlow.between(source, 0xf100, IpAddress.parse("fd00:79::3"), 4791);
    expect(engine.check(flow6, sixth, viewOf(sixth), 0, 20, 0)).toBe(ICRC_RESULT.EXACT);
  });

  it("a flow that was another's and is assigned anew → as if it were new", () => {
    fc.assert(
      fc.property(anySample, anySample, (a, b) => {
        const flow = flowOf(a);
        const { word0, word1, word2, word3 } = b.source;
        flow.assign(word0, word1, word2, word3, b.sourcePort, b.destination, 4791);
        expect(flow.matches(word0, word1, word2, word3, b.sourcePort)).toBe(true);
        expect(flow.matches(word0, word1, word2, word3, b.sourcePort ^ 1)).toBe(false);
        expect(flow.matches(word0, word1, word2, (word3 ^ 1) >>> 0, b.sourcePort)).toBe(false);
        const bytes = sealed(b);
        expect(engine.checkExact(flow, bytes, viewOf(bytes), 0, bytes.length, b.id)).toBe(true);
      }),
      { numRuns: 50 },
    );
  });

  it("a packet in the middle of a slab → the same, and only the ICRC is written", () => {
    fc.assert(
      fc.property(anySample, fc.nat({ max: 70 }), (s, offset) => {
        const slab = new Uint8Array(offset + s.packet.length + 9).fill(0xee);
        slab.set(s.packet, offset);
        engine.write(flowOf(s), slab, viewOf(slab), offset, s.packet.length, s.id);
        const expected = new Uint8Array(slab.length).fill(0xee);
        expected.set(sealed(s), offset);
        expect(slab).toEqual(expected);
      }),
      { numRuns: 50 },
    );
  });
});

describe("ICRC: what must be noticed", () => {
  it("any one bit flipped outside the masked byte → fails with the known identification", () => {
    fc.assert(
      fc.property(anySample, fc.nat(), (s, where) => {
        const bytes = sealed(s);
        const bit = where % (bytes.length * 8);
        const at = bit >>> 3;
        bytes[at] = (bytes[at] as number) ^ (1 << (bit & 7));
        const good = engine.checkExact(flowOf(s), bytes, viewOf(bytes), 0, bytes.length, s.id);
        expect(good).toBe(at === 4);
      }),
      { numRuns: 500 },
    );
  });

  it("truncated to any length, or from another port or address → fails with the known one", () => {
    fc.assert(
      fc.property(anySample, fc.nat(), (s, cut) => {
        const bytes = sealed(s);
        const view = viewOf(bytes);
        const length = 16 + (cut % (bytes.length - 15));
        const whole = length === bytes.length;
        expect(engine.checkExact(flowOf(s), bytes, view, 0, length, s.id)).toBe(whole);
        const moved = flowOf({ ...s, sourcePort: s.sourcePort ^ 1 });
        expect(engine.checkExact(moved, bytes, view, 0, bytes.length, s.id)).toBe(false);
        const { word0, word1, word2, word3 } = s.destination;
        const destination = new IpAddress(word0, word1, word2, word3 ^ 4);
        const astray = flowOf({ ...s, destination });
        expect(engine.checkExact(astray, bytes, view, 0, bytes.length, s.id)).toBe(false);
      }),
      { numRuns: 200 },
    );
  });

  it("IPv6: the check without sight of the header is exact", () => {
    fc.assert(
      fc.property(samplesOf(v6), fc.nat(), u16, (s, where, guess) => {
        const bytes = sealed(s);
        const view = viewOf(bytes);
        expect(engine.check(flowOf(s), bytes, view, 0, bytes.length, guess)).toBe(
          ICRC_RESULT.EXACT,
        );
        bytes[where % 4] = (bytes[where % 4] as number) ^ 1;
        expect(engine.check(flowOf(s), bytes, view, 0, bytes.length, guess)).toBe(ICRC_RESULT.BAD);
      }),
    );
  });
});

describe("ICRC: the hidden identification", () => {
  it("any identification, any guess → found, DF set or clear", () => {
    fc.assert(
      fc.property(v4Sample, u16, fc.boolean(), (s, guess, df) => {
        const bytes = sealed(s, df ? 0x4000 : 0);
        const flow = flowOf(s);
        const result = engine.check(flow, bytes, viewOf(bytes), 0, bytes.length, guess);
        const solved = guess === s.id ? ICRC_RESULT.EXACT : ICRC_RESULT.SOLVED;
        expect(result).toBe(df ? solved : ICRC_RESULT.SOLVED_WITHOUT_DF);
        expect(flow.identification).toBe(s.id);
      }),
      { numRuns: 500 },
    );
  });

  it("a fragment, or the reserved flag → refused", () => {
    const fragmentWord = u16.filter((word) => word !== 0 && word !== 0x4000);
    fc.assert(
      fc.property(v4Sample, fragmentWord, (s, word) => {
        const bytes = sealed(s, word);
        const result = engine.check(flowOf(s), bytes, viewOf(bytes), 0, bytes.length, 0);
        expect(result).toBe(ICRC_RESULT.BAD);
      }),
    );
  });

  it("the bound holds the longest packet: 40 bytes of headers, 4,096 of payload, the ICRC", () => {
    expect(ICRC_SOLVABLE_BYTES_MAX).toBeGreaterThanOrEqual(40 + 4096 + 4);
  });

  it("every length up to the bound is solved, odd ones too; beyond it only the guess helps", () => {
    const bytes = new Uint8Array(ICRC_SOLVABLE_BYTES_MAX + 2);
    const random = new SeededRandom(3);
    for (let i = 0; i < bytes.length; i++) bytes[i] = random.nextU32();
    const flow = IcrcFlow.between(IpAddress.v4(1), 4791, IpAddress.v4(2), 4791);
    for (let length = 16; length <= ICRC_SOLVABLE_BYTES_MAX; length += length < 99 ? 1 : 37) {
      const offset = bytes.length - length;
      engine.write(flow, bytes, viewOf(bytes), offset, length, 0xbeef);
      expect(engine.check(flow, bytes, viewOf(bytes), offset, length, 5)).toBe(ICRC_RESULT.SOLVED);
      expect(flow.identification).toBe(0xbeef);
    }
    for (const length of [ICRC_SOLVABLE_BYTES_MAX, ICRC_SOLVABLE_BYTES_MAX + 1]) {
      engine.write(flow, bytes, viewOf(bytes), 0, length, 7);
      expect(engine.check(flow, bytes, viewOf(bytes), 0, length, 7)).toBe(ICRC_RESULT.EXACT);
      const guessed = engine.check(flow, bytes, viewOf(bytes), 0, length, 8);
      const solvable = length <= ICRC_SOLVABLE_BYTES_MAX;
      expect(guessed).toBe(solvable ? ICRC_RESULT.SOLVED : ICRC_RESULT.BAD);
    }
  });

  it("random corruption, seed 11: 2^-16 of it looks like another identification", () => {
    const trials = 2 ** 20;
    const random = new SeededRandom(11);
    const flow = IcrcFlow.between(IpAddress.v4(1), 4791, IpAddress.v4(2), 4791);
    const bytes = new Uint8Array(64);
    const view = viewOf(bytes);
    const results = [0, 0, 0, 0];
    for (let i = 0; i < trials; i++) {
      view.setUint32(12, random.nextU32());
      const length = 20 + (i & 7) * 4;
      view.setUint32(length - 4, random.nextU32());
      const result = engine.check(flow, bytes, view, 0, length, 0);
      results[result] = (results[result] as number) + 1;
    }
    // 16 expected of each; the bounds are five standard deviations wide.
    expect(results[ICRC_RESULT.SOLVED]).toBeLessThan(36);
    expect(results[ICRC_RESULT.SOLVED]).toBeGreaterThan(0);
    expect(results[ICRC_RESULT.SOLVED_WITHOUT_DF]).toBeLessThan(36);
    expect(results[ICRC_RESULT.SOLVED_WITHOUT_DF]).toBeGreaterThan(0);
    expect(results[ICRC_RESULT.EXACT]).toBeLessThanOrEqual(1);
  });
});

describe("ICRC: the injected routine", () => {
  it("is called from the configured length on, with a signed register", () => {
    const calls: number[] = [];
    const spy = new IcrcEngine((bytes, start, end, register) => {
      calls.push(end - start);
      expect(register).toBe(register | 0);
      return ~crc32(bytes.subarray(start, end), ~register >>> 0);
    }, 100);
    fc.assert(
      fc.property(anySample, (s) => {
        calls.length = 0;
        const bytes = sealed(s);
        expect(spy.checkExact(flowOf(s), bytes, viewOf(bytes), 0, bytes.length, s.id)).toBe(true);
        const rest = bytes.length - 16;
        expect(calls).toEqual(rest >= 100 ? [rest] : []);
      }),
    );
  });
});

// SPDX-License-Identifier: MIT
// The laws of every fixed header, written once: what was written is what is read; exactly the
// header's bytes are touched; reading and writing again gives the same bytes, reserved bits as 0.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  AETH_KIND,
  aethMsn,
  aethSyndrome,
  creditCount,
  rnrTimerCode,
  rnrTimerNs,
  SYNDROME,
  syndromeKind,
  syndromeValue,
  writeAeth,
} from "./aeth.js";
import {
  atomicAckEthOriginalHigh,
  atomicAckEthOriginalLow,
  writeAtomicAckEth,
} from "./atomic-ack-eth.js";
import {
  atomicEthAddressHigh,
  atomicEthAddressLow,
  atomicEthCompareHigh,
  atomicEthCompareLow,
  atomicEthKey,
  atomicEthSwapAddHigh,
  atomicEthSwapAddLow,
  writeAtomicEth,
} from "./atomic-eth.js";
import {
  bthAckRequest,
  bthCongestion,
  bthDestinationQpn,
  bthMigration,
  bthOpcode,
  bthPadCount,
  bthPkey,
  bthPsn,
  bthSolicited,
  bthVersion,
  pkeyMatches,
  setBthCongestion,
  setBthMigration,
  setBthVersion,
  writeBth,
} from "./bth.js";
import { dethQkey, dethSourceQpn, writeDeth } from "./deth.js";
import { iethKey, writeIeth } from "./ieth.js";
import { immediateOf, writeImmediate } from "./imm-dt.js";
import { codeOfMtu, mtuOfCode } from "./mtu.js";
import { rethAddressHigh, rethAddressLow, rethKey, rethLength, writeReth } from "./reth.js";

type Getter = (view: DataView, offset: number) => number | boolean;

/** A header as the laws see it: bits of each field, getters and one writer in the same order. */
interface Header {
  readonly name: string;
  readonly bytes: number;
  readonly fields: readonly (readonly [getter: Getter, bits: number])[];
  readonly write: (view: DataView, offset: number, values: readonly number[]) => void;
  /** Ones where the format has reserved bits; by byte. */
  readonly reserved?: Readonly<Record<number, number>>;
}

const at = (values: readonly number[], index: number) => values[index] as number;

const HEADERS: readonly Header[] = [
  {
    name: "BTH",
    bytes: 12,
    fields: [
      [bthOpcode, 8],
      [bthSolicited, 1],
      [bthPadCount, 2],
      [bthPkey, 16],
      [bthDestinationQpn, 24],
      [bthAckRequest, 1],
      [bthPsn, 24],
      [bthMigration, 1],
      [bthVersion, 4],
      [bthCongestion, 8],
    ],
    write: (v, o, f) => {
      const solicited = at(f, 1) === 1;
      const ackRequest = at(f, 5) === 1;
      writeBth(v, o, at(f, 0), solicited, at(f, 2), at(f, 3), at(f, 4), ackRequest, at(f, 6));
      setBthMigration(v, o, at(f, 7));
      setBthVersion(v, o, at(f, 8));
      setBthCongestion(v, o, at(f, 9));
    },
    reserved: { 8: 0x7f },
  },
  {
    name: "DETH",
    bytes: 8,
    fields: [
      [dethQkey, 32],
      [dethSourceQpn, 24],
    ],
    write: (v, o, f) => writeDeth(v, o, at(f, 0), at(f, 1)),
    reserved: { 4: 0xff },
  },
  {
    name: "RETH",
    bytes: 16,
    fields: [
      [rethAddressHigh, 32],
      [rethAddressLow, 32],
      [rethKey, 32],
      [rethLength, 32],
    ],
    write: (v, o, f) => writeReth(v, o, at(f, 0), at(f, 1), at(f, 2), at(f, 3)),
  },
  {
    name: "AETH",
    bytes: 4,
    fields: [
      [aethSyndrome, 8],
      [aethMsn, 24],
    ],
    write: (v, o, f) => writeAeth(v, o, at(f, 0), at(f, 1)),
  },
  {
    name: "AtomicETH",
    bytes: 28,
    fields: [
      [atomicEthAddressHigh, 32],
      [atomicEthAddressLow, 32],
      [atomicEthKey, 32],
      [atomicEthSwapAddHigh, 32],
      [atomicEthSwapAddLow, 32],
      [atomicEthCompareHigh, 32],
      [atomicEthCompareLow, 32],
    ],
    write: (v, o, f) =>
      writeAtomicEth(v, o, at(f, 0), at(f, 1), at(f, 2), at(f, 3), at(f, 4), at(f, 5), at(f, 6)),
  },
  {
    name: "AtomicAckETH",
    bytes: 8,
    fields: [
      [atomicAckEthOriginalHigh, 32],
      [atomicAckEthOriginalLow, 32],
    ],
    write: (v, o, f) => writeAtomicAckEth(v, o, at(f, 0), at(f, 1)),
  },
  {
    name: "ImmDt",
    bytes: 4,
    fields: [[immediateOf, 32]],
    write: (v, o, f) => writeImmediate(v, o, at(f, 0)),
  },
  {
    name: "IETH",
    bytes: 4,
    fields: [[iethKey, 32]],
    write: (v, o, f) => writeIeth(v, o, at(f, 0)),
  },
];

describe.each(HEADERS)("$name: laws", (header) => {
  const values = fc.tuple(...header.fields.map(([, bits]) => fc.nat({ max: 2 ** bits - 1 })));
  const offset = fc.nat({ max: 9 });
  const room = header.bytes + 16;

  it("what was written is what is read, and nothing beside it is touched", () => {
    fc.assert(
      fc.property(values, offset, fc.nat({ max: 255 }), (written, o, filler) => {
        const bytes = new Uint8Array(room).fill(filler);
        const view = new DataView(bytes.buffer);
        header.write(view, o, written);
        expect(header.fields.map(([getter]) => Number(getter(view, o)))).toEqual(written);
        const outside = [...bytes.subarray(0, o), ...bytes.subarray(o + header.bytes)];
        expect(outside.every((byte) => byte === filler)).toBe(true);
      }),
    );
  });

  it("any bytes, read and written again → the same bytes, reserved bits as 0", () => {
    const bytes = fc.uint8Array({ minLength: header.bytes, maxLength: header.bytes });
    fc.assert(
      fc.property(bytes, (original) => {
        const view = new DataView(original.buffer, original.byteOffset);
        const copy = new Uint8Array(header.bytes);
        const read = header.fields.map(([getter]) => Number(getter(view, 0)));
        header.write(new DataView(copy.buffer), 0, read);
        const expected = original.map((byte, i) => byte & ~(header.reserved?.[i] ?? 0));
        expect(copy).toEqual(expected);
      }),
    );
  });
});

describe("P_Key", () => {
  it("matches when the low 15 bits are the default partition's", () => {
    expect([0xffff, 0x7fff, 0x8001, 0, 0xfffe].map(pkeyMatches)).toEqual([
      true,
      true,
      false,
      false,
      false,
    ]);
  });
});

describe("AETH syndromes", () => {
  it("kind and value of what farpage sends", () => {
    expect(syndromeKind(SYNDROME.ACK_UNLIMITED)).toBe(AETH_KIND.ACK);
    expect(creditCount(syndromeValue(SYNDROME.ACK_UNLIMITED))).toBe(Number.POSITIVE_INFINITY);
    expect(syndromeKind(SYNDROME.RNR_NAK + 12)).toBe(AETH_KIND.RNR_NAK);
    expect(syndromeValue(SYNDROME.RNR_NAK + 12)).toBe(12);
    expect(syndromeKind(SYNDROME.NAK_REMOTE_ACCESS)).toBe(AETH_KIND.NAK);
    expect(syndromeValue(SYNDROME.NAK_REMOTE_ACCESS)).toBe(2);
    expect(syndromeKind(0x40)).toBe(AETH_KIND.RESERVED);
    expect(syndromeKind(0x80)).toBe(AETH_KIND.RESERVED);
    expect(syndromeKind(0xff)).toBe(AETH_KIND.RESERVED);
  });

  it("RNR timer codes: the corners of the table", () => {
    expect([0, 1, 2, 12, 14, 20, 30, 31].map(rnrTimerNs)).toEqual(
      [655.36, 0.01, 0.02, 0.64, 1.28, 10.24, 327.68, 491.52].map((ms) => Math.round(ms * 1e6)),
    );
  });

  it("rnrTimerCode is the shortest timer that waits long enough", () => {
    fc.assert(
      fc.property(fc.nat({ max: 700_000_000 }), (timeNs) => {
        const code = rnrTimerCode(timeNs);
        if (timeNs <= 655_360_000) expect(rnrTimerNs(code)).toBeGreaterThanOrEqual(timeNs);
        for (let other = 0; other < 32; other++) {
          if (rnrTimerNs(other) < rnrTimerNs(code)) expect(rnrTimerNs(other)).toBeLessThan(timeNs);
        }
      }),
    );
  });

  it("credit codes rise and end with 32,768", () => {
    const counts = Array.from({ length: 31 }, (_, code) => creditCount(code));
    expect(counts.slice(0, 8)).toEqual([0, 1, 2, 3, 4, 6, 8, 12]);
    expect(counts[30]).toBe(32768);
    for (let i = 1; i < 31; i++) expect(at(counts, i)).toBeGreaterThan(at(counts, i - 1));
  });
});

describe("path MTU codes", () => {
  it("1 .. 5 are 256 .. 4096 and back; nothing else is a code or an MTU", () => {
    expect([1, 2, 3, 4, 5].map(mtuOfCode)).toEqual([256, 512, 1024, 2048, 4096]);
    expect([0, 6, 15, -1, 1.5].map(mtuOfCode)).toEqual([0, 0, 0, 0, 0]);
    expect([256, 512, 1024, 2048, 4096].map(codeOfMtu)).toEqual([1, 2, 3, 4, 5]);
    expect([0, 128, 1500, 8192].map(codeOfMtu)).toEqual([0, 0, 0, 0]);
  });
});

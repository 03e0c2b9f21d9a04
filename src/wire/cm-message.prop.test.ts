// SPDX-License-Identifier: MIT
// The laws of MADs and CM messages; that their layout is Linux's is shown by test/golden.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { IpAddress } from "../base/index.js";
import { CM_MESSAGE_BYTES } from "./cm-fields.js";
import {
  CM_ATTRIBUTE,
  type CmMad,
  type CmMessage,
  decodeCmMad,
  encodeCmMad,
} from "./cm-message.js";
import { decodeReq, noPath } from "./cm-req.js";
import { MAD_BYTES } from "./mad.js";
import {
  decodeRdmaCmHeader,
  encodeRdmaCmHeader,
  PORT_SPACE,
  RDMA_CM_HEADER_BYTES,
  serviceIdLowOf,
} from "./rdma-cm-header.js";

const bits = (count: number) => fc.nat({ max: 2 ** count - 1 });
const u8 = bits(8);
const u16 = bits(16);
const u24 = bits(24);
const u32 = bits(32);
const flag = fc.boolean();
const gid = fc.tuple(u32, u32, u32, u32).map(([a, b, c, d]) => new IpAddress(a, b, c, d));
const data = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const ids = { localCommId: u32, remoteCommId: u32 };
const guid = { caGuidHigh: u32, caGuidLow: u32 };
const service = { serviceIdHigh: u32, serviceIdLow: u32 };

const path = fc.record({
  localLid: u16,
  remoteLid: u16,
  localGid: gid,
  remoteGid: gid,
  flowLabel: bits(20),
  packetRate: bits(6),
  trafficClass: u8,
  hopLimit: u8,
  serviceLevel: bits(4),
  subnetLocal: flag,
  ackTimeout: bits(5),
});

const req = fc.record({
  kind: fc.constant("REQ" as const),
  localCommId: u32,
  vendorId: u24,
  ...service,
  ...guid,
  qkey: u32,
  qpn: u24,
  responderResources: u8,
  localEecn: u24,
  initiatorDepth: u8,
  remoteEecn: u24,
  remoteResponseTimeout: bits(5),
  transportType: bits(2),
  flowControl: flag,
  startingPsn: u24,
  localResponseTimeout: bits(5),
  retryCount: bits(3),
  pkey: u16,
  mtuCode: bits(4),
  rdcExists: flag,
  rnrRetryCount: bits(3),
  maxCmRetries: bits(4),
  srq: flag,
  extendedTransportType: bits(3),
  primary: path,
  alternate: path,
  privateData: data(92),
});

const rep = fc.record({
  kind: fc.constant("REP" as const),
  ...ids,
  qkey: u32,
  qpn: u24,
  vendorId: u24,
  localEecn: u24,
  startingPsn: u24,
  responderResources: u8,
  initiatorDepth: u8,
  targetAckDelay: bits(5),
  failoverAccepted: bits(2),
  flowControl: flag,
  rnrRetryCount: bits(3),
  srq: flag,
  ...guid,
  privateData: data(196),
});

const message: fc.Arbitrary<CmMessage> = fc.oneof(
  req,
  rep,
  fc.record({
    kind: fc.constant("REJ" as const),
    ...ids,
    rejected: bits(2),
    reason: u16,
    informationLength: bits(7),
    information: data(72),
    privateData: data(148),
  }),
  fc.record({
    kind: fc.constant("MRA" as const),
    ...ids,
    acknowledged: bits(2),
    serviceTimeout: bits(5),
    privateData: data(222),
  }),
  fc.record({ kind: fc.constant("RTU" as const), ...ids, privateData: data(224) }),
  fc.record({ kind: fc.constant("DREQ" as const), ...ids, remoteQpn: u24, privateData: data(220) }),
  fc.record({ kind: fc.constant("DREP" as const), ...ids, privateData: data(224) }),
  fc.record({
    kind: fc.constant("SIDR_REQ" as const),
    requestId: u32,
    pkey: u16,
    ...service,
    privateData: data(216),
  }),
  fc.record({
    kind: fc.constant("SIDR_REP" as const),
    requestId: u32,
    status: u8,
    informationLength: u8,
    vendorId: u24,
    qpn: u24,
    ...service,
    qkey: u32,
    information: data(72),
    privateData: data(136),
  }),
);

const mad: fc.Arbitrary<CmMad> = fc.record({
  transactionHigh: u32,
  transactionLow: u32,
  attributeModifier: u32,
  message,
});

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

describe("CM messages: laws", () => {
  it("decode(encode(m)) is m, whatever was there before; nothing beside is touched", () => {
    fc.assert(
      fc.property(mad, u8, (m, filler) => {
        const bytes = new Uint8Array(MAD_BYTES + 10).fill(filler);
        encodeCmMad(viewOf(bytes), 5, m);
        expect(decodeCmMad(viewOf(bytes), 5, MAD_BYTES)).toEqual(m);
        const outside = [...bytes.subarray(0, 5), ...bytes.subarray(5 + MAD_BYTES)];
        expect(outside.every((byte) => byte === filler)).toBe(true);
      }),
      { numRuns: 500 },
    );
  });

  it("any bytes of a known attribute: what was understood survives encode and decode", () => {
    const attribute = fc.constantFrom(...Object.values(CM_ATTRIBUTE));
    fc.assert(
      fc.property(data(MAD_BYTES), attribute, (bytes, id) => {
        bytes.set([1, 7, 2, 3], 0);
        bytes.set([0, id], 16);
        const first = decodeCmMad(viewOf(bytes), 0, MAD_BYTES);
        expect(typeof first).toBe("object");
        if (typeof first === "string") return;
        const again = new Uint8Array(MAD_BYTES);
        encodeCmMad(viewOf(again), 0, first);
        expect(decodeCmMad(viewOf(again), 0, MAD_BYTES)).toEqual(first);
        // What did not survive was in reserved bits, which are 0 now.
        expect(again.every((byte, i) => (byte & ~(bytes[i] as number)) === 0)).toBe(true);
      }),
    );
  });

  it("decoded private data is a copy: the packet's bytes may change afterwards", () => {
    const bytes = new Uint8Array(MAD_BYTES);
    const privateData = Uint8Array.from([1, 2, 3]);
    const rtu = { kind: "RTU" as const, localCommId: 1, remoteCommId: 2, privateData };
    const header = { transactionHigh: 0, transactionLow: 0, attributeModifier: 0 };
    encodeCmMad(viewOf(bytes), 0, { ...header, message: rtu });
    const decoded = decodeCmMad(viewOf(bytes), 0, MAD_BYTES) as CmMad;
    bytes.fill(0xff);
    const expected = new Uint8Array(224);
    expected.set([1, 2, 3]);
    expect(decoded.message.privateData).toEqual(expected);
  });

  it("truncated at any byte, or too long → LENGTH", () => {
    const bytes = new Uint8Array(MAD_BYTES + 1);
    for (let length = 0; length <= MAD_BYTES + 1; length++) {
      const fault = decodeCmMad(viewOf(bytes.subarray(0, length)), 0, length);
      expect(fault).toBe(length === MAD_BYTES ? "BASE_VERSION" : "LENGTH");
    }
    expect(decodeCmMad(viewOf(bytes), 2, MAD_BYTES)).toBe("LENGTH");
    expect(decodeCmMad(viewOf(bytes), -1, MAD_BYTES)).toBe("LENGTH");
    expect(decodeReq(viewOf(bytes.subarray(0, CM_MESSAGE_BYTES - 1)), 0)).toBeNull();
  });

  it.each([
    [0, 0, "BASE_VERSION"],
    [1, 3, "MANAGEMENT_CLASS"],
    [2, 1, "CLASS_VERSION"],
    [3, 1, "METHOD"],
    [17, 0x19, "ATTRIBUTE"],
    [16, 1, "ATTRIBUTE"],
  ])("header byte %i = %i → %s", (at, value, fault) => {
    const bytes = new Uint8Array(MAD_BYTES);
    bytes.set([1, 7, 2, 3], 0);
    bytes[17] = 0x10;
    bytes[at] = value;
    expect(decodeCmMad(viewOf(bytes), 0, MAD_BYTES)).toBe(fault);
  });

  it("private data longer than its field → an assertion, not a broken message", () => {
    const message = {
      kind: "DREP" as const,
      localCommId: 1,
      remoteCommId: 2,
      privateData: new Uint8Array(225),
    };
    const long = { transactionHigh: 0, transactionLow: 0, attributeModifier: 0, message };
    const bytes = new Uint8Array(MAD_BYTES);
    expect(() => encodeCmMad(viewOf(bytes), 0, long)).toThrow("the bytes fit their field");
    const short = new Uint8Array(MAD_BYTES - 1);
    expect(() => encodeCmMad(viewOf(short), 0, long)).toThrow("room for a MAD");
  });

  it("no path is all zeroes", () => {
    expect(decodeReq(viewOf(new Uint8Array(CM_MESSAGE_BYTES)), 0)?.alternate).toEqual(noPath());
  });
});

describe("RDMA CM header: laws", () => {
  const v4 = u32.map((word) => IpAddress.v4(word));
  const v6 = gid.filter((address) => address.family === 6);
  const addresses = fc.oneof(fc.tuple(v4, v4), fc.tuple(v6, v6));

  it("decode(encode(h)) is h", () => {
    fc.assert(
      fc.property(addresses, u16, u8, ([source, destination], sourcePort, filler) => {
        const bytes = new Uint8Array(RDMA_CM_HEADER_BYTES).fill(filler);
        encodeRdmaCmHeader(viewOf(bytes), 0, { sourcePort, source, destination });
        const header = decodeRdmaCmHeader(viewOf(bytes), 0);
        expect(header).toEqual({ sourcePort, source, destination });
        // IPv4 stands behind twelve zeroes.
        if (source.family === 4) expect(bytes.subarray(4, 16)).toEqual(new Uint8Array(12));
      }),
    );
  });

  it("another version, another IP version or too few bytes → null", () => {
    const bytes = new Uint8Array(RDMA_CM_HEADER_BYTES);
    const view = viewOf(bytes);
    expect(decodeRdmaCmHeader(view, 0)).toBeNull();
    bytes[1] = 0x40;
    expect(decodeRdmaCmHeader(view, 0)).not.toBeNull();
    expect(decodeRdmaCmHeader(view, 1)).toBeNull();
    expect(decodeRdmaCmHeader(viewOf(bytes.subarray(0, 35)), 0)).toBeNull();
    bytes[0] = 1;
    expect(decodeRdmaCmHeader(view, 0)).toBeNull();
  });

  it("service ids: port space and port", () => {
    expect(serviceIdLowOf(PORT_SPACE.TCP, 7174)).toBe(0x01061c06);
    expect(serviceIdLowOf(PORT_SPACE.UDP, 0xffff)).toBe(0x0111ffff);
  });
});

// SPDX-License-Identifier: MIT
// Which lane a packet belongs to: told by bytes alone, and by the same bytes that the messages
// of CM are made of.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { writeBth } from "./bth.js";
import { type CmMessage, encodeCmMad } from "./cm-message.js";
import { noPath } from "./cm-req.js";
import { EVERY_LANE, laneOf, numberOfLane, RC, REJ_REASON, UD } from "./index.js";
import { encodeRtrsConnectRequest } from "./rtrs.js";

const NO_DATA = new Uint8Array(0);
const u32 = fc.nat({ max: 0xffff_ffff });
const lanes = fc.integer({ min: 1, max: 64 });

function packetTo(qpn: number, message: CmMessage | null): DataView {
  const view = new DataView(new ArrayBuffer(300));
  writeBth(view, 8, message === null ? RC.SEND_ONLY : UD.SEND_ONLY, false, 0, 0xffff, qpn, true, 1);
  if (message !== null) {
    encodeCmMad(view, 28, { transactionHigh: 0, transactionLow: 0, attributeModifier: 0, message });
  }
  return view;
}

function laneOfMessage(message: CmMessage, laneCount: number, pinnedPort = 0): number {
  return laneOf(packetTo(1, message), 8, 280, { laneCount, pinnedPort });
}

/** A REQ of an RTRS session to a port, from a comm id, for one of its paths. */
function reqOf(
  session: Uint8Array,
  o: { port?: number; commId?: number; path?: number },
): CmMessage {
  const privateData = new Uint8Array(92);
  const connect = encodeRtrsConnectRequest({
    connectionId: 1,
    connectionCount: 2,
    reconnectCount: 1,
    pathUuid: new Uint8Array(16).fill(o.path ?? 7),
    pathsUuid: session,
    firstConnection: true,
  });
  privateData.set(connect, 36);
  const zero = { vendorId: 0, caGuidHigh: 0, caGuidLow: 0, qkey: 0, localEecn: 0, remoteEecn: 0 };
  const counts = { responderResources: 0, initiatorDepth: 0, retryCount: 7, rnrRetryCount: 7 };
  const times = { remoteResponseTimeout: 20, localResponseTimeout: 20, maxCmRetries: 15 };
  const flags = { flowControl: false, rdcExists: false, srq: false };
  const rest = { pkey: 0xffff, mtuCode: 5, transportType: 0, extendedTransportType: 0 };
  return {
    kind: "REQ",
    localCommId: o.commId ?? 1,
    serviceIdHigh: 0,
    serviceIdLow: (0x0106 << 16) | (o.port ?? 1234),
    qpn: 99,
    startingPsn: 5,
    primary: noPath(),
    alternate: noPath(),
    privateData,
    ...zero,
    ...counts,
    ...times,
    ...flags,
    ...rest,
  };
}

describe("laneOf", () => {
  it("numbers of a lane: as many as drawn, of the lane, next to what was drawn", () => {
    fc.assert(
      fc.property(u32, lanes, u32, (drawn, count, seed) => {
        const lane = { index: seed % count, count };
        const number = numberOfLane(lane, drawn);
        expect(number % count).toBe(lane.index);
        expect(Math.abs(number - drawn)).toBeLessThan(count);
      }),
    );
  });

  it("a packet to a queue pair: the lane that drew its number", () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 0xffffff }), lanes, (qpn, laneCount) => {
        const view = packetTo(qpn, null);
        expect(laneOf(view, 8, 16, { laneCount, pinnedPort: 0 })).toBe(qpn % laneCount);
      }),
    );
  });

  it("REQs of one session, whatever path, connection and attempt: one lane; sessions: all", () => {
    const seen = new Set<number>();
    for (let i = 0; i < 64; i++) {
      const session = new Uint8Array(16).fill(3);
      session[15] = i;
      const lane = laneOfMessage(reqOf(session, {}), 4);
      seen.add(lane);
      expect(laneOfMessage(reqOf(session, { commId: i * 77, path: i }), 4)).toBe(lane);
    }
    expect(seen).toEqual(new Set([0, 1, 2, 3]));
  });

  it("a REQ to the pinned port, a SIDR_REQ: lane 0", () => {
    const session = new Uint8Array(16).fill(255);
    expect(laneOfMessage(reqOf(session, { port: 1235 }), 2, 1235)).toBe(0);
    expect(laneOfMessage(reqOf(session, { port: 1234 }), 2, 1235)).toBe(1);
    const sidr = { requestId: 3, pkey: 0, serviceIdHigh: 0, serviceIdLow: 0, privateData: NO_DATA };
    expect(laneOfMessage({ kind: "SIDR_REQ", ...sidr }, 2)).toBe(0);
  });

  it("every answer: the lane that drew the comm id or request id it answers", () => {
    fc.assert(
      fc.property(u32, u32, lanes, (localCommId, remoteCommId, laneCount) => {
        const ids = { localCommId, remoteCommId, privateData: NO_DATA };
        const want = remoteCommId % laneCount;
        expect(laneOfMessage({ kind: "RTU", ...ids }, laneCount)).toBe(want);
        expect(laneOfMessage({ kind: "DREP", ...ids }, laneCount)).toBe(want);
        expect(laneOfMessage({ kind: "DREQ", remoteQpn: 5, ...ids }, laneCount)).toBe(want);
        const mra = { acknowledged: 0, serviceTimeout: 3, ...ids };
        expect(laneOfMessage({ kind: "MRA", ...mra }, laneCount)).toBe(want);
        const rej = { rejected: 0, informationLength: 0, information: NO_DATA, ...ids };
        const refused = laneOfMessage({ kind: "REJ", reason: 28, ...rej }, laneCount);
        expect(refused).toBe(want);
        const late = laneOfMessage({ kind: "REJ", reason: REJ_REASON.TIMEOUT, ...rej }, laneCount);
        expect(late).toBe(EVERY_LANE);
      }),
    );
  });

  it("any bytes, cut anywhere: a lane there is, and nothing behind the cut is read", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), lanes, (bytes, laneCount) => {
        bytes.set([0, 0, 0, 1].slice(0, Math.max(0, bytes.length - 4)), Math.min(4, bytes.length));
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
        const lane = laneOf(view, 0, bytes.length, { laneCount, pinnedPort: 0 });
        expect(lane === EVERY_LANE || (lane >= 0 && lane < laneCount)).toBe(true);
      }),
    );
  });
});

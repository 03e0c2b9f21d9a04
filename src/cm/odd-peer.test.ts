// SPDX-License-Identifier: MIT
// The connection manager and a peer that keeps the rules and says what farpage never does: every
// value of every coded field, messages that we don't know, private data to the last byte (IBTA
// vol1 §12.6; rocev2 facts, sections 18 to 20).

import { describe, expect, it } from "vitest";
import { ERRNO } from "../base/index.js";
import { QP_STATE } from "../verbs/index.js";
import {
  CM_REJ_PRIVATE_BYTES,
  CM_REP_PRIVATE_BYTES,
  MRA_MESSAGE,
  REJ_MESSAGE,
} from "../wire/index.js";
import {
  MS,
  NOTHING,
  OWN,
  PEER,
  peerIds,
  repTo,
  reqFrom,
  Script,
  withHeader,
} from "./script.fixture.js";

const CODES = Array.from({ length: 32 }, (_, code) => code);
const ATTRIBUTE_OFFSET = 16;
const ATTRIBUTES_UNKNOWN = [0x01, 0x0f, 0x19, 0x1a, 0x1b, 0x1c, 0x20, 0xffff];
/** More than the longest wait of any exchange, a peer's MRAs included. */
const LONG_NS = 120_000 * MS;

describe("as the active side", () => {
  it.each(Array.from({ length: 36 }, (_, i) => i).filter((reason) => reason !== 4))(
    "REJ with reason %i, additional information of any length → REJECTED with it",
    (reason) => {
      for (const informationLength of [0, 1, 16, 72]) {
        const script = new Script();
        const id = script.connecting();
        script.say({
          kind: "REJ",
          localCommId: 0,
          remoteCommId: script.last("REQ").localCommId,
          rejected: REJ_MESSAGE.REQ,
          reason,
          informationLength,
          information: new Uint8Array(informationLength).fill(0xa5),
          privateData: new Uint8Array(CM_REJ_PRIVATE_BYTES).fill(0x77),
        });
        const [event] = script.expect({
          events: [reason === 0 ? "REJECTED" : `REJECTED ${reason}`],
        });
        expect(event?.privateData).toEqual(new Uint8Array(CM_REJ_PRIVATE_BYTES).fill(0x77));
        id.destroy();
        script.wait(LONG_NS);
        script.takeEvents();
        script.takeSent();
        expect(script.host.cm.liveCount).toBe(0);
      }
    },
  );

  it.each(CODES)(
    "MRA with service timeout %i, then nothing → UNREACHABLE in bounded time",
    (code) => {
      const script = new Script();
      const id = script.connecting();
      const { localCommId } = script.last("REQ");
      script.say({
        kind: "MRA",
        localCommId: 0x2001,
        remoteCommId: localCommId,
        acknowledged: MRA_MESSAGE.REQ,
        serviceTimeout: code,
        privateData: NOTHING,
      });
      script.wait(LONG_NS);
      expect(script.takeEvents().map(({ type, status }) => [type, status])).toEqual([
        ["UNREACHABLE", ERRNO.ETIMEDOUT],
      ]);
      expect(id.qp?.state).toBe(QP_STATE.ERR);
    },
  );

  it.each(CODES)("REP with target ACK delay %i and odd flags → connected", (targetAckDelay) => {
    const script = new Script();
    const id = script.connecting();
    const rep = repTo(script.last("REQ"), {
      targetAckDelay,
      failoverAccepted: targetAckDelay & 3,
      flowControl: (targetAckDelay & 1) === 1,
      srq: (targetAckDelay & 2) === 2,
      rnrRetryCount: targetAckDelay & 7,
      vendorId: 0xabcdef,
      qkey: 0x12345678,
      localEecn: 0xffffff,
      privateData: new Uint8Array(CM_REP_PRIVATE_BYTES).fill(targetAckDelay),
    });
    script.say(rep);
    const [event] = script.expect({ sent: ["RTU"], events: ["ESTABLISHED"] });
    expect(event?.privateData).toEqual(rep.privateData);
    expect(id.qp?.state).toBe(QP_STATE.RTS);
    expect(id.qp?.queryQp().rnrRetry).toBe(targetAckDelay & 7);
  });

  it.each([
    [0, 0],
    [0, 255],
    [255, 0],
    [255, 255],
  ])("REP with depths %i and %i → connected within what we asked for", (resources, depth) => {
    const script = new Script();
    const id = script.connected({ responderResources: resources, initiatorDepth: depth });
    const query = id.qp?.queryQp();
    expect(query?.maxRdAtomic).toBe(Math.min(resources, 16));
    expect(query?.maxDestRdAtomic).toBe(Math.min(depth, 16));
  });

  it("REP with CA GUID 0, QPN and PSN at their ends → connected", () => {
    for (const end of [0, 0xff_ffff]) {
      const script = new Script();
      const id = script.connected({ caGuidHigh: 0, caGuidLow: 0, qpn: end, startingPsn: end });
      expect(id.qp?.queryQp()).toMatchObject({ destinationQpn: end, sqPsn: end });
    }
  });

  it("messages that we don't know, in every state → silence, and the exchange goes on", () => {
    const script = new Script();
    const id = script.connecting();
    const strange = () => {
      for (const attribute of ATTRIBUTES_UNKNOWN) {
        const rep = repTo(script.mads[0]?.message as Parameters<typeof repTo>[0]);
        const bytes = script.encode(rep);
        new DataView(bytes.buffer).setUint16(ATTRIBUTE_OFFSET, attribute);
        script.sayBytes(bytes);
      }
      script.expect();
    };
    strange();
    script.say(repTo(script.last("REQ")));
    script.expect({ sent: ["RTU"], events: ["ESTABLISHED"] });
    strange();
    id.disconnect();
    script.expect({ sent: ["DREQ"] });
    strange();
    script.say({ kind: "DREP", ...peerIds(id) });
    script.expect({ events: ["DISCONNECTED"] });
    strange();
  });

  it("DREP that comes when we have given up → nothing", () => {
    const script = new Script();
    const id = script.connected();
    const ids = peerIds(id);
    id.disconnect();
    script.wait(5_000 * MS);
    const events = script.takeEvents().map(({ type }) => type);
    expect(events).toContain("DISCONNECTED");
    script.takeSent();
    script.say({ kind: "DREP", ...ids });
    script.expect();
  });
});

describe("as the passive side", () => {
  it.each(CODES)(
    "REQ with %i in every coded field → accepted, its timers within bounds",
    (code) => {
      const script = new Script();
      const id = script.accepted({
        retryCount: code & 7,
        rnrRetryCount: code & 7,
        remoteResponseTimeout: code,
        localResponseTimeout: code,
        maxCmRetries: code & 15,
        flowControl: (code & 1) === 1,
        srq: (code & 2) === 2,
        mtuCode: 1 + (code % 3),
        vendorId: code << 16,
        responderResources: code * 8,
        initiatorDepth: 255 - code,
        primary: { ...reqFrom().primary, ackTimeout: code, hopLimit: code, packetRate: code },
      });
      const query = id.qp?.queryQp();
      expect(query).toMatchObject({
        state: QP_STATE.RTS,
        retryCount: code & 7,
        rnrRetry: code & 7,
      });
      expect(query?.pathMtu).toBe(256 << (code % 3));
      // 4 ms to 134 ms, whatever is asked for.
      expect(query?.timeout).toBeGreaterThanOrEqual(10);
      expect(query?.timeout).toBeLessThanOrEqual(15);
      expect(script.last("REP").responderResources).toBeLessThanOrEqual(255 - code);
    },
  );

  it.each([0, 1, 55, 56])(
    "REQ with %i bytes of private data, zero filled → the whole field",
    (n) => {
      const script = new Script();
      script.listen();
      const data = new Uint8Array(n).fill(0xff);
      script.say(reqFrom({ privateData: withHeader(PEER, OWN, data) }));
      const [event] = script.expect({ events: ["CONNECT_REQUEST"] });
      const wanted = new Uint8Array(56);
      wanted.set(data);
      expect(event?.privateData).toEqual(wanted);
    },
  );

  it.each(CODES)("MRA of our REP with service timeout %i, then nothing → UNREACHABLE", (code) => {
    const script = new Script();
    const id = script.accepted();
    script.say({
      kind: "MRA",
      ...peerIds(id),
      acknowledged: MRA_MESSAGE.REP,
      serviceTimeout: code,
    });
    script.wait(LONG_NS);
    expect(script.takeEvents().map(({ type, status }) => [type, status])).toEqual([
      ["UNREACHABLE", ERRNO.ETIMEDOUT],
    ]);
  });

  it("RTU with private data → ESTABLISHED; MRA of a DREQ, an RTU late → nothing", () => {
    const script = new Script();
    const id = script.accepted();
    const privateData = new Uint8Array(224).fill(1);
    script.say({ kind: "RTU", ...peerIds(id), privateData });
    script.expect({ events: ["ESTABLISHED"] });
    script.say({ kind: "MRA", ...peerIds(id), acknowledged: 2, serviceTimeout: 31 });
    script.say({ kind: "RTU", ...peerIds(id), privateData });
    script.expect();
    expect(id.state).toBe("ESTABLISHED");
  });

  it("DREQ with private data, again and again, before the application reacts → one event", () => {
    const script = new Script();
    const id = script.established();
    const { connection } = id;
    const privateData = new Uint8Array(220).fill(9);
    const remoteQpn = connection?.localQpn ?? 0;
    for (let i = 0; i < 3; i++)
      script.say({ kind: "DREQ", ...peerIds(id), remoteQpn, privateData });
    script.expect({ events: ["DISCONNECTED"] });
    id.disconnect();
    script.pump();
    script.expect({ sent: ["DREP"] });
  });
});

// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { ERRNO, IpAddress } from "../base/index.js";
import { QP_STATE } from "../verbs/index.js";
import { type CmReq, MRA_MESSAGE, noPath, REJ_MESSAGE } from "../wire/index.js";
import type { CmEvent } from "./event.js";
import {
  MS,
  NOTHING,
  OTHER,
  OWN,
  PEER,
  PEER_GUID,
  PORT,
  peerIds,
  reqFrom,
  Script,
  withHeader,
} from "./script.fixture.js";

const ANY = new IpAddress(0, 0, 0, 0);
const V6 = IpAddress.parse("2001:db8::9");
const primaryWith = (changes: Partial<CmReq["primary"]>) => ({
  primary: { ...reqFrom().primary, ...changes },
});
/** The REQ's private data with one byte of RDMA CM's header changed. */
const headerWith = (offset: number, value: number) => {
  const privateData = withHeader(PEER, OWN, NOTHING);
  privateData[offset] = value;
  return { privateData };
};

describe("what a REQ must pass (rocev2 facts section 20)", () => {
  const accepted: [string, Partial<CmReq>][] = [
    ["nothing", {}],
    ["P_Key 0x7FFF", { pkey: 0x7fff }],
    ["source IP in the header: another address", { privateData: withHeader(OTHER, OWN, NOTHING) }],
    [
      "hop limit 0, subnet local 1, LIDs 0",
      primaryWith({ hopLimit: 0, subnetLocal: true, localLid: 0, remoteLid: 0 }),
    ],
    [
      "responder resources 255, initiator depth 255",
      { responderResources: 255, initiatorDepth: 255 },
    ],
    ["both 0", { responderResources: 0, initiatorDepth: 0 }],
    ["CA GUID 0, starting PSN 0, QPN 0", { caGuidHigh: 0, caGuidLow: 0, startingPsn: 0, qpn: 0 }],
    ["ACK timeout 0", primaryWith({ ackTimeout: 0 })],
    ["smaller MTU", { mtuCode: 1 }],
  ];
  it.each(accepted)("%s changed → REP", (_what, changes) => {
    const script = new Script();
    script.accepted(changes);
  });

  const refused: [string, Partial<CmReq>, number][] = [
    ["unknown port", { serviceIdLow: 0x0106_0001 }, 8],
    ["other port space", { serviceIdLow: 0x0111_0000 + PORT }, 8],
    ["IB port space", { serviceIdLow: 0x013f_0000 + PORT }, 8],
    ["service id with higher bits set", { serviceIdHigh: 1 }, 8],
    ["RDMA CM header version 1", headerWith(0, 0x10), 28],
    ["IP version nibble 0", headerWith(1, 0x00), 28],
    ["IP version nibble 6 with IPv4 addresses", headerWith(1, 0x60), 28],
    ["destination IP not ours", { privateData: withHeader(PEER, OTHER, NOTHING) }, 28],
    ["source IP 0.0.0.0", { privateData: withHeader(IpAddress.v4(0), OWN, NOTHING) }, 28],
    [
      "source IP multicast",
      { privateData: withHeader(IpAddress.parse("239.1.2.3"), OWN, NOTHING) },
      28,
    ],
    ["primary local GID zero", primaryWith({ localGid: ANY }), 12],
    ["primary remote GID wrong", primaryWith({ remoteGid: OTHER }), 12],
    ["primary remote GID zero", primaryWith({ remoteGid: ANY }), 12],
    ["P_Key 0x8001", { pkey: 0x8001 }, 12],
    ["transport type UC", { transportType: 1 }, 28],
    ["transport type RD", { transportType: 2 }, 28],
    ["alternate LID", { alternate: { ...noPath(), localLid: 5 } }, 18],
  ];
  it.each(refused)("%s → REJ, and no event", (_what, changes, reason) => {
    const script = new Script();
    script.listen();
    script.say(reqFrom(changes));
    expect(script.takeSent().map((line) => line.split(" ")[1])).toEqual([`${reason}`]);
    script.expect();
    expect(script.last("REJ")).toMatchObject({
      localCommId: 0,
      remoteCommId: 0x1001,
      rejected: REJ_MESSAGE.REQ,
      informationLength: reason === 12 ? 16 : 0,
    });
    expect(script.host.cm.liveCount).toBe(1);
  });

  it("primary local GID of a third host → REJ 12 with our GID: its REPs would go there", () => {
    const script = new Script();
    script.listen();
    script.say(reqFrom(primaryWith({ localGid: OTHER })));
    script.expect({ sent: ["REJ 12 INVALID_GID of REQ"] });
    const { information } = script.last("REJ");
    const gid = IpAddress.fromGid(new DataView(information.buffer, information.byteOffset), 0);
    expect(gid.equals(OWN)).toBe(true);
  });

  it.each([0, 4, 5, 6, 7, 15])(
    "MTU code %d on a port of 1024 → REJ 26 with our code",
    (mtuCode) => {
      const script = new Script();
      script.listen();
      script.say(reqFrom({ mtuCode }));
      script.expect({ sent: ["REJ 26 INVALID_MTU of REQ"] });
      expect(script.last("REJ")).toMatchObject({ informationLength: 1 });
      expect(script.last("REJ").information[0]).toBe(3 << 4);
    },
  );

  it("a REQ at a listener of another address, or of IPv6 → REJ 8, as if nobody listened", () => {
    const script = new Script();
    script.channel.listen({ address: IpAddress.parse("2001:db8::1"), port: PORT });
    script.say(reqFrom());
    script.expect({ sent: ["REJ 8 INVALID_SERVICE_ID of REQ"] });
  });

  it("a MAD that is no CM message, or comes from nobody → silence, counted", () => {
    const script = new Script();
    script.listen();
    for (const [offset, value] of [
      [0, 2],
      [1, 3],
      [2, 1],
      [3, 1],
      [17, 0x7f],
    ] as const) {
      const mad = new Uint8Array(256);
      mad.set([1, 7, 2, 3]);
      mad[17] = 0x10;
      mad[offset] = value;
      script.sayBytes(mad);
    }
    script.say(reqFrom(), { source: IpAddress.v4(0) });
    script.say(reqFrom(), { source: V6 });
    script.expect({ sent: ["REJ 12 INVALID_GID of REQ"] });
    expect(script.host.cm.counters.drops).toMatchObject({ MALFORMED: 5, ADDRESS: 1 });
  });
});

describe("the passive side", () => {
  it("REQ → CONNECT_REQUEST with private data and what the peer wants, seen from here", () => {
    const script = new Script();
    const listener = script.channel.listen({ address: OWN, port: PORT });
    listener.context = "mine";
    script.say(reqFrom());
    const [event] = script.expect({ events: ["CONNECT_REQUEST"] });
    const { id, privateData, responderResources, initiatorDepth, remoteQpn } = event as CmEvent;
    expect(event?.listener?.context).toBe("mine");
    expect(privateData.length).toBe(56);
    expect([...privateData.slice(0, 4)]).toEqual([1, 2, 3, 0]);
    expect([responderResources, initiatorDepth, remoteQpn]).toEqual([3, 4, 0x17]);
    expect([id.localPort, id.remotePort, id.devicePort, id.state]).toEqual([
      PORT,
      50_000,
      0,
      "REQ_RCVD",
    ]);
    expect(id.localAddress?.equals(OWN)).toBe(true);
    expect(id.remoteAddress?.equals(PEER)).toBe(true);
  });

  it("accept → the queue pair in RTS as agreed, then the REP", () => {
    const script = new Script();
    const id = script.requested();
    id.bindQp(script.host.createQp());
    expect(id.qp?.state).toBe(QP_STATE.INIT);
    id.accept({ privateData: Uint8Array.of(5, 6), rnrRetryCount: 3 });
    expect(id.qp?.state).toBe(QP_STATE.RTS);
    script.pump();
    script.expect({ sent: ["REP"] });
    const rep = script.last("REP");
    expect(rep).toMatchObject({
      remoteCommId: 0x1001,
      qpn: id.qp?.qpn,
      responderResources: 3,
      initiatorDepth: 4,
      rnrRetryCount: 3,
      targetAckDelay: 14,
      caGuidHigh: 0x1111_1111,
    });
    expect(rep.privateData.length).toBe(196);
    expect([...rep.privateData.slice(0, 3)]).toEqual([5, 6, 0]);
    const mad = script.mads.at(-1);
    expect([mad?.transactionHigh, mad?.transactionLow]).toEqual([0x7777_0000, 0x42]);
    expect(id.qp?.queryQp()).toMatchObject({
      sqPsn: 0x2b_ddc4, // the REQ's starting PSN
      rqPsn: rep.startingPsn, // our own
      maxRdAtomic: 4,
      maxDestRdAtomic: 3,
      pathMtu: 1024, // the REQ's
      retryCount: 6, // the REQ's
      rnrRetry: 5, // the REQ's
      timeout: 15, // ours; the REQ asks for 19
      minRnrTimer: 12,
      accessFlags: 14,
    });
  });

  it("another time to acknowledge → told in the REP, also in a repeated one; ours stays", () => {
    const script = new Script();
    const id = script.requested();
    id.bindQp(script.host.createQp());
    expect(() => id.accept({ targetAckDelay: 32 })).toThrow(/targetAckDelay/);
    id.accept({ targetAckDelay: 21 });
    script.pump();
    expect(script.last("REP").targetAckDelay).toBe(21);
    expect(id.qp?.queryQp().timeout).toBe(15);
    script.takeSent();
    script.wait(250 * MS);
    script.expect({ sent: ["REP"] });
    expect(script.last("REP").targetAckDelay).toBe(21);
  });

  it.each([
    [0, 15],
    [3, 10],
    [14, 14],
    [19, 15],
    [31, 15],
  ])("the REQ's ACK timeout %d → ours is %d", (ackTimeout, timeout) => {
    const script = new Script();
    const id = script.accepted(primaryWith({ ackTimeout }));
    expect(id.qp?.queryQp().timeout).toBe(timeout);
  });

  it("hostile depths → bounded by the device and the default; nothing wanted → writes only", () => {
    const script = new Script();
    const wild = script.accepted({ responderResources: 255, initiatorDepth: 255 });
    expect(wild.qp?.queryQp()).toMatchObject({ maxRdAtomic: 16, maxDestRdAtomic: 16 });
    const none = script.accepted({
      localCommId: 2,
      qpn: 2,
      responderResources: 0,
      initiatorDepth: 0,
    });
    expect(none.qp?.queryQp()).toMatchObject({
      maxRdAtomic: 0,
      maxDestRdAtomic: 0,
      accessFlags: 2,
    });
    const own = script.requested({ localCommId: 3, qpn: 3, responderResources: 2 });
    own.bindQp(script.host.createQp());
    own.accept({ initiatorDepth: 9, ackTimeout: 17 });
    expect(own.qp?.queryQp()).toMatchObject({ maxRdAtomic: 2, timeout: 17 });
    script.takeSent();
  });

  it("RTU → ESTABLISHED, once", () => {
    const script = new Script();
    const id = script.established();
    script.say({ kind: "RTU", ...peerIds(id) });
    script.expect();
    script.wait(60_000 * MS);
    script.expect();
  });

  it.each([
    ["wrong remote comm id", { localCommId: 0x1002 }, PEER],
    ["unknown local comm id", { remoteCommId: 0x5555 }, PEER],
    ["another host", {}, OTHER],
  ])("RTU with %s → silence", (_what, changes, source) => {
    const script = new Script();
    const id = script.accepted();
    script.say({ kind: "RTU", ...peerIds(id), ...changes }, { source });
    script.expect();
    expect(id.state).toBe("REP_SENT");
  });

  it("no RTU → the identical REP again, then REJ 4 and UNREACHABLE", () => {
    const script = new Script({ replyTimeoutNs: 3_000 * MS });
    const id = script.accepted();
    script.wait(1_500 * MS);
    script.expect({ sent: ["REP", "REP", "REP"] });
    const reps = script.mads.slice(-4).map((mad) => JSON.stringify(mad));
    expect(new Set(reps).size).toBe(1);
    script.wait(1_500 * MS);
    script.expect({
      sent: ["REJ 4 TIMEOUT of OTHER"],
      events: [`UNREACHABLE ${ERRNO.ETIMEDOUT}`],
    });
    expect(id.qp?.state).toBe(QP_STATE.ERR);
    // Had it come: the peer learns that it is too late.
    script.say({ kind: "RTU", ...peerIds(id) });
    script.expect({ sent: ["REJ 4 TIMEOUT of OTHER"] });
  });

  it("data before the RTU → ESTABLISHED; the RTU that follows changes nothing", () => {
    const script = new Script();
    const id = script.accepted();
    const core = id.qp?.core as { hasHeardPeer: boolean };
    core.hasHeardPeer = true;
    script.pump();
    script.expect({ events: ["ESTABLISHED"] });
    script.say({ kind: "RTU", ...peerIds(id) });
    script.wait(30_000 * MS);
    script.expect();
  });

  it("MRA of our REP → no repetition for its service time", () => {
    const script = new Script();
    const id = script.accepted();
    const mra = { kind: "MRA", ...peerIds(id), serviceTimeout: 20 } as const;
    script.say({ ...mra, acknowledged: MRA_MESSAGE.REQ });
    script.say({ ...mra, acknowledged: MRA_MESSAGE.REP, localCommId: 7 });
    script.wait(300 * MS);
    script.expect({ sent: ["REP"] });
    script.say({ ...mra, acknowledged: MRA_MESSAGE.REP });
    script.wait(4_400 * MS);
    script.expect();
    script.wait(200 * MS);
    script.expect({ sent: ["REP"] });
  });

  it("reject → REJ 28 with private data in its full-size field", () => {
    const script = new Script();
    const id = script.requested();
    id.reject(new Uint8Array(148).fill(0xa5));
    script.pump();
    script.expect({ sent: ["REJ 28 CONSUMER_REJECT of REQ"] });
    expect(script.last("REJ")).toMatchObject({ localCommId: 0, remoteCommId: 0x1001 });
    expect(script.last("REJ").privateData.every((byte) => byte === 0xa5)).toBe(true);
    script.say(reqFrom());
    script.expect({ sent: ["REJ 28 CONSUMER_REJECT of REQ"] });
    expect(script.last("REJ").privateData[147]).toBe(0xa5);
    expect(() => id.accept()).toThrow(/no request to answer: it is in ANSWERED/);
  });

  it("the peer gives up (REJ 4, GUID and comm id) → REJECTED; a late REQ of it is refused", () => {
    const script = new Script();
    const id = script.requested();
    const information = new Uint8Array(8);
    new DataView(information.buffer).setUint32(0, PEER_GUID.high);
    new DataView(information.buffer).setUint32(4, PEER_GUID.low);
    const rej = {
      kind: "REJ",
      localCommId: 0x1001,
      remoteCommId: 0,
      rejected: REJ_MESSAGE.OTHER,
      reason: 4,
      informationLength: 8,
      information,
      privateData: NOTHING,
    } as const;
    script.say({ ...rej, localCommId: 0x1002 });
    script.say(rej, { source: OTHER });
    script.expect();
    script.say(rej);
    script.expect({ events: ["REJECTED 4"] });
    expect(() => id.accept()).toThrow(/no request to answer/);
    script.say(reqFrom());
    script.expect({ sent: ["REJ 10 STALE_CONNECTION of REQ"] });
  });

  it("a queue pair that does not come up → REJ 28, and the accept throws", () => {
    const script = new Script();
    const id = script.requested();
    id.bindQp(script.host.createQp());
    id.qp?.modifyQp({ state: QP_STATE.ERR });
    expect(() => id.accept()).toThrow(/can't go from ERR to RTR/);
    script.pump();
    script.expect({ sent: ["REJ 28 CONSUMER_REJECT of REQ"] });
  });
});

describe("duplicates and strays (rocev2 facts section 19)", () => {
  it("REQ again while the application thinks → MRA each time, no second event", () => {
    const script = new Script();
    const id = script.requested();
    script.say(reqFrom());
    script.say(reqFrom());
    script.expect({ sent: ["MRA of REQ", "MRA of REQ"] });
    expect(script.last("MRA")).toMatchObject({
      localCommId: peerIds(id).remoteCommId,
      remoteCommId: 0x1001,
      serviceTimeout: 21,
    });
  });

  it("REQ again while the REP is unanswered → the REP at once; when established → silence", () => {
    const script = new Script();
    const id = script.accepted();
    script.say(reqFrom());
    script.expect({ sent: ["REP"] });
    script.say({ kind: "RTU", ...peerIds(id) });
    script.expect({ events: ["ESTABLISHED"] });
    script.say(reqFrom());
    script.expect();
  });

  it("REQ again in timewait and for a while after → REJ 10; later it is a new one", () => {
    const script = new Script();
    const id = script.established();
    id.disconnect();
    script.pump();
    script.say({ kind: "DREP", ...peerIds(id) });
    script.expect({ sent: ["DREQ"], events: ["DISCONNECTED"] });
    script.say(reqFrom());
    script.expect({ sent: ["REJ 10 STALE_CONNECTION of REQ"] });
    script.wait(1_000 * MS);
    script.expect({ events: ["TIMEWAIT_EXIT"] });
    script.say(reqFrom());
    script.expect({ sent: ["REJ 10 STALE_CONNECTION of REQ"] });
    script.wait(15_000 * MS);
    script.requested();
  });

  it("REQ again and again after a REJ that never arrives → the REJ, never a second event", () => {
    const script = new Script();
    const id = script.requested();
    id.reject();
    id.destroy();
    script.pump();
    script.expect({ sent: ["REJ 28 CONSUMER_REJECT of REQ"] });
    // Linux asks for 98 s: longer than we keep an answer that nobody asks for.
    for (let repeat = 0; repeat < 16; repeat++) {
      script.wait(6_144 * MS);
      script.say(reqFrom());
      script.expect({ sent: ["REJ 28 CONSUMER_REJECT of REQ"] });
    }
    script.wait(15_000 * MS);
    expect(script.host.cm.liveCount).toBe(1);
  });

  it("REQ, new comm id, queue pair of a live connection → REJ 10 and a DREQ on the old one", () => {
    const script = new Script();
    const id = script.established();
    script.say(reqFrom({ localCommId: 0x1002 }));
    script.expect({ sent: ["REJ 10 STALE_CONNECTION of REQ", "DREQ"] });
    expect(id.qp?.state).toBe(QP_STATE.ERR);
    // The peer does not know it any more.
    script.say({ kind: "DREP", ...peerIds(id) });
    script.expect({ events: ["DISCONNECTED"] });
    // And tries again: its queue pair is free.
    script.requested({ localCommId: 0x1003 });
  });

  it("REQ of a restarted peer, same comm id, another PSN → REJ 10 and the old one ends", () => {
    const script = new Script();
    script.established();
    script.say(reqFrom({ startingPsn: 1 }));
    script.expect({ sent: ["REJ 10 STALE_CONNECTION of REQ", "DREQ"] });
  });

  it("REQ from another host with the same GUID, comm id and QPN → a connection of its own", () => {
    const script = new Script();
    script.established();
    script.say(
      reqFrom({
        ...primaryWith({ localGid: OTHER }),
        privateData: withHeader(OTHER, OWN, NOTHING),
      }),
      { source: OTHER },
    );
    script.expect({ events: ["CONNECT_REQUEST"] });
  });

  it("REQ that re-uses QPN and GUID right after DREQ and DREP → accepted", () => {
    const script = new Script();
    const id = script.established();
    script.say({ kind: "DREQ", ...peerIds(id), remoteQpn: id.qp?.qpn ?? 0 });
    id.disconnect();
    script.pump();
    script.expect({ sent: ["DREP"], events: ["DISCONNECTED"] });
    script.accepted({ localCommId: 0x1002 });
  });

  it("REP, RTU, DREP, MRA, REJ of unknown comm ids → silence, counted", () => {
    const script = new Script();
    const ids = { localCommId: 0x77, remoteCommId: 0x88, privateData: NOTHING };
    script.say({ kind: "RTU", ...ids });
    script.say({ kind: "DREP", ...ids });
    script.say({ kind: "MRA", ...ids, acknowledged: 0, serviceTimeout: 31 });
    const information = NOTHING;
    script.say({ kind: "REJ", ...ids, rejected: 0, reason: 28, informationLength: 0, information });
    script.say({
      kind: "REJ",
      ...ids,
      rejected: 2,
      reason: 4,
      informationLength: 127,
      information,
    });
    script.expect();
    expect(script.host.cm.counters.drops.UNKNOWN_ID).toBe(5);
  });
});

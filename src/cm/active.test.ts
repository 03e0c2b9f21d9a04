// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { ERRNO, IpAddress } from "../base/index.js";
import { QP_STATE } from "../verbs/index.js";
import { decodeRdmaCmHeader, MRA_MESSAGE, REJ_MESSAGE } from "../wire/index.js";
import type { CmEvent } from "./event.js";
import { ackTimeoutOf } from "./queue-pair-moves.js";
import { MS, NOTHING, OTHER, OWN, PEER, PORT, peerIds, repTo, Script } from "./script.fixture.js";

const rejOf = (remoteCommId: number, reason: number) =>
  ({
    kind: "REJ",
    localCommId: 0,
    remoteCommId,
    rejected: REJ_MESSAGE.REQ,
    reason,
    informationLength: 0,
    information: NOTHING,
    privateData: Uint8Array.of(7, 7),
  }) as const;

describe("the active side", () => {
  it("connect → a REQ with Linux's field values, RDMA CM's header, private data behind it", () => {
    const script = new Script();
    const id = script.activeId();
    id.connect({ privateData: Uint8Array.of(1, 2, 3), retryCount: 5, rnrRetryCount: 4 });
    script.pump();
    const req = script.last("REQ");
    expect(req).toMatchObject({
      serviceIdHigh: 0,
      serviceIdLow: 0x0106_0000 + PORT,
      caGuidHigh: 0x1111_1111,
      caGuidLow: 0x2222_2222,
      qpn: id.qp?.qpn,
      responderResources: 16,
      initiatorDepth: 16,
      retryCount: 5,
      rnrRetryCount: 4,
      pkey: 0xffff,
      mtuCode: 3,
      maxCmRetries: 15,
      transportType: 0,
      srq: false,
    });
    expect(req.localCommId).not.toBe(0);
    expect(req.primary).toMatchObject({
      localLid: 0xffff,
      remoteLid: 0xffff,
      flowLabel: (40_000 * 31 + PORT) & 0xf_ffff,
      hopLimit: 64,
      subnetLocal: false,
      ackTimeout: 15,
    });
    expect(req.primary.localGid.equals(OWN)).toBe(true);
    expect(req.primary.remoteGid.equals(PEER)).toBe(true);
    const data = new DataView(req.privateData.buffer);
    expect(decodeRdmaCmHeader(data, 0)).toEqual({
      sourcePort: 40_000,
      source: OWN,
      destination: PEER,
    });
    expect([...req.privateData.slice(36, 41)]).toEqual([1, 2, 3, 0, 0]);
    expect(req.privateData.length).toBe(92);
  });

  it("REP → RTU, ESTABLISHED with the whole private data, the queue pair in RTS as agreed", () => {
    const script = new Script();
    const id = script.connecting({ responderResources: 2, initiatorDepth: 8, retryCount: 6 });
    const req = script.last("REQ");
    script.say(repTo(req));
    const [event] = script.expect({ sent: ["RTU"], events: ["ESTABLISHED"] });
    expect(event?.id === id).toBe(true);
    const { responderResources, initiatorDepth, remoteQpn } = event as CmEvent;
    expect([responderResources, initiatorDepth, remoteQpn]).toEqual([3, 4, 0x18]);
    expect(event?.privateData.length).toBe(196);
    expect([...(event?.privateData.slice(0, 3) ?? [])]).toEqual([0xa0, 0xa1, 0]);
    expect(id.qp?.state).toBe(QP_STATE.RTS);
    expect(id.qp?.queryQp()).toMatchObject({
      sqPsn: 0xcb_0ff3, // the REP's starting PSN
      rqPsn: req.startingPsn, // our own
      maxRdAtomic: 4, // the REP's responder resources
      maxDestRdAtomic: 2, // the REP's initiator depth is 3, but we offered 2
      pathMtu: 1024,
      retryCount: 6, // our own REQ's
      rnrRetry: 5, // the REP's
      minRnrTimer: 12,
      destinationQpn: 0x18,
      timeout: 16,
    });
    expect(script.last("RTU")).toMatchObject({
      localCommId: req.localCommId,
      remoteCommId: 0x2001,
    });
  });

  it("an ACK timeout or an RNR timer of the user's → is taken as it is", () => {
    const script = new Script();
    const id = script.activeId();
    id.minRnrTimer = 7;
    id.connect({ ackTimeout: 14 });
    script.pump();
    script.say(repTo(script.last("REQ"), { targetAckDelay: 31 }));
    expect(id.qp?.queryQp()).toMatchObject({ timeout: 14, minRnrTimer: 7 });
  });

  it("another ACK timeout for the peer → told in the REQ, ours stays", () => {
    const script = new Script();
    const id = script.activeId();
    id.connect({ ackTimeout: 17, peerAckTimeout: 19 });
    script.pump();
    const req = script.last("REQ");
    expect(req.primary.ackTimeout).toBe(19);
    script.say(repTo(req));
    expect(id.qp?.queryQp()).toMatchObject({ timeout: 17 });
    const other = script.activeId();
    expect(() => other.connect({ peerAckTimeout: 32 })).toThrow(/peerAckTimeout/);
  });

  it("the ACK timeout → Linux's reckoning, at most 19, never below our own", () => {
    expect(ackTimeoutOf(15, 19)).toBe(19); // two Linux hosts
    expect(ackTimeoutOf(15, 15)).toBe(16);
    expect(ackTimeoutOf(0, 15)).toBe(15);
    expect(ackTimeoutOf(16, 15)).toBe(17);
    expect(ackTimeoutOf(31, 15)).toBe(19);
    expect(ackTimeoutOf(31, 22)).toBe(22);
  });

  it("READs and atomics refused by both → remote writes only", () => {
    const script = new Script();
    const id = script.connecting({ responderResources: 0, initiatorDepth: 0 });
    script.say(repTo(script.last("REQ"), { responderResources: 0, initiatorDepth: 0 }));
    expect(id.qp?.queryQp()).toMatchObject({ accessFlags: 2, maxRdAtomic: 0, maxDestRdAtomic: 0 });
  });

  it("no answer → the identical REQ again, sooner than Linux, then REJ 4 and UNREACHABLE", () => {
    const script = new Script();
    const id = script.connecting({ timeoutNs: 5_000 * MS });
    const first = script.mads.length - 1;
    script.wait(199 * MS);
    script.expect();
    script.wait(1 * MS);
    script.expect({ sent: ["REQ"] });
    script.wait(400 * MS);
    script.expect({ sent: ["REQ"] });
    script.wait(4_399 * MS);
    script.expect({ sent: ["REQ", "REQ"] });
    expect(new Set(script.mads.slice(first).map((mad) => JSON.stringify(mad))).size).toBe(1);
    script.wait(1 * MS);
    const [event] = script.expect({
      sent: ["REJ 4 TIMEOUT of OTHER"],
      events: [`UNREACHABLE ${ERRNO.ETIMEDOUT}`],
    });
    expect(event?.id === id).toBe(true);
    const rej = script.last("REJ");
    // By GUID and comm id the peer finds the connection.
    expect(rej).toMatchObject({ remoteCommId: 0, informationLength: 8 });
    expect([...rej.information.slice(0, 8)]).toEqual([17, 17, 17, 17, 34, 34, 34, 34]);
    expect(id.qp?.state).toBe(QP_STATE.ERR);
  });

  it("a REP after giving up → REJ 4 again, nothing else", () => {
    const script = new Script();
    const id = script.connecting();
    const req = script.last("REQ");
    id.destroy();
    script.expect({ sent: ["REJ 4 TIMEOUT of OTHER"] });
    script.say(repTo(req));
    script.expect({ sent: ["REJ 4 TIMEOUT of OTHER"] });
    script.wait(16_000 * MS);
    expect(script.host.cm.liveCount).toBe(0);
    script.say(repTo(req));
    script.expect();
  });

  it("REP again (the RTU was lost) → RTU again, no second event", () => {
    const script = new Script();
    script.connected();
    const req = script.mads.find((mad) => mad.message.kind === "REQ")?.message;
    script.say(repTo(req as Parameters<typeof repTo>[0]));
    script.expect({ sent: ["RTU"] });
    script.say(repTo(req as Parameters<typeof repTo>[0], { localCommId: 0x9999 }));
    script.expect();
  });

  it.each([
    ["an unknown comm id", { remoteCommId: 0x1234_5678 }, PEER],
    ["another host", {}, OTHER],
  ])("REP with %s → silence", (_what, changes, source) => {
    const script = new Script();
    script.connecting();
    script.say(repTo(script.last("REQ"), changes), { source });
    script.expect();
  });

  it("REP whose queue pair belongs to another live connection → REJ 10, the old one ends", () => {
    const script = new Script();
    const old = script.connected();
    const id = script.connecting();
    script.say(repTo(script.last("REQ"), { localCommId: 0x2002 }));
    script.expect({ sent: ["REJ 10 STALE_CONNECTION of REP", "DREQ"] });
    expect(old.qp?.state).toBe(QP_STATE.ERR);
    expect(id.state).toBe("REQ_SENT");
  });

  it("REP with hostile values → accepted within our own bounds", () => {
    const script = new Script();
    const id = script.connecting({ responderResources: 1, initiatorDepth: 1 });
    script.say(
      repTo(script.last("REQ"), {
        responderResources: 255,
        initiatorDepth: 255,
        targetAckDelay: 31,
        qpn: 0,
        caGuidHigh: 0,
        caGuidLow: 0,
        startingPsn: 0xff_ffff,
      }),
    );
    script.expect({ sent: ["RTU"], events: ["ESTABLISHED"] });
    expect(id.qp?.queryQp()).toMatchObject({ maxRdAtomic: 1, maxDestRdAtomic: 1, timeout: 19 });
  });

  it("REP, but the queue pair is gone → REJ 28 and CONNECT_ERROR", () => {
    const script = new Script();
    const id = script.connecting();
    id.qp?.destroy();
    script.say(repTo(script.last("REQ")));
    script.expect({
      sent: ["REJ 28 CONSUMER_REJECT of OTHER"],
      events: [`CONNECT_ERROR ${ERRNO.EBADF}`],
    });
  });

  it.each([8, 10, 12, 28, 4711])("REJ %d → REJECTED with reason and private data", (reason) => {
    const script = new Script();
    const id = script.connecting();
    script.say(rejOf(script.last("REQ").localCommId, reason));
    const [event, timewait] = script.takeEvents();
    expect([event?.type, event?.id === id, event?.status]).toEqual(["REJECTED", true, reason]);
    expect(event?.privateData.length).toBe(148);
    expect([...(event?.privateData.slice(0, 3) ?? [])]).toEqual([7, 7, 0]);
    expect(timewait === undefined).toBe(true);
    expect(id.qp?.state).toBe(QP_STATE.ERR);
    script.wait(10_000 * MS);
    script.expect({ events: reason === 10 ? ["TIMEWAIT_EXIT"] : [] });
    id.destroy();
    expect(script.host.cm.liveCount).toBe(0);
  });

  it("REJ of a REQ for a connection that is up → ignored", () => {
    const script = new Script();
    const id = script.connected();
    script.say(rejOf(peerIds(id).remoteCommId, 10));
    script.expect();
    expect(id.state).toBe("ESTABLISHED");
  });

  it("MRA → no repetition for the service time, then again; the bound on waiting stays", () => {
    const script = new Script({ mraWaitNsMax: 20_000 * MS });
    const id = script.connecting({ timeoutNs: 10_000 * MS });
    const mra = (serviceTimeout: number) =>
      ({ kind: "MRA", ...ids, acknowledged: MRA_MESSAGE.REQ, serviceTimeout }) as const;
    const ids = {
      localCommId: 0x2001,
      remoteCommId: peerIds(id).remoteCommId,
      privateData: NOTHING,
    };
    script.say(mra(21)); // 8.6 s
    script.wait(8_500 * MS);
    script.expect();
    script.wait(600 * MS);
    script.expect({ sent: ["REQ"] });
    script.say(mra(31)); // 2.4 h
    script.wait(10_800 * MS);
    script.expect();
    script.wait(200 * MS);
    script.expect({
      sent: ["REJ 4 TIMEOUT of OTHER"],
      events: [`UNREACHABLE ${ERRNO.ETIMEDOUT}`],
    });
  });

  it("no free buffer on QP1 → the REQ leaves as soon as there is one", () => {
    const script = new Script();
    script.host.port.freeBuffers = 0;
    const id = script.activeId();
    id.connect();
    script.wait(5 * MS);
    script.expect();
    script.host.port.freeBuffers = 1;
    script.wait(2 * MS);
    script.expect({ sent: ["REQ"] });
  });

  it("IPv6 → GIDs, header and source of that family", () => {
    const script = new Script();
    const source = IpAddress.parse("2001:db8::1");
    const destination = IpAddress.parse("2001:db8::2");
    const id = script.channel.createId();
    id.resolve({ source, destination, port: PORT });
    id.bindQp(script.host.createQp());
    id.connect();
    script.pump();
    const req = script.last("REQ");
    expect(req.privateData[1]).toBe(0x60);
    expect(req.primary.localGid.equals(source)).toBe(true);
    script.say(repTo(req), { source: destination, destination: source });
    script.expect({ sent: ["REQ", "RTU"], events: ["ESTABLISHED"] });
  });
});

describe("CmId, refused calls", () => {
  const errorOf = (run: () => void): { code?: string; message?: string } => {
    try {
      run();
    } catch (error) {
      return error as { code: string; message: string };
    }
    return {};
  };

  it("each names why", () => {
    const script = new Script();
    const id = script.channel.createId();
    expect(errorOf(() => id.connect())).toMatchObject({ code: "EINVAL" });
    const away = { source: OTHER, destination: PEER, port: PORT };
    expect(errorOf(() => id.resolve(away))).toMatchObject({
      code: "EADDRNOTAVAIL",
      message: "192.0.2.3 is not an address of this host",
    });
    const mixed = { source: OWN, destination: IpAddress.parse("2001:db8::2"), port: PORT };
    expect(errorOf(() => id.resolve(mixed)).message).toMatch(/can't reach/);
    expect(errorOf(() => id.resolve({ ...away, source: OWN, port: 0 })).message).toMatch(/no port/);
    expect(errorOf(() => id.bindQp(script.host.createQp())).message).toMatch(/resolve/);
    id.resolve({ source: OWN, destination: PEER, port: PORT });
    expect(errorOf(() => id.connect()).message).toMatch(/bind a queue pair/);
    expect(errorOf(() => id.bindQp(script.host.createQp("UD"))).message).toMatch(/RC/);
    id.bindQp(script.host.createQp());
    expect(errorOf(() => id.bindQp(script.host.createQp())).message).toMatch(/has its queue pair/);
    expect(errorOf(() => id.connect({ privateData: new Uint8Array(57) })).message).toMatch(
      /at most 56/,
    );
    expect(errorOf(() => id.connect({ retryCount: 8 })).message).toMatch(
      /retryCount must be 0 .. 7/,
    );
    expect(errorOf(() => id.connect({ ackTimeout: 0 })).message).toMatch(/ackTimeout/);
    expect(errorOf(() => id.connect({ pathMtu: 4096 })).message).toMatch(/up to 1024/);
    expect(errorOf(() => id.connect({ responderResources: 129 })).message).toMatch(/0 .. 128/);
    expect(errorOf(() => id.accept()).message).toMatch(/no request to answer/);
    expect(script.host.cm.liveCount).toBe(1);
    id.connect();
    expect(errorOf(() => id.connect()).message).toMatch(/serves one exchange/);
    expect(errorOf(() => script.activeId().bindQp(id.qp as never)).code).toBe("EINVAL");
    id.destroy();
    expect(errorOf(() => id.connect()).message).toMatch(/destroyed/);
  });

  it("a queue pair of another id → refused; free again after the id", () => {
    const script = new Script();
    const first = script.activeId();
    const qp = first.qp as NonNullable<typeof first.qp>;
    const second = script.channel.createId();
    second.resolve({ source: OWN, destination: PEER, port: PORT });
    expect(errorOf(() => second.bindQp(qp)).message).toMatch(/bound to another id/);
    first.destroy();
    qp.modifyQp({ state: QP_STATE.RESET });
    second.bindQp(qp);
    expect(second.qp === qp).toBe(true);
  });
});

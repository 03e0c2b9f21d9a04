// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { ERRNO } from "../base/index.js";
import { QP_STATE } from "../verbs/index.js";
import { REJ_MESSAGE } from "../wire/index.js";
import type { CmId } from "./cm-id.js";
import {
  MS,
  NOTHING,
  OTHER,
  PORT,
  peerIds,
  repTo,
  reqFrom,
  Script,
  sidrReqFrom,
} from "./script.fixture.js";

const dreqTo = (id: CmId) =>
  ({ kind: "DREQ", ...peerIds(id), remoteQpn: id.qp?.qpn ?? 0 }) as const;
const drepTo = (id: CmId) => ({ kind: "DREP", ...peerIds(id) }) as const;
const rejTo = (id: CmId, reason: number) =>
  ({
    kind: "REJ",
    ...peerIds(id),
    rejected: REJ_MESSAGE.OTHER,
    reason,
    informationLength: 0,
    information: NOTHING,
  }) as const;

describe("disconnect", () => {
  it("ours → ERR, DREQ with the peer's QPN; DREP → DISCONNECTED; timewait → TIMEWAIT_EXIT", () => {
    const script = new Script();
    const id = script.connected();
    id.disconnect();
    expect(id.qp?.state).toBe(QP_STATE.ERR);
    script.pump();
    script.expect({ sent: ["DREQ"] });
    expect(script.last("DREQ")).toMatchObject({ remoteCommId: 0x2001, remoteQpn: 0x18 });
    script.say(drepTo(id));
    script.expect({ events: ["DISCONNECTED"] });
    expect(id.state).toBe("TIMEWAIT");
    id.disconnect();
    // Code 16: 268 ms.
    script.wait(260 * MS);
    script.expect();
    script.wait(10 * MS);
    script.expect({ events: ["TIMEWAIT_EXIT"] });
    expect(id.state).toBe("CLOSED");
    id.destroy();
    expect(script.host.cm.liveCount).toBe(0);
  });

  it("the peer's → DISCONNECTED; DREP only when the application disconnects too", () => {
    const script = new Script();
    const id = script.established();
    script.say(dreqTo(id), { transaction: 0x99 });
    script.expect({ events: ["DISCONNECTED"] });
    expect(id.qp?.state).toBe(QP_STATE.RTS);
    script.say(dreqTo(id), { transaction: 0x99 });
    script.expect();
    id.disconnect();
    script.pump();
    script.expect({ sent: ["DREP"] });
    expect(script.mads.at(-1)?.transactionLow).toBe(0x99);
    expect(id.qp?.state).toBe(QP_STATE.ERR);
    // The DREP was lost.
    script.say(dreqTo(id));
    script.expect({ sent: ["DREP"] });
  });

  it("both at once → each DREQ is answered, one event, nobody waits", () => {
    const script = new Script();
    const id = script.connected();
    id.disconnect();
    script.say(dreqTo(id));
    script.expect({ sent: ["DREQ", "DREP"], events: ["DISCONNECTED"] });
    script.say(drepTo(id));
    script.wait(10_000 * MS);
    script.expect({ events: ["TIMEWAIT_EXIT"] });
  });

  it("no DREP → the DREQ again, then DISCONNECTED with ETIMEDOUT", () => {
    const script = new Script({ disconnectTimeoutNs: 1_000 * MS });
    const id = script.connected();
    id.disconnect();
    script.wait(999 * MS);
    script.expect({ sent: ["DREQ", "DREQ", "DREQ"] });
    script.wait(1 * MS);
    script.expect({ events: [`DISCONNECTED ${ERRNO.ETIMEDOUT}`] });
    expect(id.state).toBe("TIMEWAIT");
  });

  it("DREQ instead of a lost RTU → DISCONNECTED without ESTABLISHED", () => {
    const script = new Script();
    const id = script.accepted();
    script.say(dreqTo(id));
    script.expect({ events: ["DISCONNECTED"] });
    id.destroy();
    script.pump();
    script.expect({ sent: ["DREP"] });
  });

  it("DREQ that names another queue pair → silence", () => {
    const script = new Script();
    const id = script.connected();
    script.say({ ...dreqTo(id), remoteQpn: 5 });
    script.expect();
    expect(script.host.cm.counters.drops.WRONG_QPN).toBe(1);
    expect(id.state).toBe("ESTABLISHED");
  });

  it("DREQ for an unknown connection, or from another host → DREP with the ids swapped", () => {
    const script = new Script();
    const id = script.connected();
    const ids = { localCommId: 0x77, remoteCommId: 0x88, privateData: NOTHING };
    script.say({ kind: "DREQ", ...ids, remoteQpn: 1 }, { transaction: 0x999 });
    script.expect({ sent: ["DREP"] });
    expect(script.last("DREP")).toMatchObject({ localCommId: 0x88, remoteCommId: 0x77 });
    expect(script.mads.at(-1)?.transactionLow).toBe(0x999);
    script.say(dreqTo(id), { source: OTHER });
    script.say({ ...dreqTo(id), localCommId: 0x77 });
    script.expect({ sent: ["DREP", "DREP"] });
    expect(id.state).toBe("ESTABLISHED");
  });

  it("REJ of an established connection → DISCONNECTED with ECONNRESET", () => {
    const script = new Script();
    const id = script.established();
    script.say({ ...rejTo(id, 28), localCommId: 0x99 });
    script.expect();
    script.say(rejTo(id, 28));
    script.expect({ events: [`DISCONNECTED ${ERRNO.ECONNRESET}`] });
    expect(id.qp?.state).toBe(QP_STATE.ERR);
  });

  it("REJ of a DREQ (the peer has forgotten) → DISCONNECTED", () => {
    const script = new Script();
    const id = script.connected();
    id.disconnect();
    script.pump();
    script.say(rejTo(id, 6));
    script.expect({ sent: ["DREQ"], events: ["DISCONNECTED"] });
  });

  it("before the connection is up → the exchange ends, and the id is told", () => {
    const script = new Script();
    const active = script.connecting();
    active.disconnect();
    script.expect({ sent: ["REJ 4 TIMEOUT of OTHER"], events: ["DISCONNECTED"] });
    const passive = script.requested();
    passive.disconnect();
    script.expect({ sent: ["REJ 28 CONSUMER_REJECT of REQ"], events: ["DISCONNECTED"] });
    const idle = script.activeId();
    idle.disconnect();
    script.expect();
  });
});

describe("closing an id in any state", () => {
  const cases: [string, (script: Script) => CmId, string[]][] = [
    ["idle", (script) => script.channel.createId(), []],
    ["resolved", (script) => script.activeId(), []],
    ["REQ sent", (script) => script.connecting(), ["REJ 4 TIMEOUT of OTHER"]],
    ["REQ received", (script) => script.requested(), ["REJ 28 CONSUMER_REJECT of REQ"]],
    ["REP sent", (script) => script.accepted(), ["REJ 28 CONSUMER_REJECT of OTHER"]],
    ["active, established", (script) => script.connected(), ["DREQ"]],
    ["passive, established", (script) => script.established(), ["DREQ"]],
    [
      "DREQ received",
      (script) => {
        const id = script.connected();
        script.say(dreqTo(id));
        script.expect({ events: ["DISCONNECTED"] });
        return id;
      },
      ["DREP"],
    ],
    [
      "DREQ sent",
      (script) => {
        const id = script.connected();
        id.disconnect();
        script.expect({ sent: ["DREQ"] });
        return id;
      },
      [],
    ],
    [
      "timewait",
      (script) => {
        const id = script.connected();
        id.disconnect();
        script.pump();
        script.say(drepTo(id));
        script.expect({ sent: ["DREQ"], events: ["DISCONNECTED"] });
        return id;
      },
      [],
    ],
    [
      "rejected",
      (script) => {
        const id = script.connecting();
        script.say({ ...rejTo(id, 28), rejected: REJ_MESSAGE.REQ });
        script.expect({ events: ["REJECTED 28"] });
        return id;
      },
      [],
    ],
    [
      "SIDR_REQ sent",
      (script) => {
        const id = script.channel.createId("UDP");
        const [source, destination] = [
          script.host.port.addresses[0],
          script.host.port.addresses[0],
        ];
        id.resolve({ source: source as never, destination: destination as never, port: PORT });
        id.connect();
        script.expect({ sent: ["SIDR_REQ"] });
        return id;
      },
      [],
    ],
    [
      "SIDR_REQ received",
      (script) => {
        script.channel.listen({ address: null, port: PORT, portSpace: "UDP" }).context = 1;
        script.say(sidrReqFrom());
        const [event] = script.expect({ events: ["CONNECT_REQUEST"] });
        return (event as { id: CmId }).id;
      },
      ["SIDR_REP 2"],
    ],
  ];

  it.each(cases)(
    "%s → the message that fits, ERR, no event, nothing left",
    (_state, open, sent) => {
      const script = new Script();
      const id = open(script);
      const { qp } = id;
      id.destroy();
      id.destroy();
      script.pump();
      expect(script.takeSent()).toEqual(sent);
      if (qp !== null) expect(["ERR", "INIT"]).toContain(qp.stateName);
      expect(id.qp === null && id.isDestroyed).toBe(true);
      script.wait(60_000 * MS);
      expect(script.takeEvents().length).toBe(0);
      script.channel.close();
      expect(script.host.cm.liveCount).toBe(0);
      expect(script.host.cm.deadlineNs()).toBe(Number.POSITIVE_INFINITY);
    },
  );

  it("established, and no DREP → the goodbye is repeated without the id", () => {
    const script = new Script({ disconnectTimeoutNs: 1_000 * MS });
    const id = script.connected();
    id.destroy();
    expect(script.host.cm.goodbyeCount).toBe(1);
    script.wait(1_000 * MS);
    script.expect({ sent: ["DREQ", "DREQ", "DREQ"] });
    expect(script.host.cm.goodbyeCount).toBe(0);
  });

  it("REP sent, and the REJ is lost → REJ again, unasked and whenever the peer speaks", () => {
    const script = new Script();
    const id = script.accepted();
    const ids = peerIds(id);
    const qpn = id.qp?.qpn ?? 0;
    id.destroy();
    script.expect({ sent: ["REJ 28 CONSUMER_REJECT of OTHER"] });
    script.wait(200 * MS);
    script.expect({ sent: ["REJ 28 CONSUMER_REJECT of OTHER"] });
    script.say({ kind: "RTU", ...ids });
    script.expect({ sent: ["REJ 28 CONSUMER_REJECT of OTHER"] });
    script.say(reqFrom());
    script.expect({ sent: ["REJ 28 CONSUMER_REJECT of REQ"] });
    // It took the REP for a connection, and ends that.
    script.say({ kind: "DREQ", ...ids, remoteQpn: qpn });
    script.expect({ sent: ["DREP"] });
  });

  it("REQ received, and the REJ is lost → the REQ that comes again is refused again", () => {
    const script = new Script();
    const id = script.requested();
    id.destroy();
    script.say(reqFrom());
    script.expect({ sent: ["REJ 28 CONSUMER_REJECT of REQ", "REJ 28 CONSUMER_REJECT of REQ"] });
  });
});

describe("channels and listeners", () => {
  it("closing a listener → requests that nobody has seen are refused; seen ones live on", () => {
    const script = new Script();
    const listener = script.channel.listen({ address: null, port: PORT });
    script.say(reqFrom());
    const seen = script.channel.poll()?.id as CmId;
    script.say(reqFrom({ localCommId: 2, qpn: 2 }));
    listener.close();
    script.pump();
    script.expect({ sent: ["REJ 28 CONSUMER_REJECT of REQ"] });
    script.say(reqFrom({ localCommId: 3, qpn: 3 }));
    script.expect({ sent: ["REJ 8 INVALID_SERVICE_ID of REQ"] });
    seen.bindQp(script.host.createQp());
    seen.accept();
    script.expect({ sent: ["REP"] });
  });

  it("closing a channel → everything in it ends; the manager goes on", () => {
    const script = new Script();
    const other = script.host.cm.createChannel();
    other.listen({ address: null, port: 9 });
    script.connected();
    script.requested();
    script.channel.close();
    script.channel.close();
    script.expect({ sent: ["DREQ", "REJ 28 CONSUMER_REJECT of REQ"] });
    expect(() => script.channel.createId()).toThrow(/closed/);
    script.wait(60_000 * MS);
    expect(script.host.cm.liveCount).toBe(1);
    script.host.cm.release();
    expect(script.host.port.isClosed).toBe(true);
    expect(script.host.cm.liveCount).toBe(0);
  });

  it("listen → EADDRINUSE, EADDRNOTAVAIL, EINVAL, each with its reason; port 0 finds one", () => {
    const script = new Script();
    const { channel } = script;
    const own = script.host.port.addresses[0] as never;
    channel.listen({ address: own, port: 1 });
    channel.listen({ address: script.host.port.addresses[1] as never, port: 1 });
    channel.listen({ address: own, port: 1, portSpace: "UDP" });
    const code = (run: () => void) => {
      try {
        run();
      } catch (error) {
        return (error as { code: string }).code;
      }
      return "none";
    };
    expect(code(() => channel.listen({ address: own, port: 1 }))).toBe("EADDRINUSE");
    expect(code(() => channel.listen({ address: null, port: 1 }))).toBe("EADDRINUSE");
    expect(code(() => channel.listen({ address: OTHER, port: 2 }))).toBe("EADDRNOTAVAIL");
    expect(code(() => channel.listen({ address: null, port: 65_536 }))).toBe("EINVAL");
    expect(code(() => channel.listen({ address: null, port: 2, backlog: 0 }))).toBe("EINVAL");
    const free = channel.listen({ address: null, port: 0 });
    expect(free.port).toBeGreaterThanOrEqual(32_768);
    free.close();
    expect(channel.listen({ address: null, port: free.port }).port).toBe(free.port);
  });

  it("a REP that comes twice → one RTU each, one connection", () => {
    const script = new Script();
    const id = script.connected();
    script.say(repTo({ ...reqFrom(), localCommId: peerIds(id).remoteCommId }));
    script.expect({ sent: ["RTU"] });
    expect(script.host.cm.counters.connectionsEstablished).toBe(1);
  });
});

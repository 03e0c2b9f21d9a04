// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { ERRNO } from "../base/index.js";
import { QP_STATE } from "../verbs/index.js";
import { QKEY_RDMA_CM, type SidrRep } from "../wire/index.js";
import type { CmId } from "./cm-id.js";
import {
  MS,
  NOTHING,
  OTHER,
  OWN,
  PEER,
  PORT,
  Script,
  sidrReqFrom,
  withHeader,
} from "./script.fixture.js";

function resolving(script: Script): CmId {
  const id = script.channel.createId("UDP");
  id.resolve({ source: OWN, destination: PEER, port: PORT });
  id.connect({ privateData: Uint8Array.of(4, 5) });
  script.pump();
  script.expect({ sent: ["SIDR_REQ"] });
  return id;
}

function asked(script: Script): CmId {
  script.channel.listen({ address: null, port: PORT, portSpace: "UDP" });
  script.say(sidrReqFrom(), { transaction: 5 });
  const [event] = script.expect({ events: ["CONNECT_REQUEST"] });
  expect(event?.privateData.length).toBe(180);
  expect([...(event?.privateData.slice(0, 3) ?? [])]).toEqual([9, 8, 0]);
  return (event as { id: CmId }).id;
}

const replyTo = (requestId: number, changes: Partial<SidrRep> = {}): SidrRep => ({
  kind: "SIDR_REP",
  requestId,
  status: 0,
  informationLength: 0,
  vendorId: 0,
  qpn: 0x1d,
  serviceIdHigh: 0,
  serviceIdLow: 0x0111_0000 + PORT,
  qkey: QKEY_RDMA_CM,
  information: NOTHING,
  privateData: Uint8Array.of(1),
  ...changes,
});

describe("SIDR, active", () => {
  it("connect → SIDR_REQ; SIDR_REP → ESTABLISHED with queue pair, Q_Key, private data", () => {
    const script = new Script();
    const id = resolving(script);
    const request = script.last("SIDR_REQ");
    expect(request).toMatchObject({ serviceIdLow: 0x0111_0000 + PORT, pkey: 0xffff });
    expect([...request.privateData.slice(36, 39)]).toEqual([4, 5, 0]);
    script.say(replyTo(request.requestId), { source: OTHER });
    script.say(replyTo(request.requestId + 1));
    script.expect();
    script.say(replyTo(request.requestId));
    const [event] = script.expect({ events: ["ESTABLISHED"] });
    expect([event?.remoteQpn, event?.remoteQkey]).toEqual([0x1d, QKEY_RDMA_CM]);
    expect(event?.privateData.length).toBe(136);
    script.say(replyTo(request.requestId));
    script.expect();
    id.destroy();
    expect(script.host.cm.liveCount).toBe(0);
  });

  it.each([1, 2, 3, 4, 5, 200])("SIDR_REP status %d → UNREACHABLE with that status", (status) => {
    const script = new Script();
    resolving(script);
    script.say(replyTo(script.last("SIDR_REQ").requestId, { status }));
    script.expect({ events: [`UNREACHABLE ${status}`] });
  });

  it("no answer → the SIDR_REQ again, then UNREACHABLE with ETIMEDOUT", () => {
    const script = new Script({ connectTimeoutNs: 1_000 * MS });
    resolving(script);
    script.wait(1_000 * MS);
    script.expect({ sent: ["SIDR_REQ", "SIDR_REQ"], events: [`UNREACHABLE ${ERRNO.ETIMEDOUT}`] });
  });
});

describe("SIDR, passive", () => {
  it("accept → SIDR_REP, the queue pair in RTS; a request that comes again gets it again", () => {
    const script = new Script();
    const id = asked(script);
    script.say(sidrReqFrom(), { transaction: 5 });
    script.expect();
    id.bindQp(script.host.createQp("UD"));
    expect(id.qp?.state).toBe(QP_STATE.RTS);
    id.accept({ privateData: Uint8Array.of(3) });
    script.pump();
    script.expect({ sent: ["SIDR_REP 0"] });
    const reply = script.last("SIDR_REP");
    expect(reply).toMatchObject({
      requestId: 0x3001,
      qpn: id.qp?.qpn,
      qkey: QKEY_RDMA_CM,
      serviceIdLow: 0x0111_0000 + PORT,
    });
    expect([...reply.privateData.slice(0, 2)]).toEqual([3, 0]);
    script.say(sidrReqFrom(), { transaction: 5 });
    script.expect({ sent: ["SIDR_REP 0"] });
    expect(script.mads.at(-1)).toEqual(script.mads.at(-2));
    id.destroy();
    script.say(sidrReqFrom());
    script.expect({ sent: ["SIDR_REP 0"] });
    script.wait(15_000 * MS);
    script.say(sidrReqFrom());
    script.expect({ events: ["CONNECT_REQUEST"] });
  });

  it("a request that goes on coming after its answer → the answer, never a second event", () => {
    const script = new Script();
    asked(script).reject();
    script.pump();
    script.expect({ sent: ["SIDR_REP 2"] });
    for (let repeat = 0; repeat < 5; repeat++) {
      script.wait(14_000 * MS);
      script.say(sidrReqFrom(), { transaction: 5 });
      script.expect({ sent: ["SIDR_REP 2"] });
    }
  });

  it("several ids → may share one queue pair", () => {
    const script = new Script();
    const first = asked(script);
    first.bindQp(script.host.createQp("UD"));
    first.accept();
    script.say(sidrReqFrom({ requestId: 2 }));
    const [event] = script.expect({ sent: ["SIDR_REP 0"], events: ["CONNECT_REQUEST"] });
    event?.id.bindQp(first.qp as never);
    event?.id.accept();
    script.expect({ sent: ["SIDR_REP 0"] });
  });

  it("reject → status 2; nobody listens, or another port space → 1; a bad header → 2", () => {
    const script = new Script();
    asked(script).reject();
    script.pump();
    script.expect({ sent: ["SIDR_REP 2"] });
    script.say(sidrReqFrom({ requestId: 2, serviceIdLow: 0x0111_0001 }));
    script.say(sidrReqFrom({ requestId: 2, serviceIdLow: 0x0106_0000 + PORT }));
    script.say(sidrReqFrom({ requestId: 2, serviceIdHigh: 1 }));
    script.expect({ sent: ["SIDR_REP 1", "SIDR_REP 1", "SIDR_REP 1"] });
    script.say(sidrReqFrom({ requestId: 2, privateData: withHeader(PEER, OTHER, NOTHING) }));
    script.say(sidrReqFrom({ requestId: 2, pkey: 0x8001 }));
    script.expect({ sent: ["SIDR_REP 2", "SIDR_REP 2"] });
  });
});

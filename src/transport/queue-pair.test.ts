// SPDX-License-Identifier: MIT
// Queue pairs from their owner's side: what posting accepts, in which state; flushing, draining,
// local operations, inline data, shared receive queues, overflowing completion queues, events.

import { describe, expect, it } from "vitest";
import { ERRNO } from "../base/index.js";
import { DEVICE_EVENT, DeviceEvent } from "./device-event.js";
import { connect, Pair, START_PSNS } from "./network.fixture.js";
import { QP_STATE, QP_TYPE } from "./qp-state.js";
import {
  ACCESS,
  RecvWorkRequest,
  SEND_FLAG,
  SendWorkRequest,
  WorkCompletion,
  WR_OPCODE,
} from "./work-request.js";

const { SIGNALED, INLINE } = SEND_FLAG;

/** Takes all events of A's or B's device as their types. */
function events(pair: Pair, host: 0 | 1): number[] {
  const event = new DeviceEvent();
  const types: number[] = [];
  while (pair.host(host).device.pollEvent(event)) types.push(event.type);
  return types;
}

describe("posting", () => {
  it("RESET, INIT, RTR refuse sends; RESET refuses receives", () => {
    const pair = new Pair();
    const qp = pair.b.createQp();
    const receive = new RecvWorkRequest();
    expect(qp.postRecv(receive)).toBe(ERRNO.EINVAL);
    expect(qp.postSend(new SendWorkRequest())).toBe(ERRNO.EINVAL);
    qp.modify({ state: QP_STATE.INIT, pkeyIndex: 0, port: 0, accessFlags: 0 });
    expect(qp.postSend(new SendWorkRequest())).toBe(ERRNO.EINVAL);
    expect(qp.postRecv(receive)).toBe(0);
  });

  it("a request that can't be valid is refused", () => {
    const pair = new Pair({}, {}, { maxSendSge: 2, maxInlineData: 64 });
    const refused = (opcode: SendWorkRequest["opcode"], length: number, change = {}) =>
      expect(pair.post(1, opcode, length, change)).toBe(ERRNO.EINVAL);
    refused(WR_OPCODE.RDMA_WRITE, -1);
    refused(WR_OPCODE.RDMA_WRITE, 1.5);
    refused(WR_OPCODE.RDMA_WRITE, Number.NaN);
    refused(WR_OPCODE.RDMA_WRITE, 2 ** 31 + 1);
    refused(WR_OPCODE.RDMA_WRITE, 8, { sgeCount: 3 });
    refused(WR_OPCODE.RDMA_WRITE, 8, { sendFlags: 16 });
    refused(WR_OPCODE.RDMA_WRITE, 65, { sendFlags: INLINE });
    refused(WR_OPCODE.RDMA_READ, 8, { sendFlags: INLINE });
    refused(WR_OPCODE.ATOMIC_FETCH_AND_ADD, 4);
    refused(WR_OPCODE.ATOMIC_FETCH_AND_ADD, 8, { sgeCount: 0 });
    refused(WR_OPCODE.LOCAL_INV, 0, { sgeCount: 1 });
    refused(11 as 9, 0);
    expect(pair.qpA.sendCount).toBe(0);
  });

  it("READs and atomics are refused where the initiator depth is 0", () => {
    const pair = new Pair({ maxRdAtomic: 0 });
    expect(pair.read(1, 8)).toBe(ERRNO.EINVAL);
    expect(pair.fetchAdd(1, 8)).toBe(ERRNO.EINVAL);
  });

  it("a full queue → ENOMEM; a slot is free when its request completes, signalled or not", () => {
    const pair = new Pair({}, {}, { maxSendWr: 3, maxRecvWr: 2 });
    for (let i = 0; i < 3; i++) expect(pair.write(i, 8, { sendFlags: 0 })).toBe(0);
    expect(pair.write(3, 8)).toBe(ERRNO.ENOMEM);
    pair.runToRest();
    expect(pair.a.completions()).toEqual([]);
    expect(pair.write(3, 8)).toBe(0);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["3 SUCCESS"]);
    expect(pair.receive(1, 8)).toBe(0);
    expect(pair.receive(2, 8)).toBe(0);
    expect(pair.receive(3, 8)).toBe(ERRNO.ENOMEM);
  });

  it("an unsignalled request that fails completes all the same", () => {
    const pair = new Pair();
    pair.write(1, 8, { sendFlags: 0, rkey: 1 });
    pair.write(2, 8, { sendFlags: 0 });
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 REM_ACCESS_ERR", "2 WR_FLUSH_ERR"]);
  });

  it("a bad own key → status 4 after everything before it has completed", () => {
    const pair = new Pair();
    pair.lose(2);
    pair.write(1, 2000);
    pair.post(2, WR_OPCODE.SEND, 8, { sges: [{ address: 0, length: 8, lkey: 5 }] } as never);
    pair.write(3, 8);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 LOC_PROT_ERR", "3 WR_FLUSH_ERR"]);
  });

  it("memory gone before its WRITE is acknowledged → status 4, nothing sent again", () => {
    const pair = new Pair();
    pair.lose(2);
    pair.write(1, 2000);
    pair.run(5_000);
    pair.a.device.regions.deregister(pair.a.region);
    pair.conversation();
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 LOC_PROT_ERR"]);
    expect(pair.conversation()).toEqual([]);
  });

  it("inline data is copied when posted, though its key goes away", () => {
    const pair = new Pair();
    const wanted = pair.a.memory.bytes.slice(0, 200);
    expect(pair.write(1, 200, { sendFlags: SIGNALED | INLINE })).toBe(0);
    pair.a.memory.bytes.fill(0, 0, 200);
    pair.a.device.regions.deregister(pair.a.region);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
    expect(pair.b.memory.bytes.slice(0, 200)).toEqual(wanted);
  });

  it("scatter and gather over several entries, cut anywhere", () => {
    const pair = new Pair({ pathMtu: 256 });
    const cut = (address: number, key: number, ...lengths: number[]) => {
      let at = address;
      return lengths.map((length) => {
        const sge = { address: at, length, lkey: key };
        at += length + 16;
        return sge;
      });
    };
    const receive = new RecvWorkRequest();
    receive.wrId = 9;
    receive.sgeCount = 3;
    receive.sges.splice(0, 3, ...cut(pair.b.memory.address, pair.b.key, 100, 0, 700));
    pair.qpB.postRecv(receive);
    const sges = cut(pair.a.memory.address, pair.a.key, 1, 300, 255, 200);
    pair.post(1, WR_OPCODE.SEND, 0, { sges, sgeCount: 4 } as never);
    pair.runToRest();
    expect(pair.b.completions()).toEqual(["recv 9 SUCCESS 756"]);
    const sent = sges.flatMap(({ address, length }) => {
      const at = address - pair.a.memory.address;
      return [...pair.a.memory.bytes.slice(at, at + length)];
    });
    const got = [
      ...pair.b.memory.bytes.slice(0, 100),
      ...pair.b.memory.bytes.slice(132, 132 + 656),
    ];
    expect(got).toEqual(sent);
  });

  it("ERR: sends and receives complete as flushed; RESET forgets all, completions too", () => {
    const pair = new Pair();
    pair.receive(1, 8);
    pair.write(2, 8);
    pair.qpA.modify({ state: QP_STATE.ERR });
    pair.qpB.modify({ state: QP_STATE.ERR });
    pair.write(3, 8);
    pair.receive(4, 8);
    expect(pair.a.completions()).toEqual(["2 WR_FLUSH_ERR", "3 WR_FLUSH_ERR"]);
    expect(pair.b.completions()).toEqual(["recv 1 WR_FLUSH_ERR", "recv 4 WR_FLUSH_ERR"]);
    pair.receive(5, 8);
    pair.qpB.modify({ state: QP_STATE.RESET });
    expect(pair.b.completions()).toEqual([]);
  });

  it("after RESET a queue pair connects again and nothing of its first life is left", () => {
    const pair = new Pair();
    pair.lose(2);
    pair.write(1, 5000);
    pair.run(5_000);
    for (const qp of [pair.qpA, pair.qpB]) qp.modify({ state: QP_STATE.RESET });
    pair.fate = null;
    pair.runToRest();
    connect(pair.a, pair.qpA, pair.b, pair.qpB, [77, 88]);
    connect(pair.b, pair.qpB, pair.a, pair.qpA, [88, 77]);
    pair.conversation();
    pair.write(2, 5000);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["2 SUCCESS"]);
    expect(pair.conversation()).toHaveLength(6);
  });
});

describe("draining", () => {
  it("SQD: what was started is finished, the rest waits; SQ_DRAINED comes once", () => {
    const pair = new Pair();
    pair.lose(2);
    pair.write(1, 2000);
    pair.run(5_000);
    pair.qpA.modify({ state: QP_STATE.SQD, sqdNotify: true });
    pair.write(2, 8);
    expect(() => pair.qpA.modify({ maxRdAtomic: 1 })).toThrow("has not drained");
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
    expect(events(pair, 0)).toEqual([DEVICE_EVENT.SQ_DRAINED]);
    pair.qpA.modify({ maxRdAtomic: 1 });
    pair.qpA.modify({ state: QP_STATE.RTS });
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["2 SUCCESS"]);
    expect(events(pair, 0)).toEqual([]);
  });

  it("SQD of an idle queue pair is drained at once; responses and requests still come in", () => {
    const pair = new Pair();
    pair.qpB.modify({ state: QP_STATE.SQD, sqdNotify: true });
    expect(events(pair, 1)).toEqual([DEVICE_EVENT.SQ_DRAINED]);
    pair.write(1, 8);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
  });
});

describe("fast registration", () => {
  function fast(pair: Pair): { index: number; key: number } {
    const { regions } = pair.a.device;
    const index = regions.allocateFast(pair.a.pd);
    return { index, key: regions.freshKey(index) };
  }

  const registerChange = (pair: Pair, index: number, key: number) => ({
    regionIndex: index,
    registerKey: key,
    registerLkey: pair.a.key,
    registerAccess: ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE,
    registerAddress: pair.a.memory.address + 4096,
    registerLength: 4096,
  });

  it("REG_MR opens the region in its place in the queue, LOCAL_INV closes it", () => {
    const pair = new Pair();
    const { regions } = pair.a.device;
    const { index, key } = fast(pair);
    expect(regions.find(key)).toBe(-1);
    pair.post(1, WR_OPCODE.REG_MR, 0, registerChange(pair, index, key));
    pair.post(2, WR_OPCODE.RDMA_WRITE, 100, {
      sges: [{ address: pair.a.memory.address + 4096, length: 100, lkey: key }],
    } as never);
    pair.post(3, WR_OPCODE.LOCAL_INV, 0, { invalidateKey: key });
    pair.run(1);
    // The WRITE is not acknowledged yet: a retransmission may need the region.
    expect(regions.find(key)).toBe(index);
    pair.runToRest();
    expect(regions.find(key)).toBe(-1);
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS", "3 SUCCESS"]);
    regions.checkInvariants();
  });

  it("both run once, though everything around them is sent again", () => {
    const pair = new Pair();
    const { index, key } = fast(pair);
    const data = { sges: [{ address: pair.a.memory.address + 4096, length: 3000, lkey: key }] };
    pair.lose(1, 4, 7, 9);
    pair.write(0, 10, { remote: 8192 });
    pair.post(1, WR_OPCODE.REG_MR, 0, registerChange(pair, index, key));
    pair.post(2, WR_OPCODE.RDMA_WRITE, 3000, data as never);
    pair.post(3, WR_OPCODE.LOCAL_INV, 0, { invalidateKey: key });
    pair.write(4, 10, { remote: 12_288 });
    pair.runToRest();
    const statuses = [0, 1, 2, 3, 4].map((id) => `${id} SUCCESS`);
    expect(pair.a.completions()).toEqual(statuses);
    expect(pair.b.memory.bytes.slice(0, 3000)).toEqual(pair.a.memory.bytes.slice(4096, 7096));
  });

  it("REG_MR of a wrong region, a key not reserved, or beyond its base → status 2", () => {
    for (const change of [
      { registerKey: 12345 },
      { registerLength: 1 << 20 },
      { registerLkey: 1 },
      { regionIndex: 0 },
      { registerAccess: ACCESS.REMOTE_WRITE },
      { registerLength: Number.NaN },
    ]) {
      const pair = new Pair();
      const { index, key } = fast(pair);
      pair.write(0, 10);
      const wr = { ...registerChange(pair, index, key), ...change };
      pair.post(1, WR_OPCODE.REG_MR, 0, wr);
      pair.runToRest();
      expect(pair.a.completions()).toEqual(["0 SUCCESS", "1 LOC_QP_OP_ERR"]);
    }
  });

  it("LOCAL_INV of an ordinary region or an unknown key → status 2", () => {
    for (const key of ["own", "none"]) {
      const pair = new Pair();
      pair.post(1, WR_OPCODE.LOCAL_INV, 0, { invalidateKey: key === "own" ? pair.a.key : 77 });
      pair.runToRest();
      expect(pair.a.completions()).toEqual(["1 LOC_QP_OP_ERR"]);
      expect(pair.a.device.regions.isValid(pair.a.region)).toBe(true);
    }
  });

  it("SEND with invalidate closes the peer's region, after the data, before the completion", () => {
    const pair = new Pair();
    const { regions } = pair.a.device;
    const { index, key } = fast(pair);
    pair.post(1, WR_OPCODE.REG_MR, 0, registerChange(pair, index, key));
    pair.runToRest();
    pair.a.completions();
    const receive = new RecvWorkRequest();
    receive.wrId = 5;
    pair.qpA.postRecv(receive);
    const wr = new SendWorkRequest();
    wr.opcode = WR_OPCODE.SEND_WITH_INV;
    wr.invalidateKey = key;
    pair.qpB.postSend(wr);
    pair.runToRest();
    const wc = new WorkCompletion();
    expect(pair.a.cq.poll(wc)).toBe(true);
    expect(wc).toMatchObject({ wrId: 5, invalidatedKey: key, flags: 4 });
    expect(regions.find(key)).toBe(-1);
  });
});

describe("shared receive queues", () => {
  it("several queue pairs take from one; RNR when empty; the limit event comes once", () => {
    const pair = new Pair();
    const srq = pair.b.device.createSrq(pair.b.pd, 4);
    const qps = [0, 1].map((i) => {
      const a = pair.a.createQp();
      const b = pair.b.createQp({ srq, maxRecvWr: 0 });
      const psns = [10 * i, 20 * i + 1];
      connect(pair.a, a, pair.b, b, psns, { rnrRetry: 7 });
      connect(pair.b, b, pair.a, a, [...psns].reverse(), { rnrRetry: 7 });
      return { a, b };
    });
    const receive = new RecvWorkRequest();
    receive.sgeCount = 1;
    receive.sges[0] = { address: pair.b.memory.address, length: 100, lkey: pair.b.key };
    for (let i = 0; i < 3; i++) {
      receive.wrId = i;
      expect(srq.postRecv(receive)).toBe(0);
    }
    expect(qps[0]?.b.postRecv(receive)).toBe(ERRNO.EINVAL);
    srq.armLimit(2);
    const send = new SendWorkRequest();
    send.sendFlags = SIGNALED;
    for (const { a } of qps) for (let i = 0; i < 2; i++) expect(a.postSend(send)).toBe(0);
    pair.run(100_000);
    expect(pair.b.completions()).toHaveLength(3);
    expect(events(pair, 1)).toEqual([DEVICE_EVENT.SRQ_LIMIT_REACHED]);
    expect(srq.postRecv(receive)).toBe(0);
    pair.runToRest();
    expect(pair.b.completions()).toHaveLength(1);
    expect(pair.a.completions()).toHaveLength(4);
    expect(() => pair.b.device.destroySrq(srq)).toThrow("queue pairs use");
    qps[0]?.b.modify({ state: QP_STATE.ERR });
    expect(events(pair, 1)).toEqual([DEVICE_EVENT.QP_LAST_WQE_REACHED]);
  });
});

describe("completion queues", () => {
  it("overflow: the queue is dead, its queue pairs go to ERR, what it holds can be polled", () => {
    const pair = new Pair();
    const cq = pair.a.device.createCq(2);
    const a = pair.a.createQp({ sendCq: cq });
    const b = pair.b.createQp();
    connect(pair.a, a, pair.b, b, START_PSNS);
    connect(pair.b, b, pair.a, a, [...START_PSNS].reverse());
    const wr = new SendWorkRequest();
    wr.opcode = WR_OPCODE.RDMA_WRITE;
    wr.sendFlags = SIGNALED;
    for (let i = 0; i < 3; i++) a.postSend(wr);
    pair.runToRest();
    expect(events(pair, 0)).toEqual([DEVICE_EVENT.CQ_ERR]);
    expect(a.state).toBe(QP_STATE.ERR);
    const wc = new WorkCompletion();
    expect([cq.poll(wc), cq.poll(wc), cq.poll(wc)]).toEqual([true, true, false]);
    expect(() => pair.a.device.destroyCq(cq)).toThrow("use the completion queue");
  });

  it("armed: one call per arming, from pump; solicited only on solicited and errors", () => {
    const pair = new Pair();
    let calls = 0;
    const listener = () => calls++;
    pair.b.cq.arm(true, listener);
    pair.receive(1, 8);
    pair.receive(2, 8);
    pair.send(1, 8);
    pair.runToRest();
    expect(calls).toBe(0);
    pair.send(2, 8, { sendFlags: SEND_FLAG.SOLICITED });
    pair.runToRest();
    expect(calls).toBe(1);
    pair.receive(3, 8);
    pair.send(3, 8, { sendFlags: SEND_FLAG.SOLICITED });
    pair.runToRest();
    expect(calls).toBe(1);
    pair.b.cq.arm(true, listener);
    pair.b.cq.arm(false, listener);
    pair.receive(4, 8);
    pair.send(4, 8);
    pair.runToRest();
    expect(calls).toBe(2);
    pair.b.cq.arm(true, listener);
    pair.receive(5, 8);
    pair.qpB.modify({ state: QP_STATE.ERR });
    pair.runToRest();
    expect(calls).toBe(3);
  });

  it("a listener may post; what it posts leaves in the same turn", () => {
    const pair = new Pair();
    pair.a.cq.arm(false, () => pair.write(2, 8));
    pair.write(1, 8);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS"]);
  });
});

describe("the device's objects", () => {
  it("data before the RTU: COMM_EST in RTR, and the flag", () => {
    const pair = new Pair();
    const a = pair.a.createQp();
    const b = pair.b.createQp();
    connect(pair.a, a, pair.b, b, [1, 2]);
    b.modify({ state: QP_STATE.INIT, pkeyIndex: 0, port: 0, accessFlags: 0 });
    b.modify({
      state: QP_STATE.RTR,
      addressVector: { flow: pair.b.device.flow(0, pair.a.address) },
      destinationQpn: a.qpn,
      pathMtu: 1024,
      rqPsn: 1,
      maxDestRdAtomic: 0,
      minRnrTimer: 1,
    });
    b.postRecv(new RecvWorkRequest());
    a.postSend(new SendWorkRequest());
    expect(b.hasHeardPeer).toBe(false);
    pair.runToRest();
    expect(b.hasHeardPeer).toBe(true);
    expect(events(pair, 1)).toEqual([DEVICE_EVENT.COMM_EST]);
    expect(a.sendCount).toBe(0);
  });

  it("a peer's fault raises the event that names it", () => {
    const pair = new Pair();
    pair.write(1, 8, { rkey: 1 });
    pair.runToRest();
    expect(events(pair, 1)).toEqual([DEVICE_EVENT.QP_ACCESS_ERR]);
  });

  it("bounds are refused by name", () => {
    const pair = new Pair({}, { qpCountMax: 2 });
    const { device } = pair.a;
    expect(() => pair.a.createQp({ maxSendWr: 1 << 20 })).toThrow("at most 16384 requests");
    expect(() => pair.a.createQp({ maxSendSge: 5 })).toThrow("at most 4 entries");
    expect(() => pair.a.createQp({ maxInlineData: 1e6 })).toThrow("inline data");
    expect(() => device.createCq(0)).toThrow("1 to");
    expect(() => device.createSrq(0, 0)).toThrow("1 to");
    expect(() => pair.a.createQp({ type: QP_TYPE.GSI })).toThrow("needs a port");
    pair.a.createQp();
    expect(() => pair.a.createQp()).toThrow("all its 2 queue pairs");
  });

  it("destroying: nothing completes any more, its slot is used again", () => {
    const pair = new Pair({}, { qpCountMax: 1 });
    pair.write(1, 8);
    pair.run(1);
    pair.a.device.destroyQp(pair.qpA);
    pair.runToRest();
    expect(pair.a.completions()).toEqual([]);
    expect(pair.a.device.qpCount).toBe(0);
    expect(pair.write(2, 8)).toBe(ERRNO.EINVAL);
    const next = pair.a.createQp();
    expect(next.qpn).not.toBe(pair.qpA.qpn);
    pair.a.device.checkInvariants();
  });

  it("queue pair numbers are all over the 24 bits, other ones on every device", () => {
    const pair = new Pair();
    const qpns = new Set<number>();
    for (const host of pair.hosts) for (let i = 0; i < 20; i++) qpns.add(host.createQp().qpn);
    expect(qpns.size).toBe(40);
    const spread = [...qpns].filter((qpn) => qpn > 0x800000).length;
    expect(spread).toBeGreaterThan(5);
    expect(spread).toBeLessThan(35);
  });
});

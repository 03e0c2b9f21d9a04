// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { ERRNO } from "../base/index.js";
import {
  ACCESS,
  QP_STATE,
  RecvWorkRequest,
  SEND_FLAG,
  SendWorkRequest,
  WC_STATUS,
  WorkCompletion,
  WR_OPCODE,
} from "../transport/index.js";
import { Context } from "./context.js";
import { errorOf, makeBench, makeDevice, OWN, OWN_V6, PEER, toRts } from "./verbs.fixture.js";

describe("Context", () => {
  it("tells the limits and the ports of its device", () => {
    const { context } = makeBench();
    const limits = context.queryDevice();
    expect(limits).toMatchObject({ maxQp: 32, maxMr: 32, maxSge: 4, physicalPortCount: 2 });
    expect(limits.maxQpWr).toBeGreaterThan(1000);
    expect(context.queryPort(0)).toMatchObject({ activeMtu: 1024, state: "ACTIVE" });
    expect(context.queryPort(1).activeMtu).toBe(4096);
    expect(context.queryGid(1).equals(OWN_V6)).toBe(true);
    expect([context.portOf(OWN), context.portOf(OWN_V6), context.portOf(PEER)]).toEqual([0, 1, -1]);
    const noPort = "EINVAL: there is no port 2: this device has 0 .. 1";
    expect(errorOf(() => context.queryPort(2))).toBe(noPort);
    expect(errorOf(() => context.queryGid(-1))).toMatch(/^EINVAL/);
  });

  it("two on one device → each object in its own; objects of two contexts don't mix", () => {
    const device = makeDevice();
    const one = makeBench(device);
    const two = makeBench(device);
    expect(one.pd.pdIndex).not.toBe(two.pd.pdIndex);
    expect(errorOf(() => one.createQp({ sendCq: two.cq }))).toBe(
      `EINVAL: completion queue ${two.cq.handle} belongs to another context`,
    );
    one.context.close();
    expect(two.mr.isValid).toBe(true);
    two.createQp();
  });

  it("closed → EBADF for whatever is asked of it, closing again does nothing", () => {
    const { context, pd, cq, mr, createQp } = makeBench();
    const qp = createQp();
    context.close();
    context.close();
    const { lkey, rkey, address, length, access, regionIndex } = mr;
    expect([lkey, rkey, address, length, access, regionIndex]).toEqual([0, 0, 0, 0, 0, -1]);
    const wr = new SendWorkRequest();
    for (const run of [
      () => context.allocPd(),
      () => context.createCq({ depth: 1 }),
      () => pd.allocMr(),
      () => cq.requestNotify(false, () => {}),
      () => qp.modifyQp({ state: QP_STATE.INIT }),
      () => qp.queryQp(),
      () => qp.postSend(wr),
      () => qp.postRecv(new RecvWorkRequest()),
    ]) {
      expect(errorOf(run)).toMatch(/^EBADF: .* was closed$/);
    }
    expect(qp.tryPostSend(wr)).toBe(ERRNO.EINVAL);
    qp.destroy();
    pd.dealloc();
  });

  it("handleCountMax → ENOMEM, saying what to do", () => {
    const context = new Context(makeDevice(), { handleCountMax: 2 });
    const pd = context.allocPd();
    context.createCq({ depth: 1 });
    expect(errorOf(() => pd.allocMr())).toMatch(/^ENOMEM: .*all the 2 objects.*handleCountMax$/);
    expect(context.device.regions.count).toBe(0);
  });

  it("using → closes at the end of the block, children first", () => {
    const device = makeDevice();
    {
      using context = new Context(device);
      using pd = context.allocPd();
      using cq = context.createCq({ depth: 4 });
      const sizes = { maxSendWr: 1, maxRecvWr: 1 };
      using qp = pd.createQp({ type: "UD", sendCq: cq, recvCq: cq, ...sizes });
      expect(qp.isOpen && device.qpCount).toBe(1);
    }
    expect(device.qpCount).toBe(0);
  });
});

describe("EBUSY", () => {
  it("names who is in the way", () => {
    const { pd, cq, mr, createQp } = makeBench();
    const qp = createQp();
    expect(errorOf(() => cq.destroy())).toBe(
      `EBUSY: completion queue ${cq.handle} is in use by queue pair ${qp.handle}; close that first`,
    );
    for (let i = 0; i < 4; i++) pd.allocMr();
    const first = `memory region ${mr.handle}, queue pair ${qp.handle}`;
    const names = `${first}, memory region \\d+ and 3 more`;
    expect(errorOf(() => pd.dealloc())).toMatch(new RegExp(names));
    qp.destroy();
    cq.destroy();
    expect(cq.isOpen).toBe(false);
  });
});

describe("making objects", () => {
  it("sizes beyond the limits, wrong kinds and ranges → EINVAL that names them", () => {
    const { context, pd, memory, createQp } = makeBench();
    const refused: [() => unknown, RegExp][] = [
      [
        () => context.createCq({ depth: 0 }),
        /depth of a completion queue must be 1 \.\. \d+, not 0/,
      ],
      [() => context.createCq({ depth: 1.5 }), /not 1.5/],
      [() => createQp({ maxSendWr: 1 << 21 }), /maxSendWr must be 0/],
      [() => createQp({ maxRecvWr: -1 }), /maxRecvWr must be 0/],
      [() => createQp({ maxSendSge: 5 }), /maxSendSge must be 0 .. 4/],
      [() => createQp({ maxInlineData: 1 << 20 }), /maxInlineData/],
      [() => createQp({ type: "UC" as "RC" }), /no queue pair type "UC"/],
      [() => pd.createSrq({ depth: 0 }), /shared receive queue must be 1/],
      [() => pd.createAh({ port: 2, destination: PEER }), /no port 2/],
      [
        () => pd.createAh({ port: 1, destination: PEER }),
        /2001:db8::1 and can't send to 192.0.2.2/,
      ],
      [() => pd.createAh({ port: 0, destination: PEER, trafficClass: 256 }), /trafficClass/],
      [() => pd.registerMr(memory, { offset: 1, length: memory.length }), /inside its memory/],
      [() => pd.registerMr(memory, { access: ACCESS.REMOTE_WRITE }), /local write/],
    ];
    for (const [run, message] of refused) {
      expect(errorOf(run)).toMatch(/^EINVAL/);
      expect(errorOf(run)).toMatch(message);
    }
    const other = context.allocPd();
    const srq = other.createSrq({ depth: 4 });
    expect(errorOf(() => createQp({ srq }))).toMatch(/belongs to protection domain/);
  });

  it("a memory region → the range, rights and keys that were asked for", () => {
    const { pd, memory } = makeBench();
    const mr = pd.registerMr(memory, { offset: 100, length: 50, access: ACCESS.LOCAL_WRITE });
    expect([mr.address, mr.length, mr.access]).toEqual([memory.address + 100, 50, 1]);
    expect(mr.lkey).not.toBe(0);
    expect(mr.rkey).toBe(mr.lkey);
    expect(errorOf(() => mr.freshKey())).toMatch(/^EINVAL: .*has its key for life/);
    const rest = pd.registerMr(memory, { offset: 100 });
    expect(rest.length).toBe(memory.length - 100);
  });

  it("a fast region → opens and closes at once, each time under another key", () => {
    const { pd, mr, memory } = makeBench();
    const fast = pd.allocMr();
    expect([fast.isValid, fast.lkey, fast.isFast]).toEqual([false, 0, true]);
    const key = fast.fastRegister(mr, memory.address + 8, 16, ACCESS.LOCAL_WRITE);
    expect([fast.lkey, fast.address, fast.length]).toEqual([key, memory.address + 8, 16]);
    expect(errorOf(() => fast.fastRegister(mr, memory.address, 8, 0))).toMatch(/^EINVAL/);
    expect([fast.invalidate(), fast.invalidate(), fast.isValid]).toEqual([true, false, false]);
    expect(fast.fastRegister(mr, memory.address, 8, 0)).not.toBe(key);
    fast.invalidate();
    const beyond = () => fast.fastRegister(mr, memory.address + memory.length - 8, 9, 0);
    expect(errorOf(beyond)).toMatch(/^EINVAL/);
  });
});

describe("modifyQp", () => {
  it("a refused move → both states and the attributes, missing and superfluous, by name", () => {
    const { createQp } = makeBench();
    const qp = createQp();
    const refused = errorOf(() => qp.modifyQp({ state: QP_STATE.INIT, port: 0, qkey: 1 }));
    expect(refused).toBe(
      `EINVAL: queue pair ${qp.handle}: RESET to INIT: ` +
        "missing pkeyIndex, accessFlags; superfluous qkey",
    );
    expect(errorOf(() => qp.modifyQp({ state: QP_STATE.RTS }))).toMatch(/from RESET to RTS/);
    expect(qp.stateName).toBe("RESET");
  });

  it("the way up and down; queryQp tells what was set", () => {
    const { createQp } = makeBench();
    const qp = createQp();
    toRts(qp, 1234);
    expect(qp.stateName).toBe("RTS");
    expect(qp.queryQp()).toMatchObject({ destinationQpn: 1234, pathMtu: 1024, timeout: 14 });
    qp.modifyQp({ state: QP_STATE.ERR });
    qp.modifyQp({ state: QP_STATE.RESET });
    expect(qp.state).toBe(QP_STATE.RESET);
  });
});

describe("posting", () => {
  const recv = (sgeCount = 0) => Object.assign(new RecvWorkRequest(), { sgeCount });

  it("a send that can't be valid → EINVAL from both forms, the throwing one says why", () => {
    const { createQp, mr, memory, pd } = makeBench();
    const rc = createQp();
    const ud = createQp({ type: "UD" });
    const none = createQp();
    for (const qp of [rc, ud]) toRts(qp);
    toRts(none, 99, 0);
    const ah = pd.createAh({ port: 0, destination: PEER });
    const v6 = pd.createAh({ port: 1, destination: OWN_V6 });
    const sge = (length: number) => ({ address: memory.address, length, lkey: mr.lkey });
    const wr = (changes: Partial<SendWorkRequest>, ...lengths: number[]) => {
      const request = Object.assign(new SendWorkRequest(), {
        sgeCount: lengths.length,
        ...changes,
      });
      lengths.forEach((length, i) => {
        Object.assign(request.sges[i] ?? {}, sge(length));
      });
      return request;
    };
    const read = { opcode: WR_OPCODE.RDMA_READ };
    const atomic = { opcode: WR_OPCODE.ATOMIC_FETCH_AND_ADD };
    const cases: [typeof rc, SendWorkRequest, RegExp][] = [
      [createQp(), wr({}), /it is in RESET, and sends need RTS/],
      [rc, wr({ opcode: 77 as 0 }), /no opcode 77/],
      [rc, wr({ sendFlags: 256 }), /sendFlags 0x100/],
      [rc, wr({}, 1, 1, 1), /3 scatter\/gather entries, and the queue takes 0 .. 2/],
      [rc, wr({ sgeCount: -1 }), /-1 scatter/],
      [rc, wr({}, -5), /entry 0 has length -5/],
      [rc, wr({}, 0x8000_0000, 1), /longer than 2\^31/],
      [rc, wr(atomic, 9), /returns 8 bytes into one entry, not 9 into 1/],
      [rc, wr(atomic, 4, 4), /8 into 2/],
      [none, wr(read, 8), /RDMA_READ needs an initiator depth/],
      [none, wr(atomic, 8), /ATOMIC_FETCH_AND_ADD needs an initiator depth/],
      [rc, wr({ opcode: WR_OPCODE.LOCAL_INV }, 8), /LOCAL_INV has no scatter/],
      [rc, wr({ opcode: WR_OPCODE.REG_MR }, 8), /REG_MR has no scatter/],
      [rc, wr({ sendFlags: SEND_FLAG.INLINE }, 8), /INLINE data may have 0 bytes here, not 8/],
      [rc, wr({ ...read, sendFlags: SEND_FLAG.INLINE }, 8), /READ has no data/],
      [
        ud,
        wr({ opcode: WR_OPCODE.RDMA_WRITE, destination: ah }, 8),
        /needs a connected queue pair/,
      ],
      [ud, wr({}, 8), /needs a destination/],
      [ud, wr({ destination: v6 }, 8), /another port/],
      [ud, wr({ destination: ah }, 1025), /at most 1024 bytes, not 1025/],
    ];
    for (const [qp, request, message] of cases) {
      expect(qp.tryPostSend(request)).toBe(ERRNO.EINVAL);
      expect(errorOf(() => qp.postSend(request))).toMatch(
        /^EINVAL: queue pair \d+ refused a send: /,
      );
      expect(errorOf(() => qp.postSend(request))).toMatch(message);
      expect(qp.sendCount).toBe(0);
    }
  });

  it("a receive that can't be valid → EINVAL with the reason", () => {
    const { createQp, pd } = makeBench();
    const qp = createQp();
    expect(errorOf(() => qp.postRecv(recv()))).toMatch(/in RESET, and receives need INIT/);
    qp.modifyQp({ state: QP_STATE.INIT, pkeyIndex: 0, port: 0, accessFlags: 0 });
    expect(errorOf(() => qp.postRecv(recv(2)))).toMatch(/2 scatter\/gather entries.*0 .. 1/);
    const srq = pd.createSrq({ depth: 2 });
    expect(errorOf(() => srq.postRecv(recv(2)))).toMatch(/shared receive queue \d+ refused/);
    const shared = createQp({ srq });
    shared.modifyQp({ state: QP_STATE.INIT, pkeyIndex: 0, port: 0, accessFlags: 0 });
    expect(errorOf(() => shared.postRecv(recv()))).toMatch(/receives through shared receive queue/);
  });

  it("full queues → ENOMEM that tells the depth", () => {
    const { createQp, pd } = makeBench();
    const qp = createQp();
    toRts(qp);
    const send = new SendWorkRequest();
    for (let i = 0; i < 4; i++) {
      qp.postSend(send);
      qp.postRecv(recv());
    }
    expect([qp.sendCount, qp.recvCount]).toEqual([4, 4]);
    expect([qp.tryPostSend(send), qp.tryPostRecv(recv())]).toEqual([ERRNO.ENOMEM, ERRNO.ENOMEM]);
    expect(errorOf(() => qp.postSend(send))).toMatch(/^ENOMEM: .* holds 4 requests and is full/);
    expect(errorOf(() => qp.postRecv(recv()))).toMatch(/^ENOMEM: .* holds 4 requests and is full/);
    const srq = pd.createSrq({ depth: 2 });
    srq.postRecv(recv());
    srq.postRecv(recv());
    expect(errorOf(() => srq.postRecv(recv()))).toMatch(/^ENOMEM: .* holds 2 requests/);
    expect([srq.depth, srq.count]).toEqual([2, 2]);
  });
});

describe("CompletionQueue", () => {
  it("pollCq → the oldest first, no more than asked for, into the caller's objects", () => {
    const { createQp, cq } = makeBench();
    const qp = createQp();
    toRts(qp);
    for (let i = 0; i < 4; i++) qp.postRecv(Object.assign(new RecvWorkRequest(), { wrId: i }));
    qp.modifyQp({ state: QP_STATE.ERR });
    expect(cq.count).toBe(4);
    const into = [new WorkCompletion(), new WorkCompletion(), new WorkCompletion()];
    expect(cq.pollCq(into, 1)).toBe(1);
    expect(into[0]).toMatchObject({ wrId: 0, status: WC_STATUS.WR_FLUSH_ERR, qpn: qp.qpn });
    expect(cq.pollCq(into)).toBe(3);
    expect(into.map((wc) => wc.wrId)).toEqual([1, 2, 3]);
    expect(cq.pollCq(into)).toBe(0);
  });

  it("requestNotify → one call, from the device's pump; destroyed → none", () => {
    const { createQp, cq, pump } = makeBench();
    const qp = createQp();
    toRts(qp);
    let calls = 0;
    cq.requestNotify(false, () => calls++);
    pump();
    expect(calls).toBe(0);
    qp.postRecv(new RecvWorkRequest());
    qp.modifyQp({ state: QP_STATE.ERR });
    expect(calls).toBe(0);
    pump();
    pump();
    expect(calls).toBe(1);
    cq.requestNotify(false, () => calls++);
    qp.destroy();
    cq.destroy();
    pump();
    expect(calls).toBe(1);
  });

  it("overflow → the queue pairs go to ERR, and its context hears of it", () => {
    const device = makeDevice();
    const stranger = new Context(device);
    const { context, createQp, pump } = makeBench(device);
    const recvCq = context.createCq({ depth: 1 });
    const qp = createQp({ recvCq });
    const other = createQp({ recvCq });
    for (const each of [qp, other]) toRts(each);
    for (let i = 0; i < 2; i++) qp.postRecv(new RecvWorkRequest());
    qp.modifyQp({ state: QP_STATE.ERR });
    pump();
    expect(recvCq.hasOverflowed).toBe(true);
    expect(other.stateName).toBe("ERR");
    expect(stranger.pollAsyncEvent()).toBeNull();
    const event = context.pollAsyncEvent();
    expect(event?.type).toBe("CQ_ERR");
    expect(event?.object === recvCq).toBe(true);
    expect(context.pollAsyncEvent()?.type).toBeUndefined();
  });

  it("an event of an object that is gone → not told", () => {
    const { context, createQp, pd } = makeBench();
    const srq = pd.createSrq({ depth: 1 });
    const qp = createQp({ srq });
    toRts(qp);
    qp.modifyQp({ state: QP_STATE.ERR });
    const second = createQp({ srq });
    toRts(second);
    second.modifyQp({ state: QP_STATE.ERR });
    qp.destroy();
    const event = context.pollAsyncEvent();
    expect([event?.type, event?.object === second]).toEqual(["QP_LAST_WQE_REACHED", true]);
    expect(context.pollAsyncEvent()).toBeNull();
  });
});

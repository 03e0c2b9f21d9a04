// SPDX-License-Identifier: MIT
import { beforeEach, describe, expect, it } from "vitest";
import { decodeGrh, QKEY_GSI } from "../wire/index.js";
import { DROP_REASON, type DropReason } from "./counters.js";
import { Network } from "./network.fixture.js";
import { QP_STATE, QP_TYPE, type QpType } from "./qp-state.js";
import type { QpCore } from "./queue-pair.js";
import { RecvWorkRequest, SendWorkRequest, WC_FLAG, WorkCompletion } from "./work-request.js";

let network: Network;
let from: QpCore;
let to: QpCore;

function datagramQp(hostIndex: number, type: QpType, qkey: number): QpCore {
  const qp = network.host(hostIndex).createQp({ type, port: 0 });
  qp.modify({ state: QP_STATE.INIT, pkeyIndex: 0, port: 0, qkey });
  qp.modify({ state: QP_STATE.RTR });
  qp.modify({ state: QP_STATE.RTS, sqPsn: 3 });
  return qp;
}

function setUp(addresses = ["10.79.0.2", "10.79.0.3"], type: QpType = QP_TYPE.UD): void {
  network = new Network(addresses, {});
  from = datagramQp(0, type, 0x11111111);
  to = datagramQp(1, type, 0x11111111);
}

function send(length: number, change: Partial<SendWorkRequest> = {}): number {
  const { device, memory, key } = network.host(0);
  const wr = new SendWorkRequest();
  wr.wrId = 1;
  wr.sendFlags = 2;
  wr.sgeCount = 1;
  wr.sges[0] = { address: memory.address, length, lkey: key };
  wr.destination = { flow: device.flow(0, network.host(1).address, 0x6a) };
  wr.remoteQpn = to.qpn;
  wr.remoteQkey = 0x11111111;
  return from.postSend(Object.assign(wr, change));
}

function receive(wrId: number, length: number): void {
  const { memory, key } = network.host(1);
  const wr = new RecvWorkRequest();
  wr.wrId = wrId;
  wr.sgeCount = 1;
  wr.sges[0] = { address: memory.address, length, lkey: key };
  expect(to.postRecv(wr)).toBe(0);
}

function drops(reason: DropReason): number {
  return network.host(1).device.counters.drops[reason] as number;
}

beforeEach(() => setUp());

describe("UD", () => {
  it("ud-ops: DETH, 40 bytes of GRH in front, byte_len = 40 + payload", () => {
    for (let i = 0; i < 3; i++) receive(i, 2048);
    network.host(0).memory.bytes.fill(0x5a, 0, 1024);
    send(0);
    send(5, { opcode: 1, immediate: 0xabcd });
    send(1024);
    network.runToRest();
    expect(network.lines([3, 3])).toEqual([
      "0> UD_SEND_ONLY 0 0",
      "0> UD_SEND_ONLY_IMM 1 5",
      "0> UD_SEND_ONLY 2 1024",
    ]);
    expect(network.host(0).completions()).toEqual(["1 SUCCESS", "1 SUCCESS", "1 SUCCESS"]);
    const wc = new WorkCompletion();
    const { cq, memory } = network.host(1);
    cq.poll(wc);
    expect(wc).toMatchObject({ wrId: 0, byteLength: 40, flags: WC_FLAG.GRH, sourceQpn: from.qpn });
    cq.poll(wc);
    const flags = WC_FLAG.GRH | WC_FLAG.WITH_IMM;
    expect(wc).toMatchObject({ wrId: 1, byteLength: 45, flags, immediate: 0xabcd });
    cq.poll(wc);
    expect(wc).toMatchObject({ wrId: 2, byteLength: 1064, qpn: to.qpn });
    expect(memory.bytes.slice(40, 1064).every((byte) => byte === 0x5a)).toBe(true);
    const grh = decodeGrh(memory.view, 0);
    expect(grh?.source.equals(network.host(0).address)).toBe(true);
    expect(grh?.destination.equals(network.host(1).address)).toBe(true);
  });

  it("IPv6: the GRH is the IPv6 header", () => {
    setUp(["fd00:79::2", "fd00:79::3"]);
    receive(1, 100);
    send(4);
    network.runToRest();
    const { memory } = network.host(1);
    expect((memory.bytes[0] as number) >> 4).toBe(6);
    expect(decodeGrh(memory.view, 0)?.source.equals(network.host(0).address)).toBe(true);
  });

  it("a wrong Q_Key, no receive, a receive too small → dropped, each under its name", () => {
    send(4, { remoteQkey: 5 });
    network.runToRest();
    expect(drops(DROP_REASON.QKEY)).toBe(1);
    send(4);
    network.runToRest();
    expect(drops(DROP_REASON.NO_RECEIVE)).toBe(1);
    receive(7, 43);
    send(4);
    network.runToRest();
    // DEVIATION from rxe, which fails the receive and moves the queue pair to ERR.
    expect(drops(DROP_REASON.RECEIVE_TOO_SMALL)).toBe(1);
    expect(to.state).toBe(QP_STATE.RTS);
    send(3);
    network.runToRest();
    expect(network.host(1).completions()).toEqual(["recv 7 SUCCESS 43"]);
  });

  it("a Q_Key with the top bit set stands for the sender's own", () => {
    receive(1, 100);
    send(4, { remoteQkey: 0x80000000 });
    network.runToRest();
    expect(network.host(1).completions()).toHaveLength(1);
  });

  it("refused when posted: more than the MTU, no destination, other opcodes", () => {
    const { activeMtus } = network.host(0).device;
    expect(send((activeMtus[0] as number) + 1)).toBe(22);
    expect(send(4, { destination: null })).toBe(22);
    expect(send(4, { opcode: 3 })).toBe(22);
  });

  it("a bad own key → status 4 and SQE: sends are flushed, receives go on, RTS again", () => {
    send(4, { sges: [{ address: 0, length: 4, lkey: 1 }] } as never);
    send(4);
    network.runToRest();
    expect(network.host(0).completions()).toEqual(["1 LOC_PROT_ERR", "1 WR_FLUSH_ERR"]);
    expect(from.state).toBe(QP_STATE.SQE);
    send(4);
    expect(network.host(0).completions()).toEqual(["1 WR_FLUSH_ERR"]);
    from.modify({ state: QP_STATE.RTS });
    receive(1, 100);
    send(4);
    network.runToRest();
    expect(network.host(1).completions()).toHaveLength(1);
  });
});

describe("the GSI", () => {
  beforeEach(() => setUp(undefined, QP_TYPE.GSI));

  it("is queue pair 1, one per port, its Q_Key fixed, its packets 256 bytes", () => {
    expect(from.qpn).toBe(1);
    expect(from.qkey).toBe(QKEY_GSI);
    expect(() => network.host(0).createQp({ type: QP_TYPE.GSI, port: 0 })).toThrow("has its GSI");
    expect(send(255)).toBe(22);
    receive(1, 296);
    expect(send(256, { remoteQpn: 1, remoteQkey: QKEY_GSI })).toBe(0);
    network.runToRest();
    expect(network.host(1).completions()).toEqual(["recv 1 SUCCESS 296"]);
  });

  it("a packet of another size is dropped", () => {
    const other = datagramQp(0, QP_TYPE.UD, 1);
    const gsi = from;
    from = other;
    receive(1, 400);
    send(255, { remoteQpn: 1, remoteQkey: 0x80000000 });
    other.qkey = QKEY_GSI;
    network.runToRest();
    expect(drops(DROP_REASON.LENGTH)).toBe(1);
    from = gsi;
  });
});

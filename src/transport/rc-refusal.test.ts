// SPDX-License-Identifier: MIT
// What an RC queue pair refuses, from a peer that errs and from one that lies: the NAK that it
// answers with, the completions on both sides, and that no byte moved which was not allowed to.

import { beforeEach, describe, expect, it } from "vitest";
import { RC, SYNDROME, writeReth } from "../wire/index.js";
import { DROP_REASON, type DropReason } from "./counters.js";
import { firstDifference, Pair } from "./network.fixture.js";
import { QP_STATE } from "./qp-state.js";
import { ACCESS, WR_OPCODE } from "./work-request.js";

let pair: Pair;
let before: Uint8Array;

beforeEach(() => {
  pair = new Pair();
  before = pair.b.memory.bytes.slice();
});

/** Gives B a forged request from A and returns what B answers. */
function give(...packets: Uint8Array[]): string[] {
  for (const packet of packets) pair.inject(0, 1, packet);
  pair.b.device.pump(pair.nowNs, pair.b.tx);
  const lines: string[] = [];
  const { tx } = pair.b;
  for (let message = 0; message < tx.messageCount; message++) {
    const step = tx.segmentLengths[message] as number;
    let at = tx.offsets[message] as number;
    for (const end = at + (tx.lengths[message] as number); at < end; at += step) {
      const syndrome = tx.bytes[at + 12] as number;
      lines.push(`${(tx.bytes[at] as number).toString(16)} ${syndrome.toString(16)}`);
    }
  }
  tx.reset();
  pair.b.device.checkInvariants();
  return lines;
}

function expectUntouched(): void {
  expect(firstDifference(pair.b.memory.bytes, before)).toBe(-1);
}

function drops(reason: DropReason): number {
  return pair.b.device.counters.drops[reason] as number;
}

const NAK_INVALID = "11 61";
const NAK_ACCESS = "11 62";

/** A RETH for B's memory. */
function reth(length: number, remote = 0, key = pair.b.key): (view: DataView, at: number) => void {
  const address = pair.b.memory.address + remote;
  return (view, at) =>
    writeReth(view, at, Math.floor(address / 0x1_0000_0000), address >>> 0, key, length);
}

describe("RC responder: a request that breaks a rule → NAK, ERR, nothing written", () => {
  it("err-remote-access-write: a bad key; the one before completes, the next is flushed", () => {
    pair.write(1, 16);
    pair.write(2, 3000, { rkey: pair.b.key ^ 1, remote: 4096 });
    pair.write(3, 16, { remote: 8192 });
    pair.receive(9, 10);
    pair.runToRest();
    expect(pair.conversation().slice(-2)).toEqual(["1> ACKNOWLEDGE 0", "1> ACKNOWLEDGE 1 nak 62"]);
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 REM_ACCESS_ERR", "3 WR_FLUSH_ERR"]);
    expect(pair.b.completions()).toEqual(["recv 9 WR_FLUSH_ERR"]);
    expect(pair.qpA.state).toBe(QP_STATE.ERR);
    expect(pair.qpB.state).toBe(QP_STATE.ERR);
    expect(firstDifference(pair.b.memory.bytes.slice(4096), before.slice(4096))).toBe(-1);
  });

  it("err-remote-access-oob: across the end of the region", () => {
    pair.write(1, 16, { remote: (1 << 20) - 8 });
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 REM_ACCESS_ERR"]);
    expectUntouched();
  });

  it("an address far outside, and one that wraps around 2^64", () => {
    pair.write(1, 16, { remoteAddressHigh: 0xffffffff, remoteAddressLow: 0xfffffff8 });
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 REM_ACCESS_ERR"]);
    expectUntouched();
  });

  it("err-remote-access-read: a bad key → NAK 0x62 as a plain acknowledge", () => {
    pair.read(1, 16, { rkey: 1 });
    pair.runToRest();
    expect(pair.conversation()).toEqual(["0> READ_REQUEST 0 !", "1> ACKNOWLEDGE 0 nak 62"]);
  });

  it("rights of the region: a key for reading can't write, nor the reverse, nor an atomic", () => {
    const { regions } = pair.b.device;
    const open = (access: number): number =>
      regions.keyOf(regions.register(pair.b.pd, pair.b.memory, 0, 4096, access));
    const readable = open(ACCESS.REMOTE_READ);
    const writable = open(ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE);
    expect(give(pair.forge(0, RC.WRITE_ONLY, 0, 4, reth(4, 0, readable)))).toEqual([NAK_ACCESS]);
    pair = new Pair();
    pair.read(1, 4, { rkey: writable });
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 REM_ACCESS_ERR"]);
  });

  it("a key of another protection domain is no key", () => {
    const { regions } = pair.b.device;
    const all = ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE;
    const foreign = regions.register(pair.b.device.allocatePd(), pair.b.memory, 0, 4096, all);
    pair.write(1, 4, { rkey: regions.keyOf(foreign) });
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 REM_ACCESS_ERR"]);
    expectUntouched();
  });

  it("err-inv-request-no-atomic-perm: not enabled on the queue pair → NAK 0x61", () => {
    pair = new Pair({ accessFlags: ACCESS.REMOTE_WRITE });
    pair.write(1, 8);
    pair.fetchAdd(2, 1);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 REM_INV_REQ_ERR"]);
  });

  it("err-read-no-resources: zero responder resources → NAK 0x61", () => {
    pair = new Pair({ maxDestRdAtomic: 0 });
    pair.read(1, 8);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 REM_INV_REQ_ERR"]);
  });

  it("more READs at once than there are resources → NAK 0x61", () => {
    pair = new Pair({ maxDestRdAtomic: 1 });
    const request = (psn: number) => pair.forge(0, RC.READ_REQUEST, psn, 0, reth(1024));
    const answers = give(request(0), request(1));
    expect(answers).toEqual(["10 1f", NAK_INVALID]);
  });

  it("a READ more while an answer is being repeated → the repeat is dropped, no NAK", () => {
    pair = new Pair({ maxDestRdAtomic: 1 });
    const request = (psn: number) => pair.forge(0, RC.READ_REQUEST, psn, 0, reth(1024));
    expect(give(request(0))).toEqual(["10 1f"]);
    // The peer asked again, then had the first answer after all, and goes on.
    expect(give(request(0), request(1))).toEqual(["10 1f"]);
    expect(give(request(2))).toEqual(["10 1f"]);
  });

  it("a misaligned atomic → NAK 0x61", () => {
    pair.fetchAdd(1, 1, 65);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 REM_INV_REQ_ERR"]);
    expectUntouched();
  });

  it("err-inv-request-recv-too-small: NAK 0x61, and status 1 at the receiver", () => {
    pair.receive(8, 64);
    pair.receive(9, 64);
    pair.send(1, 64);
    pair.send(2, 65);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 REM_INV_REQ_ERR"]);
    expect(pair.b.completions()).toEqual(["recv 8 SUCCESS 64", "recv 9 LOC_LEN_ERR"]);
  });

  it("a receive whose own key is bad → NAK 0x63, and status 4 at the receiver", () => {
    pair.receive(8, 64);
    pair.b.device.regions.deregister(pair.b.region);
    pair.send(1, 64);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 REM_OP_ERR"]);
    expect(pair.b.completions()).toEqual(["recv 8 LOC_PROT_ERR"]);
  });

  it("err-sendinv-bad-rkey: NAK 0x62 (rxe acknowledges and goes to ERR)", () => {
    pair.receive(8, 64);
    pair.post(1, WR_OPCODE.SEND_WITH_INV, 10, { invalidateKey: 0x1234 });
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 REM_ACCESS_ERR"]);
    expect(pair.b.completions()).toEqual(["recv 8 REM_INV_REQ_ERR"]);
    expect(pair.qpB.state).toBe(QP_STATE.ERR);
  });

  it("an ordinary region can't be invalidated by the peer", () => {
    pair.receive(8, 64);
    pair.post(1, WR_OPCODE.SEND_WITH_INV, 10, { invalidateKey: pair.b.key });
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 REM_ACCESS_ERR"]);
    expect(pair.b.device.regions.find(pair.b.key)).toBe(pair.b.region);
  });

  it("behind a refused request nothing is executed, though it comes in the same burst", () => {
    const bad = pair.forge(0, RC.WRITE_ONLY, 0, 4, reth(4, 0, 1));
    const good = pair.forge(0, RC.WRITE_ONLY, 0, 4, reth(4));
    expect(give(bad, good)).toEqual([NAK_ACCESS]);
    expectUntouched();
    expect(pair.qpB.state).toBe(QP_STATE.ERR);
  });

  it("a region taken away in the middle of a WRITE → NAK 0x62 at the next packet", () => {
    const first = pair.forge(0, RC.WRITE_FIRST, 0, 1024 + 0, reth(2048), false);
    expect(give(first)).toEqual([]);
    pair.b.device.regions.deregister(pair.b.region);
    const written = pair.b.memory.bytes.slice();
    expect(give(pair.forge(0, RC.WRITE_LAST, 1, 1024))).toEqual([NAK_ACCESS]);
    expect(firstDifference(pair.b.memory.bytes, written)).toBe(-1);
  });

  it("a region taken away while a READ of it is answered → NAK 0x62", () => {
    pair.inject(0, 1, pair.forge(0, RC.READ_REQUEST, 0, 0, reth(2048)));
    pair.b.device.regions.deregister(pair.b.region);
    expect(give()).toEqual([NAK_ACCESS]);
  });
});

describe("RC responder: opcode sequence and sizes → NAK 0x61", () => {
  const cases: [string, () => Uint8Array[]][] = [
    ["SEND MIDDLE outside a message", () => [pair.forge(0, RC.SEND_MIDDLE, 0, 1024)]],
    ["SEND LAST outside a message", () => [pair.forge(0, RC.SEND_LAST, 0, 4)]],
    ["WRITE MIDDLE outside a message", () => [pair.forge(0, RC.WRITE_MIDDLE, 0, 1024)]],
    ["WRITE LAST outside a message", () => [pair.forge(0, RC.WRITE_LAST, 0, 4)]],
    ["SEND FIRST shorter than the MTU", () => [pair.forge(0, RC.SEND_FIRST, 0, 100)]],
    ["SEND ONLY longer than the MTU", () => [pair.forge(0, RC.SEND_ONLY, 0, 1400)]],
    ["WRITE ONLY longer than the MTU", () => [pair.forge(0, RC.WRITE_ONLY, 0, 1028, reth(1028))]],
    ["WRITE ONLY shorter than its RETH", () => [pair.forge(0, RC.WRITE_ONLY, 0, 8, reth(12))]],
    ["WRITE ONLY longer than its RETH", () => [pair.forge(0, RC.WRITE_ONLY, 0, 8, reth(4))]],
    [
      "WRITE FIRST with a RETH of one MTU",
      () => [pair.forge(0, RC.WRITE_FIRST, 0, 1024, reth(1024))],
    ],
    ["a length above 2^31", () => [pair.forge(0, RC.WRITE_FIRST, 0, 1024, reth(0x80000001))]],
    ["a READ of more than 2^31", () => [pair.forge(0, RC.READ_REQUEST, 0, 0, reth(0xffffffff))]],
  ];
  for (const [name, packets] of cases) {
    it(name, () => {
      pair.receive(1, 4096);
      expect(give(...packets())).toEqual([NAK_INVALID]);
      expectUntouched();
      expect(pair.qpB.state).toBe(QP_STATE.ERR);
    });
  }

  const inside: [string, () => Uint8Array][] = [
    ["WRITE LAST longer than what is left", () => pair.forge(0, RC.WRITE_LAST, 1, 904 + 4)],
    ["WRITE LAST shorter than what is left", () => pair.forge(0, RC.WRITE_LAST, 1, 4)],
    ["WRITE MIDDLE where only a LAST fits", () => pair.forge(0, RC.WRITE_MIDDLE, 1, 1024)],
    ["a SEND inside a WRITE", () => pair.forge(0, RC.SEND_ONLY, 1, 4)],
    ["a SEND LAST inside a WRITE", () => pair.forge(0, RC.SEND_LAST, 1, 4)],
    ["a new WRITE inside a WRITE", () => pair.forge(0, RC.WRITE_ONLY, 1, 4, reth(4))],
    ["a READ inside a WRITE", () => pair.forge(0, RC.READ_REQUEST, 1, 0, reth(4))],
    ["an atomic inside a WRITE", () => pair.forge(0, RC.FETCH_ADD, 1, 0)],
    ["an empty LAST", () => pair.forge(0, RC.WRITE_LAST, 1, 0)],
  ];
  for (const [name, packet] of inside) {
    it(`inside a WRITE of 1928 bytes: ${name}`, () => {
      pair.receive(1, 4096);
      give(pair.forge(0, RC.WRITE_FIRST, 0, 1024, reth(1928), false));
      const written = pair.b.memory.bytes.slice();
      expect(give(packet())).toEqual([NAK_INVALID]);
      expect(firstDifference(pair.b.memory.bytes, written)).toBe(-1);
    });
  }

  it("inside a SEND: a WRITE → NAK 0x61, the receive is flushed", () => {
    pair.receive(1, 4096);
    give(pair.forge(0, RC.SEND_FIRST, 0, 1024));
    expect(give(pair.forge(0, RC.WRITE_LAST, 1, 4))).toEqual([NAK_INVALID]);
    expect(pair.b.completions()).toEqual(["recv 1 WR_FLUSH_ERR"]);
  });
});

describe("packets that are dropped in silence, each under its own name", () => {
  const alter = (change: (view: DataView) => void, seal = true): Uint8Array => {
    const bytes = pair.forge(0, RC.WRITE_ONLY, 0, 4, reth(4));
    change(new DataView(bytes.buffer));
    if (seal) pair.seal(0, bytes);
    return bytes;
  };
  const cases: [string, DropReason, () => Uint8Array][] = [
    ["15 bytes", DROP_REASON.TOO_SHORT, () => alter(() => {}).slice(0, 15)],
    ["a wrong ICRC", DROP_REASON.ICRC, () => alter((v) => v.setUint8(33, 0), false)],
    ["transport version 1", DROP_REASON.TRANSPORT_VERSION, () => alter((v) => v.setUint8(1, 1))],
    ["an unknown opcode", DROP_REASON.OPCODE, () => alter((v) => v.setUint8(0, 0x15))],
    ["headers cut off", DROP_REASON.LENGTH, () => alter(() => {}).slice(0, 24)],
    [
      "an unknown QPN",
      DROP_REASON.QPN,
      () => alter((v) => v.setUint16(6, 0xbeef ^ v.getUint16(6))),
    ],
    ["QPN 0", DROP_REASON.QPN, () => alter((v) => v.setUint32(4, 0))],
    ["the GSI, where there is none", DROP_REASON.QPN, () => alter((v) => v.setUint32(4, 1))],
    ["a UC opcode", DROP_REASON.QP_TYPE, () => alter((v) => v.setUint8(0, 0x2a))],
    ["a UD opcode", DROP_REASON.QP_TYPE, () => alter((v) => v.setUint8(0, 0x64))],
    ["P_Key 0x8001", DROP_REASON.PKEY, () => alter((v) => v.setUint16(2, 0x8001))],
  ];
  for (const [name, reason, packet] of cases) {
    it(name, () => {
      expect(give(packet())).toEqual([]);
      expect(drops(reason)).toBe(1);
      expect(pair.b.device.counters.dropsTotal).toBe(1);
      expectUntouched();
    });
  }

  it("another sender's address, its ICRC right", () => {
    const other = new Pair({}, {}, {}, ["10.79.0.9", "10.79.0.3"]);
    const bytes = pair.forge(0, RC.WRITE_ONLY, 0, 4, reth(4));
    other.seal(0, bytes);
    Object.assign(pair.host(0), { address: other.a.address });
    expect(give(bytes)).toEqual([]);
    expect(drops(DROP_REASON.ADDRESS)).toBe(1);
    expectUntouched();
  });

  it("what is not checked: migration bit, congestion bits, P_Key 0x7FFF, pad bytes", () => {
    const odd = [
      alter((v) => v.setUint8(1, v.getUint8(1) | 0x40)),
      alter((v) => v.setUint8(4, 0xff)),
      alter((v) => v.setUint16(2, 0x7fff)),
    ];
    for (const [i, bytes] of odd.entries()) {
      const view = new DataView(bytes.buffer);
      view.setUint32(8, (view.getUint32(8) + i) >>> 0);
      pair.seal(0, bytes);
    }
    expect(give(...odd)).toEqual(["11 1f"]);
    expect(pair.b.device.counters.dropsTotal).toBe(0);
  });

  it("in RESET, INIT and ERR requests find nobody; in INIT receives wait", () => {
    pair.qpB.modify({ state: QP_STATE.ERR });
    expect(give(pair.forge(0, RC.WRITE_ONLY, 0, 4, reth(4)))).toEqual([]);
    pair.qpB.modify({ state: QP_STATE.RESET });
    expect(give(pair.forge(0, RC.WRITE_ONLY, 0, 4, reth(4)))).toEqual([]);
    pair.qpB.modify({ state: QP_STATE.INIT, pkeyIndex: 0, port: 0, accessFlags: 15 });
    expect(give(pair.forge(0, RC.WRITE_ONLY, 0, 4, reth(4)))).toEqual([]);
    expect(drops(DROP_REASON.QP_STATE)).toBe(3);
    expect(pair.receive(1, 10)).toBe(0);
    expectUntouched();
  });
});

describe("RC responder: duplicates and gaps", () => {
  it("expected + 2 and + 3 → one NAK; the expected → ACK", () => {
    const write = (psn: number) => pair.forge(0, RC.WRITE_ONLY, psn, 4, reth(4));
    expect(give(write(2))).toEqual(["11 60"]);
    expect(give(write(3))).toEqual([]);
    expect(give(write(0))).toEqual(["11 1f"]);
    expect(give(write(2))).toEqual(["11 60"]);
  });

  it("expected + 2^23 - 1 is the future, expected + 2^23 the past", () => {
    const write = (psn: number) => pair.forge(0, RC.WRITE_ONLY, psn, 4, reth(4));
    expect(give(write(0x7fffff))).toEqual(["11 60"]);
    expect(give(write(0x800000))).toEqual(["11 1f", "11 60"].slice(0, 1));
    expect(pair.b.device.counters.duplicateRequests).toBe(1);
  });

  it("no AckReq: executed in silence", () => {
    const quiet = pair.forge(0, RC.WRITE_ONLY, 0, 4, reth(4), false);
    expect(give(quiet)).toEqual([]);
    expect(pair.b.memory.bytes.slice(0, 4)).not.toEqual(before.slice(0, 4));
  });

  it("a READ repeated in part, under a wrong key, and after it is gone", () => {
    const read = (psn: number, length: number, remote: number, key = pair.b.key) =>
      pair.forge(0, RC.READ_REQUEST, psn, 0, reth(length, remote, key));
    // A MIDDLE has no AETH: the byte at its place is payload.
    const middle = `e ${(before[1024] as number).toString(16)}`;
    expect(give(read(0, 2500, 0))).toEqual(["d 1f", middle, "f 1f"]);
    expect(give(read(1, 1476, 1024)).length).toBe(2);
    expect(give(read(1, 100, 1024)).length).toBe(1);
    expect(give(read(1, 100, 1024, 1))).toEqual([]);
    expect(give(read(1, 3000, 1024))).toEqual([]);
    expect(give(read(1, 100, 4096))).toEqual([]);
    expect(give(read(1, 100, -64))).toEqual([]);
    for (let i = 0; i < 4; i++) give(read(3 + i, 4, 0));
    expect(give(read(0, 2500, 0))).toEqual([]);
    expect(drops(DROP_REASON.DUPLICATE_UNSAVED)).toBe(5);
  });

  it("a READ repeated from before its own address, inside the region → silence", () => {
    const read = (remote: number) => pair.forge(0, RC.READ_REQUEST, 0, 0, reth(100, remote));
    expect(give(read(4096))).toEqual(["10 1f"]);
    expect(give(read(4095))).toEqual([]);
    expect(give(read(4096))).toEqual(["10 1f"]);
  });

  it("a READ repeated while it is answered starts over, in its place in the order", () => {
    const request = pair.forge(0, RC.READ_REQUEST, 0, 0, reth(2048));
    const second = pair.forge(0, RC.READ_REQUEST, 2, 0, reth(1024));
    const opcodes = give(request, second, request, second).map((line) => line.split(" ")[0]);
    expect(opcodes).toEqual(["d", "f", "10"]);
  });
});

describe("RC requester: responses that don't fit", () => {
  const answer = (...packets: Uint8Array[]): void => {
    for (const packet of packets) pair.inject(1, 0, packet);
  };
  const aeth = (syndrome: number) => (view: DataView, at: number) =>
    view.setUint32(at, (syndrome << 24) >>> 0);

  it("a READ response with too few bytes → status 7, ERR", () => {
    pair.read(1, 100);
    pair.a.device.pump(pair.nowNs, pair.a.tx);
    answer(pair.forge(1, RC.READ_RESPONSE_ONLY, 0, 96, aeth(SYNDROME.ACK_UNLIMITED)));
    expect(pair.a.completions()).toEqual(["1 BAD_RESP_ERR"]);
  });

  it("a READ response that ends too early → status 7", () => {
    pair.read(1, 3000);
    pair.a.device.pump(pair.nowNs, pair.a.tx);
    answer(pair.forge(1, RC.READ_RESPONSE_LAST, 0, 1024, aeth(SYNDROME.ACK_UNLIMITED)));
    expect(pair.a.completions()).toEqual(["1 BAD_RESP_ERR"]);
  });

  it("an atomic ACK for a READ, a READ response for a WRITE → status 7", () => {
    pair.read(1, 100);
    pair.a.device.pump(pair.nowNs, pair.a.tx);
    answer(pair.forge(1, RC.ATOMIC_ACKNOWLEDGE, 0, 0, aeth(SYNDROME.ACK_UNLIMITED)));
    expect(pair.a.completions()).toEqual(["1 BAD_RESP_ERR"]);
    pair = new Pair();
    pair.write(1, 100);
    pair.a.device.pump(pair.nowNs, pair.a.tx);
    answer(pair.forge(1, RC.READ_RESPONSE_ONLY, 0, 100, aeth(SYNDROME.ACK_UNLIMITED)));
    expect(pair.a.completions()).toEqual(["1 BAD_RESP_ERR"]);
  });

  it("a reserved syndrome → status 7", () => {
    pair.write(1, 100);
    pair.a.device.pump(pair.nowNs, pair.a.tx);
    answer(pair.forge(1, RC.ACKNOWLEDGE, 0, 0, aeth(0x5f)));
    expect(pair.a.completions()).toEqual(["1 BAD_RESP_ERR"]);
  });

  it("an ACK of what was never sent, and of what is long acknowledged → dropped", () => {
    pair.write(1, 100);
    pair.a.device.pump(pair.nowNs, pair.a.tx);
    answer(pair.forge(1, RC.ACKNOWLEDGE, 1, 0, aeth(SYNDROME.ACK_UNLIMITED)));
    answer(pair.forge(1, RC.ACKNOWLEDGE, -1, 0, aeth(SYNDROME.ACK_UNLIMITED)));
    expect(pair.a.completions()).toEqual([]);
    expect(pair.a.device.counters.drops[DROP_REASON.RESPONSE_UNSENT]).toBe(1);
    expect(pair.a.device.counters.drops[DROP_REASON.RESPONSE_STALE]).toBe(1);
  });

  it("rxe answers a repeated READ with a lone LAST: taken", () => {
    pair.lose(4);
    pair.read(1, 3000);
    pair.run(20_001);
    pair.fate = () => ({ drop: true });
    pair.run(200_000_000);
    const fill = (view: DataView, at: number) => aeth(SYNDROME.ACK_UNLIMITED)(view, at);
    answer(pair.forge(1, RC.READ_RESPONSE_LAST, 2, 952, fill));
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
  });

  it("the memory that a READ is to fill goes away → status 4", () => {
    pair.read(1, 3000);
    pair.a.device.pump(pair.nowNs, pair.a.tx);
    pair.a.device.regions.deregister(pair.a.region);
    answer(pair.forge(1, RC.READ_RESPONSE_FIRST, 0, 1024, aeth(SYNDROME.ACK_UNLIMITED)));
    expect(pair.a.completions()).toEqual(["1 LOC_PROT_ERR"]);
  });
});

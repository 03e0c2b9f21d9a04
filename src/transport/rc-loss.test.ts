// SPDX-License-Identifier: MIT
// RC under loss, reordering and duplication: the cases of the captures of the same names. The exact
// list of packets is the assertion; where farpage differs from rxe the test says how.

import { describe, expect, it } from "vitest";
import { RC } from "../wire/index.js";
import { DROP_REASON } from "./counters.js";
import { Pair } from "./network.fixture.js";
import { QP_STATE } from "./qp-state.js";
import { WR_OPCODE } from "./work-request.js";

const MILLISECOND = 1_000_000;

/** The first and the last time at which host 0 sent, since the start, in milliseconds. */
function sendingTimes(pair: Pair): number[] {
  return pair.log
    .filter((packet) => packet.from === 0)
    .map((packet) => (packet.sentNs - 1_000_000_000) / MILLISECOND);
}

describe("RC, packets lost", () => {
  it("loss-write-middle: a gap → one NAK with the expected PSN, go-back-N from there", () => {
    const pair = new Pair();
    pair.lose(3);
    pair.write(1, 5000);
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> WRITE_FIRST 0 1024",
      "0> WRITE_MIDDLE 1 1024",
      "0> WRITE_MIDDLE 2 1024",
      "0> WRITE_MIDDLE 3 1024",
      "0> WRITE_LAST 4 904 !",
      "1> ACKNOWLEDGE 2 nak 60",
      "0> WRITE_MIDDLE 2 1024",
      "0> WRITE_MIDDLE 3 1024",
      "0> WRITE_LAST 4 904 !",
      "1> ACKNOWLEDGE 4",
    ]);
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
    expect(pair.b.memory.bytes.slice(0, 5000)).toEqual(pair.a.memory.bytes.slice(0, 5000));
  });

  it("loss-write-last: only the timer recovers; duplicates are acknowledged once", () => {
    const pair = new Pair();
    pair.lose(3);
    pair.write(1, 2500);
    pair.runToRest();
    expect(sendingTimes(pair)[3]).toBeCloseTo(134.217728, 5);
    expect(pair.conversation()).toEqual([
      "0> WRITE_FIRST 0 1024",
      "0> WRITE_MIDDLE 1 1024",
      "0> WRITE_LAST 2 452 !",
      "0> WRITE_FIRST 0 1024",
      // The window is at its floor now, so that every other packet asks for an ACK.
      "0> WRITE_MIDDLE 1 1024 !",
      "0> WRITE_LAST 2 452 !",
      "1> ACKNOWLEDGE 2",
    ]);
    expect(pair.b.device.counters.duplicateRequests).toBe(2);
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
  });

  it("loss-send-only-x2: two timeouts, then success; executed once", () => {
    const pair = new Pair();
    pair.lose(1, 2);
    pair.receive(7, 100);
    pair.send(1, 32);
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> SEND_ONLY 0 32 !",
      "0> SEND_ONLY 0 32 !",
      "0> SEND_ONLY 0 32 !",
      "1> ACKNOWLEDGE 0",
    ]);
    expect(pair.b.completions()).toEqual(["recv 7 SUCCESS 32"]);
  });

  it("loss-ack: repeated requests are acknowledged and not executed again", () => {
    const pair = new Pair();
    pair.receive(7, 100);
    pair.receive(8, 100);
    pair.lose(5);
    pair.write(1, 2000);
    pair.write(2, 16, { remote: 4096 });
    pair.send(3, 16);
    pair.run(MILLISECOND);
    // A second execution would undo this.
    pair.b.memory.bytes.fill(0xee, 0, 2000);
    pair.runToRest();
    const conversation = pair.conversation();
    expect(conversation.slice(4)).toEqual(["1> ACKNOWLEDGE 3", ...conversation.slice(0, 5)]);
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS", "3 SUCCESS"]);
    expect(pair.b.completions()).toEqual(["recv 7 SUCCESS 16"]);
    expect(pair.b.memory.bytes.slice(0, 2000).every((byte) => byte === 0xee)).toBe(true);
  });

  it("loss-nak: a gap is NAKed once; after the NAK is lost only the timer recovers", () => {
    const pair = new Pair();
    pair.lose(2, 7);
    pair.write(1, 5000);
    pair.write(2, 100);
    pair.runToRest();
    expect(pair.conversation().filter((line) => line.startsWith("1>"))).toEqual([
      "1> ACKNOWLEDGE 1 nak 60",
      "1> ACKNOWLEDGE 5",
    ]);
    expect(pair.a.device.counters.timeouts).toBe(1);
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS"]);
  });

  it("a repeated NAK changes nothing; one after a timeout is news and goes back", () => {
    const pair = new Pair();
    // The third packet, its repetition after the NAK, and its repetition after the timeout.
    pair.lose(3, 7, 10);
    pair.write(1, 5000);
    pair.run(30_000);
    pair.inject(1, 0, forgeAck(pair, 2, 0x60));
    pair.run(1_000_000);
    expect(pair.a.device.counters.drops[DROP_REASON.NAK_REPEATED]).toBe(1);
    pair.run(134_000_000);
    expect(pair.a.device.counters.timeouts).toBe(1);
    pair.inject(1, 0, forgeAck(pair, 2, 0x60));
    pair.run(100_000);
    expect(pair.a.device.counters.drops[DROP_REASON.NAK_REPEATED]).toBe(1);
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
  });

  it("loss-read-request: a gap in front of a WRITE → NAK, READ and WRITE again", () => {
    const pair = new Pair();
    pair.lose(2);
    pair.write(1, 100);
    pair.read(2, 2000, { offset: 8192 });
    pair.write(3, 10);
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> WRITE_ONLY 0 100 !",
      "0> READ_REQUEST 1 !",
      "0> WRITE_ONLY 3 10 !",
      "1> ACKNOWLEDGE 0",
      "1> ACKNOWLEDGE 1 nak 60",
      "0> READ_REQUEST 1 !",
      "0> WRITE_ONLY 3 10 !",
      "1> READ_RESPONSE_FIRST 1 1024",
      "1> READ_RESPONSE_LAST 2 976",
      "1> ACKNOWLEDGE 3",
    ]);
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS", "3 SUCCESS"]);
  });

  it("loss-read-resp-first: a later response shows it → the whole READ again at once", () => {
    const pair = new Pair();
    pair.lose(2);
    pair.read(1, 3000);
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> READ_REQUEST 0 !",
      "1> READ_RESPONSE_FIRST 0 1024",
      "1> READ_RESPONSE_MIDDLE 1 1024",
      "1> READ_RESPONSE_LAST 2 952",
      "0> READ_REQUEST 0 !",
      "1> READ_RESPONSE_FIRST 0 1024",
      "1> READ_RESPONSE_MIDDLE 1 1024",
      "1> READ_RESPONSE_LAST 2 952",
    ]);
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
    expect(pair.a.device.counters.impliedNaks).toBe(1);
  });

  it("loss-read-resp-last: a later ACK reveals it; only what is missing is asked for", () => {
    const pair = new Pair();
    pair.lose(5);
    pair.read(1, 3000);
    pair.write(2, 10);
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> READ_REQUEST 0 !",
      "0> WRITE_ONLY 3 10 !",
      "1> READ_RESPONSE_FIRST 0 1024",
      "1> READ_RESPONSE_MIDDLE 1 1024",
      "1> READ_RESPONSE_LAST 2 952",
      "1> ACKNOWLEDGE 3",
      "0> READ_REQUEST 2 !",
      "0> WRITE_ONLY 3 10 !",
      // rxe answers with a lone LAST; both are legal.
      "1> READ_RESPONSE_ONLY 2 952",
      "1> ACKNOWLEDGE 3",
    ]);
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS"]);
    expect(pair.a.memory.bytes.slice(0, 3000)).toEqual(pair.b.memory.bytes.slice(0, 3000));
  });

  it("loss-atomic-ack: a repeated atomic is answered from the saved result", () => {
    const pair = new Pair();
    pair.b.memory.view.setBigUint64(64, 100n, true);
    pair.lose(3);
    pair.fetchAdd(1, 7);
    pair.fetchAdd(2, 7);
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> FETCH_ADD 0 !",
      "0> FETCH_ADD 1 !",
      "1> ATOMIC_ACKNOWLEDGE 0",
      "1> ATOMIC_ACKNOWLEDGE 1",
      "0> FETCH_ADD 0 !",
      "0> FETCH_ADD 1 !",
      "1> ATOMIC_ACKNOWLEDGE 0",
      "1> ATOMIC_ACKNOWLEDGE 1",
    ]);
    expect(pair.b.memory.view.getBigUint64(64, true)).toBe(114n);
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS"]);
  });

  it("reorder-write-middle: the late original is a duplicate", () => {
    const pair = new Pair();
    pair.fate = (packet) => (packet.number === 3 ? { delayNs: 15 * MILLISECOND } : null);
    pair.write(1, 5000);
    pair.runToRest();
    expect(pair.conversation().slice(5)).toEqual([
      "1> ACKNOWLEDGE 2 nak 60",
      "0> WRITE_MIDDLE 2 1024",
      "0> WRITE_MIDDLE 3 1024",
      "0> WRITE_LAST 4 904 !",
      "1> ACKNOWLEDGE 4",
      "1> ACKNOWLEDGE 4",
    ]);
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
  });

  it("duplicate-all: every request twice → executed once, completed once", () => {
    const pair = new Pair();
    pair.b.memory.view.setBigUint64(64, 100n, true);
    pair.fate = (packet) => (packet.from === 0 ? { duplicate: true } : null);
    pair.receive(7, 100, 4096);
    pair.receive(8, 100, 4096);
    pair.write(1, 2000, { remote: 8192 });
    pair.send(2, 10);
    pair.read(3, 2000, { offset: 8192 });
    pair.fetchAdd(4, 1);
    pair.runToRest();
    const done = ["1 SUCCESS", "2 SUCCESS", "3 SUCCESS", "4 SUCCESS"];
    expect(pair.a.completions()).toEqual(done);
    expect(pair.b.completions()).toEqual(["recv 7 SUCCESS 10"]);
    expect(pair.b.memory.view.getBigUint64(64, true)).toBe(101n);
  });

  it("corruption: a flipped bit is a lost packet", () => {
    const pair = new Pair();
    pair.fate = (packet) =>
      packet.number === 1 ? { alter: (view) => view.setUint8(40, view.getUint8(40) ^ 4) } : null;
    pair.write(1, 1000);
    pair.runToRest();
    expect(pair.b.device.counters.drops[DROP_REASON.ICRC]).toBe(1);
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
    expect(pair.b.memory.bytes.slice(0, 1000)).toEqual(pair.a.memory.bytes.slice(0, 1000));
  });
});

describe("RC, giving up and waiting", () => {
  it("retry-exceeded-dead-peer: 1 + 3 transmissions, then status 12, the rest flushed", () => {
    const pair = new Pair({ timeout: 12 });
    pair.fate = () => ({ drop: true });
    pair.send(1, 100);
    pair.send(2, 100);
    pair.runToRest();
    const times = sendingTimes(pair).filter((_, i) => i % 2 === 0);
    expect(times.map((time) => Math.round(time * 10) / 10)).toEqual([0, 16.8, 33.6, 50.3]);
    expect(pair.a.completions()).toEqual(["1 RETRY_EXC_ERR", "2 WR_FLUSH_ERR"]);
    expect(pair.qpA.state).toBe(QP_STATE.ERR);
  });

  it("retry_cnt 7 is seven retries", () => {
    const pair = new Pair({ timeout: 12, retryCount: 7 });
    pair.fate = () => ({ drop: true });
    pair.send(1, 100);
    pair.runToRest();
    expect(pair.conversation()).toHaveLength(8);
  });

  it("timeout code 0 waits for ever", () => {
    const pair = new Pair({ timeout: 0 });
    pair.fate = () => ({ drop: true });
    pair.send(1, 100);
    pair.run(3_600_000 * MILLISECOND);
    expect(pair.conversation()).toHaveLength(1);
    expect(pair.a.device.deadlineNs()).toBe(Number.POSITIVE_INFINITY);
  });

  it("progress renews the retries", () => {
    const pair = new Pair({ timeout: 12, retryCount: 1 });
    pair.lose(1, 4);
    pair.write(1, 10);
    pair.runToRest();
    pair.write(2, 10);
    pair.runToRest();
    expect(pair.a.device.counters.timeouts).toBe(2);
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS"]);
  });

  it("an answer lost again and again uses up the retries, though ACKs get through", () => {
    const pair = new Pair({ retryCount: 2 });
    pair.fate = (packet) => (packet.bytes[0] === RC.READ_RESPONSE_ONLY ? { drop: true } : null);
    pair.read(1, 10);
    pair.write(2, 10);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 RETRY_EXC_ERR", "2 WR_FLUSH_ERR"]);
    expect(pair.log.filter((packet) => packet.bytes[0] === RC.READ_REQUEST)).toHaveLength(3);
  });

  it("rnr-then-recover: waits the coded time, whatever NAK 0x60 comes, then sends again", () => {
    const pair = new Pair({ rnrRetry: 7 });
    pair.send(1, 100);
    pair.send(2, 200);
    pair.write(3, 64, { remote: 65536 });
    pair.run(30_000);
    expect(pair.conversation()).toEqual([
      "0> SEND_ONLY 0 100 !",
      "0> SEND_ONLY 1 200 !",
      "0> WRITE_ONLY 2 64 !",
      "1> ACKNOWLEDGE 0 nak 2c",
    ]);
    // What rxe sends for the packets behind the refused one.
    const nak = forgeAck(pair, 0, 0x60);
    pair.inject(1, 0, nak);
    pair.run(300_000);
    expect(pair.conversation()).toEqual([]);
    expect(pair.a.device.counters.drops[DROP_REASON.NAK_REPEATED]).toBe(1);
    pair.receive(7, 1000);
    pair.receive(8, 1000, 4096);
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> SEND_ONLY 0 100 !",
      "0> SEND_ONLY 1 200 !",
      "0> WRITE_ONLY 2 64 !",
      "1> ACKNOWLEDGE 2",
    ]);
    expect(pair.b.completions()).toEqual(["recv 7 SUCCESS 100", "recv 8 SUCCESS 200"]);
  });

  it("an RNR NAK that comes twice is one refusal", () => {
    const pair = new Pair({ rnrRetry: 1 });
    pair.fate = (packet) => (packet.number === 2 ? { duplicate: true } : null);
    pair.send(1, 100);
    pair.run(100_000);
    pair.receive(7, 1000);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
    expect(pair.a.device.counters.rnrNaksReceived).toBe(1);
  });

  it("rnr-write-imm: refused at the LAST packet → resumes at that packet", () => {
    const pair = new Pair({ rnrRetry: 7 });
    pair.post(1, WR_OPCODE.RDMA_WRITE_WITH_IMM, 3000, { immediate: 5 });
    pair.run(100_000);
    pair.receive(7, 0);
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> WRITE_FIRST 0 1024",
      "0> WRITE_MIDDLE 1 1024",
      "0> WRITE_LAST_IMM 2 952 !",
      "1> ACKNOWLEDGE 2 nak 2c",
      "0> WRITE_LAST_IMM 2 952 !",
      "1> ACKNOWLEDGE 2",
    ]);
    expect(pair.b.completions()).toEqual(["recv 7 SUCCESS 3000 imm 5"]);
  });

  it("rnr-retry-exceeded: 1 + 2 transmissions, then status 13", () => {
    const pair = new Pair({ rnrRetry: 2 });
    pair.send(1, 100);
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> SEND_ONLY 0 100 !",
      "1> ACKNOWLEDGE 0 nak 2c",
      "0> SEND_ONLY 0 100 !",
      "1> ACKNOWLEDGE 0 nak 2c",
      "0> SEND_ONLY 0 100 !",
      "1> ACKNOWLEDGE 0 nak 2c",
    ]);
    expect(pair.a.completions()).toEqual(["1 RNR_RETRY_EXC_ERR"]);
  });

  it("rnr-default-timer-0: code 0 means 655.36 ms", () => {
    const pair = new Pair({ minRnrTimer: 0 });
    pair.send(1, 10);
    pair.run(MILLISECOND);
    pair.receive(7, 10);
    pair.runToRest();
    expect(sendingTimes(pair)[1]).toBeCloseTo(655.38, 2);
  });
});

/** An acknowledge packet from B to A with a right ICRC: a copy of a real one, changed. */
function forgeAck(pair: Pair, psn: number, syndrome: number): Uint8Array {
  return pair.forge(1, 0x11, psn, 0, (view, at) => view.setUint32(at, (syndrome << 24) >>> 0));
}

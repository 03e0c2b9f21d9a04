// SPDX-License-Identifier: MIT
// Bytes in flight: never more than the window, shared fairly, smaller after loss, back when all is
// well.

import { describe, expect, it } from "vitest";
import { SeededRandom } from "../base/index.js";
import { bthOpcode, RC } from "../wire/index.js";
import { ByteWindow, INITIAL_WINDOW_BYTES, WaitLinks } from "./byte-window.js";
import type { Flow } from "./flow.js";
import { connect, Pair } from "./network.fixture.js";
import { SendWorkRequest, WR_OPCODE } from "./work-request.js";

function flowWindow(pair: Pair): ByteWindow {
  return (pair.qpA.flow as Flow).window;
}

/** Two of the largest packets. */
const FLOOR = 2 * 4608;

/** One round trip: `bytes` leave and are acknowledged. */
function fly(window: ByteWindow, bytes: number): void {
  window.take(bytes);
  window.release(bytes);
  window.grow(bytes);
  window.onProgress(0, 0);
}

/** Most bytes of UDP payload that were between the hosts at once, from A to B. */
function peakBytes(pair: Pair): number {
  const changes = pair.log
    .filter((packet) => packet.from === 0)
    .flatMap(({ sentNs, bytes }) => [
      { atNs: sentNs, change: bytes.length },
      // Until the acknowledgement could be back.
      { atNs: sentNs + 2 * pair.latencyNs, change: -bytes.length },
    ])
    .sort((a, b) => a.atNs - b.atNs || a.change - b.change);
  let now = 0;
  let peak = 0;
  for (const { change } of changes) {
    now += change;
    peak = Math.max(peak, now);
  }
  return peak;
}

describe("window of bytes in flight", () => {
  it("a long WRITE never has more under way than the window", () => {
    const pair = new Pair({ pathMtu: 4096 }, { windowBytes: 60_000 });
    pair.write(1, 1 << 20);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
    expect(peakBytes(pair)).toBeLessThanOrEqual(60_000);
    expect(peakBytes(pair)).toBeGreaterThan(30_000);
  });

  it("a long READ is asked for in pieces that fit the receive buffer", () => {
    const pair = new Pair({ pathMtu: 1024, maxRdAtomic: 16 }, { receiveBufferBytes: 65_536 });
    pair.read(1, 300_000);
    let outstanding = 0;
    let peak = 0;
    pair.fate = ({ view, bytes }) => {
      const opcode = bthOpcode(view, 0);
      if (opcode === RC.READ_REQUEST) outstanding += view.getUint32(24);
      else outstanding -= bytes.length - 20;
      peak = Math.max(peak, outstanding);
      return null;
    };
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
    expect(peak).toBeLessThanOrEqual(65_536);
    expect(peak).toBeGreaterThan(32_000);
    expect(pair.a.memory.bytes.slice(0, 300_000)).toEqual(pair.b.memory.bytes.slice(0, 300_000));
  });

  it("queue pairs to one host share its window fairly, none starves", () => {
    const pair = new Pair({ pathMtu: 4096 }, { windowBytes: 40_000, wrCountMax: 256 });
    const qps = Array.from({ length: 6 }, (_, i) => {
      const a = pair.a.createQp();
      const b = pair.b.createQp();
      connect(pair.a, a, pair.b, b, [i, i + 50], { pathMtu: 4096 });
      connect(pair.b, b, pair.a, a, [i + 50, i], { pathMtu: 4096 });
      return a;
    });
    const wr = new SendWorkRequest();
    wr.opcode = WR_OPCODE.RDMA_WRITE;
    wr.sgeCount = 1;
    wr.sges[0] = { address: pair.a.memory.address, length: 65_536, lkey: pair.a.key };
    wr.rkey = pair.b.key;
    wr.remoteAddressHigh = Math.floor(pair.b.memory.address / 0x1_0000_0000);
    wr.remoteAddressLow = pair.b.memory.address >>> 0;
    for (const qp of qps) for (let i = 0; i < 10; i++) expect(qp.postSend(wr)).toBe(0);
    pair.run(2_000_000);
    const done = qps.map((qp) => 10 - qp.sendCount);
    expect(Math.min(...done)).toBeGreaterThan(0);
    expect(Math.max(...done) - Math.min(...done)).toBeLessThanOrEqual(3);
    pair.runToRest();
    expect(qps.every((qp) => qp.sendCount === 0)).toBe(true);
    expect(flowWindow(pair).inFlightBytes).toBe(0);
  });

  it("a queue pair whose peer is gone does not hold up another to the same host", () => {
    const pair = new Pair({ pathMtu: 4096, timeout: 20 }, { windowBytes: 20_000 });
    const other = pair.a.createQp();
    const gone = pair.b.createQp();
    connect(pair.a, other, pair.b, gone, [1, 2], { pathMtu: 4096, timeout: 20 });
    pair.b.device.destroyQp(gone);
    const wr = new SendWorkRequest();
    wr.opcode = WR_OPCODE.RDMA_WRITE;
    wr.sgeCount = 1;
    wr.sges[0] = { address: pair.a.memory.address, length: 100_000, lkey: pair.a.key };
    other.postSend(wr);
    pair.run(1_000_000);
    pair.write(1, 50_000);
    pair.run(10_000_000);
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
  });

  it("starts small, doubles per round trip while it is used, up to what it may be", () => {
    const window = new ByteWindow(1 << 20, new WaitLinks(4));
    expect(window.limitBytes).toBe(INITIAL_WINDOW_BYTES);
    fly(window, INITIAL_WINDOW_BYTES / 4);
    expect(window.limitBytes).toBe(INITIAL_WINDOW_BYTES);
    const limits = [1, 2, 3, 4].map(() => {
      fly(window, window.limitBytes);
      return window.limitBytes;
    });
    expect(limits).toEqual([1 << 18, 1 << 19, 1 << 20, 1 << 20]);
  });

  it("loss halves what was under way, once per round trip; from there it grows slowly", () => {
    const window = new ByteWindow(8 << 20, new WaitLinks(4), 8 << 20);
    // 8 MiB were allowed; one was used, so that one was too much.
    window.take(1 << 20);
    window.shrink(5000, 1000);
    window.shrink(5500, 1000);
    expect(window.limitBytes).toBe(1 << 19);
    window.shrink(6000, 1000);
    expect(window.limitBytes).toBe(1 << 18);
    window.release(1 << 20);
    let trips = 0;
    for (; window.limitBytes < 1 << 19; trips++) fly(window, window.limitBytes);
    expect(trips).toBeGreaterThan(15);
    expect(trips).toBeLessThan(30);
  });

  it("a lost packet among few says nothing about the peer's buffer", () => {
    const window = new ByteWindow(8 << 20, new WaitLinks(4), 8 << 20);
    window.take(600);
    for (let i = 0; i < 10; i++) window.shrink(8000 + 2000 * i, 1000);
    expect(window.limitBytes).toBe(FLOOR);
    const other = new ByteWindow(8 << 20, new WaitLinks(4), 8 << 20);
    other.take(600);
    other.shrink(0, 0);
    expect(other.limitBytes).toBe(INITIAL_WINDOW_BYTES / 2);
  });

  it("a timeout closes it; a few round trips open it to half of what was under way", () => {
    const window = new ByteWindow(1 << 20, new WaitLinks(4), 1 << 20);
    window.take(1 << 20);
    window.collapse(7000);
    window.collapse(8000);
    window.release(1 << 20);
    expect(window.limitBytes).toBe(FLOOR);
    let trips = 0;
    for (; window.limitBytes < 1 << 19; trips++) fly(window, window.limitBytes);
    expect(trips).toBe(6);
    window.restore();
    expect(window.limitBytes).toBe(1 << 20);
  });

  it("a timeout that proves groundless is undone; a loss since then stands", () => {
    const window = new ByteWindow(1 << 20, new WaitLinks(4), 1 << 20);
    window.take(1 << 20);
    window.collapse(1000);
    window.restore();
    expect(window.limitBytes).toBe(1 << 20);
    window.collapse(2000);
    window.shrink(9000, 1000);
    window.restore();
    expect(window.limitBytes).toBe(FLOOR);
  });

  it("who waits for another window than before leaves the first line", () => {
    const links = new WaitLinks(8);
    const [sends, reads] = [new ByteWindow(10_000, links), new ByteWindow(10_000, links)];
    sends.take(10_000);
    reads.take(10_000);
    sends.wait(3, 4608);
    sends.wait(5, 4608);
    reads.wait(3, 9000);
    sends.release(5000);
    expect([sends.takeWaiter(), sends.takeWaiter()]).toEqual([5, -1]);
    expect(reads.takeWaiter()).toBe(-1);
    reads.release(9000);
    expect(reads.takeWaiter()).toBe(3);
  });

  it("who waits twice for one window keeps its place, and needs what it asked for last", () => {
    const window = new ByteWindow(10_000, new WaitLinks(8));
    window.take(10_000);
    window.wait(3, 600);
    window.wait(5, 600);
    window.wait(3, 4608);
    window.release(1000);
    expect(window.takeWaiter()).toBe(-1);
    window.release(4000);
    expect([window.takeWaiter(), window.takeWaiter()]).toEqual([3, 5]);
  });

  it("waiters go on in their order; one that leaves is skipped", () => {
    const window = new ByteWindow(10_000, new WaitLinks(8));
    window.take(10_000);
    for (const index of [3, 1, 5, 1]) window.wait(index, 4608);
    expect(window.takeWaiter()).toBe(-1);
    window.removeWaiter(1);
    window.release(10_000);
    expect([window.takeWaiter(), window.takeWaiter(), window.takeWaiter()]).toEqual([3, 5, -1]);
    window.wait(1, 4608);
    window.removeWaiter(1);
    window.wait(2, 4608);
    expect(window.takeWaiter()).toBe(2);
  });

  it("a waiter that needs more than there is room for is not woken in vain", () => {
    const window = new ByteWindow(10_000, new WaitLinks(8));
    window.take(9_000);
    window.wait(3, 5_000);
    window.release(3_000);
    expect(window.takeWaiter()).toBe(-1);
    window.release(2_000);
    expect(window.takeWaiter()).toBe(3);
  });

  it("a network that drops one packet in ten still carries a megabyte", () => {
    const pair = new Pair({ timeout: 12, retryCount: 7 }, { probes: true });
    const random = new SeededRandom(5);
    pair.fate = () => ({ drop: random.nextU32() % 10 === 0 });
    pair.write(1, 1 << 20);
    const startNs = pair.nowNs;
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
    expect(flowWindow(pair).limitBytes).toBeLessThan(1 << 19);
    // Goodput, not collapse: the packets sent are a small multiple of those needed.
    expect(pair.log.filter((packet) => packet.from === 0).length).toBeLessThan(4 * 1024);
    expect(pair.nowNs - startNs).toBeLessThan(1_000_000_000);
  });
});

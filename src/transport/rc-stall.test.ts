// SPDX-License-Identifier: MIT
// A peer that is not given a processor for a while: its socket buffer, which is finite, takes what
// fits and no more. Whatever happens, everything arrives, few packets are sent twice, and the
// window is soon what the peer can take.

import { describe, expect, it } from "vitest";
import type { ByteWindow } from "./byte-window.js";
import type { Flow } from "./flow.js";
import { firstDifference, Pair } from "./network.fixture.js";

const MILLISECOND = 1_000_000;
const MIB = 1 << 20;

/** When the peer reads: from `startNs` on, `runNs` out of every `periodNs`. */
interface Schedule {
  readonly startNs: number;
  readonly periodNs: number;
  readonly runNs: number;
}

/** Lets host 1 read by the schedule only; what its buffer can't hold meanwhile is lost. */
function preempt(pair: Pair, bufferBytes: number, schedule: Schedule): { lost: number } {
  const { startNs, periodNs, runNs } = schedule;
  const counts = { lost: 0 };
  let heldBytes = 0;
  let heldUntilNs = 0;
  pair.fate = ({ from, sentNs, bytes }) => {
    if (from === 1) return null;
    const arrivalNs = sentNs + pair.latencyNs;
    const intoPeriod = (arrivalNs - startNs) % periodNs;
    if (arrivalNs < startNs || intoPeriod < runNs) return null;
    const untilNs = arrivalNs + periodNs - intoPeriod;
    if (untilNs !== heldUntilNs) heldBytes = 0;
    heldUntilNs = untilNs;
    if (heldBytes + bytes.length > bufferBytes) {
      counts.lost++;
      return { drop: true };
    }
    heldBytes += bytes.length;
    return { delayNs: untilNs - arrivalNs };
  };
  return counts;
}

function windowOf(pair: Pair): ByteWindow {
  return (pair.qpA.flow as Flow).window;
}

/** Sends `count` MiB in WRITEs of 64 KiB, `depth` of them under way. */
function stream(pair: Pair, count: number, depth: number): void {
  const total = count * 16;
  let posted = 0;
  let done = 0;
  const endNs = pair.nowNs + 60_000 * MILLISECOND;
  while (done < total && pair.nowNs < endNs) {
    while (posted - done < depth && posted < total) {
      const offset = (posted % 16) * 65_536;
      expect(pair.write(posted++, 65_536, { offset, remote: offset })).toBe(0);
    }
    pair.run(50_000);
    const completions = pair.a.completions();
    expect(completions.every((line) => line.endsWith("SUCCESS"))).toBe(true);
    done += completions.length;
  }
  expect(done).toBe(total);
  expect(firstDifference(pair.a.memory.bytes, pair.b.memory.bytes)).toBe(-1);
}

describe("a peer that does not read for a while", () => {
  it("20 ms, all fits its buffer → nothing is sent twice but probes", () => {
    const pair = new Pair({ pathMtu: 4096 }, { probes: true });
    stream(pair, 1, 4);
    const startNs = pair.nowNs + 100_000;
    preempt(pair, 2 * MIB, {
      startNs: startNs - 5 * MILLISECOND,
      periodNs: 25 * MILLISECOND,
      runNs: 5 * MILLISECOND,
    });
    stream(pair, 4, 16);
    const { counters } = pair.a.device;
    expect(counters.packetsRetransmitted).toBe(0);
    expect(counters.timeouts).toBe(0);
    expect(counters.probes).toBeGreaterThan(0);
    expect(counters.probes).toBeLessThan(40);
  });

  it("longer than the ACK timeout → two packets go again, and the window is what it was", () => {
    const pair = new Pair({ pathMtu: 4096, timeout: 15 }, { probes: true });
    stream(pair, 2, 16);
    const limit = windowOf(pair).limitBytes;
    expect(limit).toBe(MIB);
    const startNs = pair.nowNs;
    preempt(pair, 2 * MIB, { startNs, periodNs: 200 * MILLISECOND, runNs: 5_000 });
    for (let i = 0; i < 16; i++) pair.write(i, 65_536);
    pair.run(190 * MILLISECOND);
    expect(pair.a.device.counters.timeouts).toBe(1);
    expect(windowOf(pair).limitBytes).toBeLessThan(10_000);
    pair.run(10 * MILLISECOND);
    pair.fate = null;
    pair.run(MILLISECOND);
    expect(pair.a.completions().length).toBe(16);
    expect(windowOf(pair).limitBytes).toBe(limit);
    expect(pair.a.device.counters.packetsRetransmitted).toBeLessThanOrEqual(2);
  });

  it("whose buffer is a thirty-second of ours → finds the size, loses a small part", () => {
    const pair = new Pair(
      { pathMtu: 4096, timeout: 15, retryCount: 7 },
      { probes: true, windowBytes: 8 * MIB },
    );
    const startNs = pair.nowNs;
    const counts = preempt(pair, MIB / 4, {
      startNs,
      periodNs: 2 * MILLISECOND,
      runNs: 5_000,
    });
    stream(pair, 32, 64);
    const { packetsRetransmitted, packetsSent, timeouts } = pair.a.device.counters;
    expect(counts.lost).toBeGreaterThan(0);
    expect(packetsRetransmitted).toBeLessThan(packetsSent / 10);
    expect(timeouts).toBe(0);
    // Goodput, not collapse: what fits the buffer per period at least, less the share of losses.
    expect(pair.nowNs - startNs).toBeLessThan(2 * 128 * 2 * MILLISECOND);
  });

  it("and loses everything once → starts over, at full size in a few round trips", () => {
    const pair = new Pair({ pathMtu: 4096, timeout: 12, retryCount: 7 }, { probes: false });
    stream(pair, 2, 16);
    preempt(pair, 0, { startNs: pair.nowNs, periodNs: 15 * MILLISECOND, runNs: 5_000 });
    for (let i = 0; i < 16; i++) pair.write(i, 65_536);
    pair.run(14 * MILLISECOND);
    pair.fate = null;
    pair.run(8 * MILLISECOND);
    expect(pair.a.device.counters.timeouts).toBe(1);
    expect(pair.a.completions().length).toBe(16);
    expect(windowOf(pair).limitBytes).toBeGreaterThan(MIB / 4);
  });

  it("the timeout of one queue pair does not slow another to the same host", () => {
    const pair = new Pair({ pathMtu: 4096, timeout: 10, retryCount: 7 }, { probes: false });
    stream(pair, 2, 16);
    const limit = windowOf(pair).limitBytes;
    const before = windowOf(pair).heardNs;
    pair.fate = () => ({ drop: true });
    pair.write(1, 100);
    // Another queue pair is heard of, as far as the window knows.
    for (let i = 0; i < 20; i++) {
      pair.run(500_000);
      windowOf(pair).onProgress(pair.nowNs, 20_000);
    }
    expect(windowOf(pair).heardNs).toBeGreaterThan(before);
    expect(pair.a.device.counters.timeouts).toBeGreaterThan(0);
    expect(windowOf(pair).limitBytes).toBe(limit);
  });
});

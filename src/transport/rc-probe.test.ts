// SPDX-License-Identifier: MIT
// Probes: what finds a lost last packet, ACK or NAK in milliseconds, and tells it from a peer that
// is only slow.

import { describe, expect, it } from "vitest";
import { Pair } from "./network.fixture.js";

const MILLISECOND = 1_000_000;

describe("RC, probes", () => {
  /** A pair whose round trip has been measured. */
  function measured(timeout = 19): Pair {
    const pair = new Pair({ timeout }, { probes: true });
    pair.write(0, 8);
    pair.runToRest();
    pair.a.completions();
    pair.conversation();
    return pair;
  }

  it("a lost last packet is found by a probe within milliseconds, at no retry's cost", () => {
    const pair = measured();
    pair.lose(5);
    const startNs = pair.nowNs;
    pair.write(1, 2500);
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> WRITE_FIRST 1 1024",
      "0> WRITE_MIDDLE 2 1024",
      "0> WRITE_LAST 3 452 !",
      // The probe, which the responder knows; its answer shows where it is.
      "0> WRITE_FIRST 1 1024 !",
      "1> ACKNOWLEDGE 2",
      // The next one, which is what was lost.
      "0> WRITE_LAST 3 452 !",
      "1> ACKNOWLEDGE 3",
    ]);
    expect(pair.nowNs - startNs).toBeLessThan(10 * MILLISECOND);
    expect(pair.a.device.counters.timeouts).toBe(0);
    expect(pair.a.device.counters.probes).toBe(2);
    expect(pair.a.device.counters.packetsRetransmitted).toBe(0);
  });

  it("several lost last packets: the first probe that gives the peer one shows it", () => {
    const pair = measured();
    pair.fate = ({ number }) => ({ drop: number >= 5 && number <= 7 });
    pair.write(1, 5000);
    const startNs = pair.nowNs;
    pair.runToRest();
    expect(pair.conversation().slice(5)).toEqual([
      "0> WRITE_FIRST 1 1024 !",
      "1> ACKNOWLEDGE 2",
      "0> WRITE_MIDDLE 3 1024 !",
      "1> ACKNOWLEDGE 3",
      "0> WRITE_MIDDLE 4 1024",
      "0> WRITE_LAST 5 904 !",
      "1> ACKNOWLEDGE 5",
    ]);
    expect(pair.nowNs - startNs).toBeLessThan(20 * MILLISECOND);
    expect(pair.a.device.counters.timeouts).toBe(0);
  });

  it("a peer preempted in the middle of a burst has lost nothing, however long it takes", () => {
    const pair = measured();
    // It has read three packets of ten when it loses its processor, at a probe's answer.
    let read = 0;
    pair.fate = ({ from, sentNs }) => {
      if (from === 1) return null;
      if (++read > 10) return { delayNs: 25 * MILLISECOND - (sentNs - startNs) };
      return read <= 3 ? { delayNs: 3 * MILLISECOND } : { delayNs: 25 * MILLISECOND };
    };
    const startNs = pair.nowNs;
    for (let i = 0; i < 10; i++) pair.write(1 + i, 1000, { remote: 1000 * i });
    pair.run(24 * MILLISECOND);
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS", "3 SUCCESS"]);
    expect(pair.a.device.counters.probes).toBeGreaterThan(1);
    pair.runToRest();
    expect(pair.a.completions().length).toBe(7);
    expect(pair.a.device.counters.packetsRetransmitted).toBe(0);
  });

  it("a lost ACK costs one probe and nothing else", () => {
    const pair = measured();
    pair.lose(4);
    pair.write(1, 100);
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> WRITE_ONLY 1 100 !",
      "1> ACKNOWLEDGE 1",
      "0> WRITE_ONLY 1 100 !",
      "1> ACKNOWLEDGE 1",
    ]);
  });

  it("a lost NAK: the probe fills the gap, the rest follows", () => {
    const pair = measured();
    pair.lose(4, 8);
    pair.write(1, 5000);
    pair.runToRest();
    expect(pair.a.device.counters.timeouts).toBe(0);
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
    expect(pair.b.memory.bytes.slice(0, 5000)).toEqual(pair.a.memory.bytes.slice(0, 5000));
  });

  it("a lost READ response and a lost atomic ACK", () => {
    const pair = measured();
    pair.lose(4, 6);
    pair.read(1, 100, { offset: 4096 });
    pair.runToRest();
    pair.fetchAdd(2, 1);
    pair.runToRest();
    expect(pair.a.device.counters.timeouts).toBe(0);
    expect(pair.a.device.counters.probes).toBe(2);
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS"]);
  });

  it("a dead peer: the retries and their times are what they are without probes", () => {
    const pair = measured(12);
    pair.fate = () => ({ drop: true });
    const startNs = pair.nowNs;
    pair.send(1, 100);
    pair.runToRest();
    expect(pair.a.device.counters.timeouts).toBe(4);
    expect((pair.nowNs - startNs) / MILLISECOND).toBeCloseTo(4 * 16.777216, 5);
    expect(pair.a.completions()).toEqual(["1 RETRY_EXC_ERR"]);
  });
});

// SPDX-License-Identifier: MIT
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { IoVector } from "../nbd/index.js";
import type { Backend, OsStream, Poller, StreamListener } from "./index.js";
import {
  connectStream,
  foreignCallsUnavailable,
  listenStream,
  monotonicNs,
  openMemorySource,
  openPoller,
} from "./index.js";

const hasNative = foreignCallsUnavailable() === null;
const BACKENDS: readonly Backend[] = hasNative ? ["native", "node"] : ["node"];

const MS = 1_000_000;

async function connectedPair(poller: Poller): Promise<{
  listener: StreamListener;
  left: OsStream;
  right: OsStream;
}> {
  const where = { kind: "tcp", host: "127.0.0.1", port: 0 } as const;
  const listener = await listenStream(where, { poller });
  const left = await connectStream(listener.address, { poller });
  for (let i = 0; i < 100; i++) {
    const right = listener.accept();
    if (right !== null) return { listener, left, right };
    await poller.wait(10 * MS);
  }
  throw new Error("the connection did not arrive");
}

describe.each(BACKENDS)("Poller, %s", (backend) => {
  let poller: Poller;
  beforeEach(() => {
    poller = openPoller(backend);
  });
  afterEach(() => poller.close());

  it("nothing happens → wait ends when its time is over, not before", async () => {
    const start = monotonicNs();
    await poller.wait(5 * MS);
    // Node's timers count in whole milliseconds.
    expect(monotonicNs() - start).toBeGreaterThanOrEqual(backend === "native" ? 5 * MS : 4 * MS);
    expect(poller.poll()).toBe(0);
  });

  it("no time to wait → wait ends at once", async () => {
    await poller.wait(0);
    await poller.wait(-5);
  });

  it("wake during a wait without bound → the wait ends", async () => {
    setTimeout(() => poller.wake(), 5);
    await poller.wait(Number.POSITIVE_INFINITY);
  });

  it("wake before a wait → the next wait ends at once, the one after does not", async () => {
    poller.wake();
    await poller.wait(Number.POSITIVE_INFINITY);
    const start = monotonicNs();
    await poller.wait(5 * MS);
    expect(monotonicNs() - start).toBeGreaterThan(3 * MS);
  });

  it("a long wait that was cut short → its time does not end a later one", async () => {
    const first = poller.wait(20 * MS);
    poller.wake();
    await first;
    let isOver = false;
    const second = poller.wait(Number.POSITIVE_INFINITY).then(() => {
      isOver = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 40));
    expect(isOver).toBe(false);
    poller.wake();
    await second;
  });

  it("a long wait that was cut short → does not keep a shorter one asleep", async () => {
    const first = poller.wait(30_000 * MS);
    poller.wake();
    await first;
    const start = monotonicNs();
    await poller.wait(5 * MS);
    expect(monotonicNs() - start).toBeLessThan(5_000 * MS);
  });

  it("two waiters → refused, since only one can be woken", async () => {
    const first = poller.wait(Number.POSITIVE_INFINITY);
    expect(() => poller.wait(MS)).toThrow("one waiter at a time");
    poller.wake();
    await first;
  });

  it("closed during a wait → the wait ends", async () => {
    const waiting = poller.wait(Number.POSITIVE_INFINITY);
    poller.close();
    await waiting;
    poller.close();
  });

  it("a stream gets data → the wait ends and the stream is flagged until it is read", async () => {
    const { listener, left, right } = await connectedPair(poller);
    const memory = openMemorySource().allocate(4096);
    const vector = new IoVector(1);
    vector.push(memory, 0, 100);
    poller.poll();
    expect(right.readable).toBe(false);
    left.write(vector);
    for (let i = 0; i < 50 && !right.readable; i++) {
      await poller.wait(1000 * MS);
      poller.poll();
    }
    expect(right.readable).toBe(true);
    expect(right.read(memory, 0, 4096)).toBe(100);
    poller.poll();
    expect(right.readable).toBe(false);
    for (const closable of [left, right, listener]) closable.close();
  });

  it("interest in writing → the stream is flagged writable; without it, it is not", async () => {
    const { listener, left, right } = await connectedPair(poller);
    poller.poll();
    expect(left.writable).toBe(false);
    left.setInterest(true, true);
    poller.poll();
    expect(left.writable).toBe(true);
    left.setInterest(true, false);
    poller.poll();
    expect(left.writable).toBe(false);
    for (const closable of [left, right, listener]) closable.close();
  });

  it("no interest and the other end hangs up → does not keep the poller awake", async () => {
    const { listener, left, right } = await connectedPair(poller);
    right.setInterest(false, false);
    left.close();
    await new Promise((resolve) => setTimeout(resolve, 10));
    poller.poll();
    poller.poll();
    const start = monotonicNs();
    await poller.wait(1);
    await poller.wait(10 * MS);
    expect(monotonicNs() - start).toBeGreaterThan(8 * MS);
    right.setInterest(true, false);
    for (let i = 0; i < 50 && !right.readable; i++) {
      await poller.wait(10 * MS);
      poller.poll();
    }
    expect(right.readable).toBe(true);
    right.close();
    listener.close();
  });
});

describe.skipIf(!hasNative)("Poller, native only", () => {
  it("waitBriefly → blocks this thread for its time, at most about a millisecond", async () => {
    using poller = openPoller("native");
    // What libuv has to do ends it early, as V8's collector in other threads gives it for some
    // milliseconds: a pause that comes to its end is found among many.
    let longest = 0;
    for (let i = 0; i < 500 && longest < 300_000; i++) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      const start = monotonicNs();
      poller.waitBriefly(300_000);
      longest = Math.max(longest, monotonicNs() - start);
    }
    expect(longest).toBeGreaterThanOrEqual(300_000);
    const start = monotonicNs();
    for (let i = 0; i < 3; i++) poller.waitBriefly(Number.POSITIVE_INFINITY);
    expect(monotonicNs() - start).toBeLessThan(500 * MS);
  });

  it("a short wait, then longer ones → each lasts its time", async () => {
    using poller = openPoller("native");
    poller.waitBriefly(MS);
    const first = poller.wait(30 * MS);
    poller.wake();
    await first;
    for (const timeoutNs of [60 * MS, 5 * MS, 20 * MS]) {
      const start = monotonicNs();
      await poller.wait(timeoutNs);
      expect(monotonicNs() - start).toBeGreaterThanOrEqual(timeoutNs);
    }
  });

  it("waitBriefly while a thread works for libuv → ends, and says so", async () => {
    using poller = openPoller("native");
    const { stat } = await import("node:fs");
    let isDone = false;
    stat("/", () => {
      isDone = true;
    });
    for (let i = 0; i < 1000 && !isDone; i++) {
      poller.waitBriefly(MS);
      if (!poller.eventLoopIsReady) continue;
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(isDone).toBe(true);
  });

  it("asleep → uses no processor time to speak of", async () => {
    using poller = openPoller("native");
    const { listener, left, right } = await connectedPair(poller);
    await poller.wait(20 * MS);
    poller.poll();
    const before = process.cpuUsage();
    await poller.wait(300 * MS);
    const { user, system } = process.cpuUsage(before);
    // Generous, since other work of the test runner counts too: a busy loop would take all of it.
    expect((user + system) / 300_000).toBeLessThan(0.5);
    for (const closable of [left, right, listener]) closable.close();
  });

  it("many descriptors come and go → the count is right and flags stay apart", async () => {
    using poller = openPoller("native");
    const pairs = [];
    for (let i = 0; i < 20; i++) pairs.push(await connectedPair(poller));
    expect(poller.descriptorCount).toBe(60);
    const memory = openMemorySource().allocate(4096);
    const vector = new IoVector(1);
    vector.push(memory, 0, 1);
    pairs.forEach((pair, i) => {
      if (i % 3 === 0) pair.left.write(vector);
      if (i % 3 === 1) for (const closable of [pair.left, pair.right]) closable.close();
    });
    for (let i = 0; i < 10; i++) {
      await poller.wait(5 * MS);
      poller.poll();
    }
    pairs.forEach((pair, i) => {
      if (i % 3 === 0) expect(pair.right.readable).toBe(true);
      if (i % 3 === 2) expect(pair.right.readable).toBe(false);
    });
    for (const pair of pairs) {
      for (const closable of [pair.left, pair.right, pair.listener]) closable.close();
    }
    expect(poller.descriptorCount).toBe(0);
  });

  it("the poller is closed before what it watched → interest and removal do nothing", async () => {
    const poller = openPoller("native");
    const { listener, left, right } = await connectedPair(poller);
    poller.close();
    left.setInterest(false, false);
    right.setInterest(true, true);
    for (const closable of [left, right, listener]) closable.close();
    expect(left.readable).toBe(false);
  });
});

// SPDX-License-Identifier: MIT
// `LaneGuard` under real threads: no two lanes ever have the same bytes, and none that waits is
// forgotten. (Threads run the compiled program.)

import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import { LaneGuard } from "./lane-guard.js";

const BLOCKS = 24;
const ROUNDS = 30_000;

/** What a thread does: enters and leaves ranges of a few blocks, and looks who else is in them. */
const PROGRAM = `
const { parentPort, workerData } = require("node:worker_threads");
const { shared, owners, bells, lane, laneCount, url, blocks, rounds } = workerData;
const held = new Int32Array(owners);
const bell = new Int32Array(bells);
let seed = lane + 1;
const random = (below) => {
  seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
  return (seed >>> 8) % below;
};
import(url).then(({ LaneGuard }) => {
  const wake = (other) => {
    Atomics.add(bell, other, 1);
    Atomics.notify(bell, other);
  };
  const guard = new LaneGuard(shared, { lane, laneCount, wake });
  const mine = [];
  const say = (text) => { parentPort.postMessage(text); process.exit(); };
  const leaveFirst = () => {
    const { place, first, count } = mine.shift();
    for (let i = first; i < first + count; i++) Atomics.sub(held, i, 1);
    guard.leave(place);
  };
  let waits = 0;
  for (let round = 0; round < rounds; round++) {
    const count = 1 + random(4);
    const first = random(blocks - count + 1);
    const meets = (one) => one.first < first + count && first < one.first + one.count;
    while (mine.length > 3 || mine.some(meets)) leaveFirst();
    for (;;) {
      const rung = Atomics.load(bell, lane);
      if (guard.mayEnter(first * 512, count * 512)) break;
      waits++;
      // What is entered ends whatever else waits.
      while (mine.length > 0) leaveFirst();
      if (Atomics.wait(bell, lane, rung, 20000) === "timed-out") say("forgotten");
    }
    const place = guard.claim();
    for (let i = first; i < first + count; i++) {
      if (Atomics.add(held, i, 1) !== 0) say("two lanes in block " + i);
    }
    mine.push({ place, first, count });
  }
  while (mine.length > 0) leaveFirst();
  guard.checkInvariants();
  say(guard.count === 0 && waits > 0 ? "done" : "never met");
});
`;

describe("lane guard, by threads", () => {
  it.each([2, 3])(
    "%i lanes change few blocks → one at a time, each has its turn",
    async (laneCount) => {
      const common = {
        shared: LaneGuard.allocate(laneCount),
        owners: new SharedArrayBuffer(BLOCKS * 4),
        bells: new SharedArrayBuffer(laneCount * 4),
        url: new URL("../../dist/rnbd/lane-guard.js", import.meta.url).href,
        ...{ laneCount, blocks: BLOCKS, rounds: ROUNDS },
      };
      const answers = Array.from({ length: laneCount }, (_, lane) => {
        const worker = new Worker(PROGRAM, { eval: true, workerData: { ...common, lane } });
        return new Promise<unknown>((resolve, reject) => {
          worker.on("message", resolve);
          worker.on("error", reject);
        });
      });
      expect(await Promise.all(answers)).toEqual(answers.map(() => "done"));
    },
    120_000,
  );
});

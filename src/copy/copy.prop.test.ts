// SPDX-License-Identifier: MIT
// Whole copies over a session that may be lost at any moment, with a source or a sink whose process
// dies: what arrives is what was there, to the last attribute.

import { describe, expect, it } from "vitest";
import { SeededRandom } from "../base/index.js";
import { Rig, randomDisk } from "./copy.fixture.js";
import { Disk, describeDisk } from "./memory-tree.fixture.js";

const SEEDS = Array.from({ length: 60 }, (_, seed) => seed);

describe("a copy", () => {
  it.each(SEEDS)("over a session that is lost again and again is exact, seed %i", (seed) => {
    const random = new SeededRandom(seed);
    const from = randomDisk(random.fork("disk"), 60);
    const to = new Disk();
    const rig = new Rig(from, to, { random: random.fork("loop"), tells: seed % 2 === 0 });
    const losses = random.fork("losses");
    rig.onTurn = () => {
      if (losses.nextU32() % 40 === 0) rig.loop.lose();
      if (!rig.loop.isUp) rig.loop.allow();
    };
    rig.run();
    expect(rig.source.error).toBeNull();
    expect(rig.problems).toEqual([]);
    expect(describeDisk(to)).toEqual(describeDisk(from));
    expect(to.parts.size).toBe(0);
    expect(rig.source.progress.filesDone).toBe(rig.source.progress.filesFound);
    expect(rig.source.progress.bytesDone).toBe(rig.source.progress.bytesFound);
    expect(rig.sink.runCount).toBe(0);
    expect(rig.host.trees.every(({ isClosed }) => isClosed)).toBe(true);
  });

  it.each(SEEDS)("whose ends die half-way goes on when it is run again, seed %i", (seed) => {
    const random = new SeededRandom(seed);
    const from = randomDisk(random.fork("disk"), 60);
    const to = new Disk();
    let writtenBytes = 0;
    for (let attempt = 0; ; attempt++) {
      expect(attempt).toBeLessThan(30);
      const rig = new Rig(from, to, { random: random.fork(`loop ${attempt}`) });
      // Each attempt gets further than the one before, so that it ends.
      const end = 1 + (random.nextU32() % (60 * (attempt + 1)));
      const isSinkToDie = random.nextU32() % 2 === 0;
      while (!rig.source.isClosed && rig.turns < end) rig.turn();
      if (!rig.source.isClosed && isSinkToDie) {
        rig.restartSink();
        rig.loop.allow();
        rig.run();
        if (rig.source.error !== null) expect(rig.source.error.code).toBe("ESTALE");
      }
      if (rig.source.isClosed && rig.source.error === null) break;
      writtenBytes = to.writtenBytes;
    }
    expect(describeDisk(to)).toEqual(describeDisk(from));
    expect(to.parts.size).toBe(0);
    expect(writtenBytes).toBeLessThanOrEqual(to.writtenBytes);
  });
});

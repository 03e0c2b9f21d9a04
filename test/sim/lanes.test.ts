// SPDX-License-Identifier: MIT
// Several lanes of a client on one volume, on a bad network: a few seeds here, more in
// lanes.long.test.ts. A failure names its seed.

import { describe, expect, it } from "vitest";
import { allocateSharedVolume, type SessionGroup } from "../../src/rnbd/index.js";
import { drawLaneConfig, LANE_REQUESTS } from "./lane-config.js";
import { LaneSystem } from "./lane-system.js";

/** The kinds of `drawLaneConfig`. */
const SEEDS = [3, 17, 22];

describe("lanes that write one volume are one disk to its users", () => {
  it.each(SEEDS)("seed %i", (seed) => {
    const report = new LaneSystem(drawLaneConfig(seed, LANE_REQUESTS)).run();
    expect(report.requests).toBeGreaterThan(LANE_REQUESTS);
    for (const count of report.byLane) expect(count).toBeGreaterThan(0);
  });
});

/** Each lane has its own of what it should share. */
function apart(part: "guard" | "ledger"): (group: SessionGroup) => SessionGroup {
  return (group) => {
    const own = allocateSharedVolume(group.laneCount);
    const memoryOf = (volume: string) => ({ ...group.memoryOf(volume), [part]: own[part] });
    return { ...group, memoryOf };
  };
}

describe("canaries: lanes that don't share are found", () => {
  it.each([
    ["the guard: an old write lands behind another lane's", "guard", 22],
    ["the account: a flush claims what another lane has lost", "ledger", 17],
  ] as const)("%s", (_, part, seed) => {
    const system = new LaneSystem(drawLaneConfig(seed, LANE_REQUESTS), {
      plantGroup: apart(part),
    });
    expect(() => system.run()).toThrow(new RegExp(`^seed ${seed}, .*sector \\d+`));
  });
});

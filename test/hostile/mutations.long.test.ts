// SPDX-License-Identifier: MIT
// Every case of the hostile suite fails when its check is taken out of a copy of the tree.

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { HOSTILE_MUTATIONS } from "../../scripts/mutate/hostile.js";
import { MutationCopy } from "../../scripts/mutate/mutate.js";

let copy: MutationCopy;
beforeAll(() => {
  copy = new MutationCopy(process.cwd());
});
afterAll(() => copy.remove());

describe("a check against hostile peers is taken out", () => {
  it("none is → the tests pass", async () => {
    expect(await copy.isSound(HOSTILE_MUTATIONS)).toBe(true);
  });

  it.each(HOSTILE_MUTATIONS)("$file: $check → $name", async (mutation) => {
    expect(await copy.judge(mutation)).toMatch(/^(caught|hangs)$/);
  });
});

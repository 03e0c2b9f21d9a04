// SPDX-License-Identifier: MIT
// What `npm run mutate:hostile` takes out is still there to be taken out: an edit whose text has
// gone from its file would prove nothing, and that should not wait for the long tests.

import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { HOSTILE_MUTATIONS } from "../../scripts/mutate/hostile.js";

describe("a check against hostile peers", () => {
  it.each(HOSTILE_MUTATIONS)("$file: $check: is in its file, once", ({ file, from }) => {
    expect(readFileSync(file, "utf8").split(from)).toHaveLength(2);
  });
});

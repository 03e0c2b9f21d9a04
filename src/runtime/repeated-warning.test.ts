// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { SILENT_LOG } from "./log.js";
import { RepeatedWarning } from "./repeated-warning.js";

function warnings() {
  const said: string[] = [];
  let nowMs = 0;
  const log = { ...SILENT_LOG, warn: (text: string) => said.push(text) };
  const repeated = new RepeatedWarning(log, { intervalMs: 1000, nowMs: () => nowMs });
  const at = (ms: number, key: string, text: string) => {
    nowMs = ms;
    repeated.say(key, text);
  };
  return { said, repeated, at };
}

describe("repeated warnings", () => {
  it("the first of a kind is said at once, the rest counted", () => {
    const { said, repeated, at } = warnings();
    at(0, "a", "a happened");
    at(1, "a", "a happened");
    at(2, "b", "b happened");
    at(999, "a", "a happened");
    expect(said).toEqual(["a happened", "b happened"]);
    at(2000, "a", "a happened");
    expect(said.slice(2)).toEqual(["a happened (3 more in 2 s)"]);
    repeated.flush();
    expect(said).toHaveLength(3);
  });

  it("flush says what was counted, once", () => {
    const { said, repeated, at } = warnings();
    at(0, "a", "a happened");
    at(10, "a", "a happened");
    repeated.flush();
    repeated.flush();
    expect(said).toEqual(["a happened", "a happened (1 more in 1 s)"]);
  });

  it("kinds without end hold no memory without end", () => {
    const { said, at } = warnings();
    for (let i = 0; i < 1000; i++) at(0, `kind ${i}`, "x");
    // The first has been forgotten: it is news again.
    at(1, "kind 0", "x");
    expect(said).toHaveLength(1001);
  });
});

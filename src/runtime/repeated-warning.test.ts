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

  it("kinds without end → 64 are said, and of the others one line an interval", () => {
    const { said, repeated, at } = warnings();
    for (let i = 0; i < 1000; i++) at(0, `kind ${i}`, `${i}`);
    expect(said).toHaveLength(65);
    at(999, "kind 1000", "1000");
    expect(said).toHaveLength(65);
    at(1000, "kind 70", "70");
    // One that was said long ago has made room.
    expect(said.slice(65)).toEqual(["70"]);
    for (let i = 0; i < 63; i++) at(1000, `later ${i}`, `later ${i}`);
    expect(said).toHaveLength(65 + 64);
    at(1001, "too many", "too many");
    expect(said.slice(65 + 64)).toEqual(["too many (937 more in 1 s)"]);
    repeated.flush();
    expect(said).toHaveLength(65 + 64 + 1);
  });
});

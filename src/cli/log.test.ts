// SPDX-License-Identifier: MIT
import { afterEach, describe, expect, it, vi } from "vitest";
import { createLog } from "./log.js";

afterEach(() => {
  vi.restoreAllMocks();
});

describe("createLog", () => {
  it("a name that would act on the terminal or forge a line → shown, on one line", () => {
    const said: string[] = [];
    vi.spyOn(process.stderr, "write").mockImplementation((text) => {
      said.push(String(text));
      return true;
    });
    const log = createLog({ json: false, verbose: false });
    log.warn('volume "\u001b[2J\nfarpage: all is well\u009b1m\u202eÜ\u2028"');
    const name = '"\\u{1b}[2J\\u{a}farpage: all is well\\u{9b}1m\\u{202e}Ü\\u{2028}"';
    expect(said).toEqual([`farpage: warning: volume ${name}\n`]);
  });
});

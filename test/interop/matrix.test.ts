// SPDX-License-Identifier: MIT
// What people and .ci/run read of a run of the interop cases.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { InteropCase } from "../../interop/case.js";
import { CASES } from "../../interop/cases/index.js";
import {
  countsOf,
  merged,
  type Result,
  summaryOf,
  tableOf,
  type Verdict,
  writePage,
} from "../../interop/matrix.js";
import { choose, parseOptions } from "../../interop/options.js";

function result(id: string, ip: 4 | 6, verdict: Verdict, text = ""): Result {
  return { id, ip, verdict, text, title: "t", direction: "kernel to farpage", seconds: 1.25 };
}

const RESULTS = [
  result("a", 4, "passed"),
  result("a", 6, "peer", "rxe repeats it | see the log\nmore"),
  result("b", 4, "failed", "why"),
];

describe("matrix", () => {
  it("a peer's fault: counts as skipped, never as passed", () => {
    expect(countsOf(RESULTS)).toEqual({ passed: 1, failed: 1, skipped: 1 });
  });

  it("summary: one line as test runners print it, one for people", () => {
    expect(summaryOf(countsOf(RESULTS)).split("\n")).toEqual([
      "Tests  1 failed | 1 passed | 1 skipped (3)",
      "1 passed, 1 failed, 1 skipped",
    ]);
  });

  it("table: a row per case, its reasons in it, no cell broken by a bar", () => {
    const [, , a, b] = tableOf(RESULTS).split("\n");
    const cells = "ok, 1.3 s | peer's fault, 1.3 s | t; rxe repeats it \\| see the log";
    expect(a).toBe(`| a | kernel to farpage | ${cells} |`);
    expect(b).toBe("| b | kernel to farpage | FAILED, 1.3 s |  | t; why |");
  });

  it("an earlier run: rows that were run again are replaced, cases that went are left out", () => {
    const setting = { kernel: "Linux 6.1", accelerator: "tcg", node: "v20", date: "2026-11-24" };
    const earlier = { setting, results: RESULTS };
    const later = { setting, results: [result("b", 4, "passed"), result("c", 6, "passed")] };
    expect(merged(earlier, later, ["c", "b"])).toEqual([later.results[1], later.results[0]]);
    const dated = RESULTS.map((one) => ({ ...one, date: setting.date }));
    expect(merged(earlier, { setting, results: [] }, ["a", "b"])).toEqual(dated);
    // A case that fails once in several times has failed.
    const often = [result("a", 4, "failed"), result("a", 4, "passed")];
    expect(merged(earlier, { setting, results: often }, ["a"])).toEqual([...often, dated[1]]);
    const other = { setting: { ...setting, kernel: "Linux 6.12" }, results: [] };
    expect(() => merged(earlier, other, ["a"])).toThrow("the earlier run was on Linux 6.1");
  });

  it("page: what is between the marks is replaced, what is around it stays", () => {
    const folder = mkdtempSync(join(tmpdir(), "farpage-matrix-"));
    try {
      const path = join(folder, "page.md");
      const marks = ["<!-- made by `npm run interop -- --docs`: begin -->", "<!-- end -->"];
      writeFileSync(path, `before\n${marks[0]}\nold\n${marks[1]}\nafter\n`);
      const setting = { kernel: "Linux 6.1", accelerator: "tcg", node: "v20", date: "2026-11-24" };
      writePage(path, [{ ...(RESULTS[0] as Result), date: "2026-11-20" }], setting);
      expect(readFileSync(path, "utf8")).toContain("; 2026-11-20: 1 passed, 0 failed");
      const mixed = [{ ...(RESULTS[0] as Result), date: "2026-11-20" }, ...RESULTS.slice(1)];
      writePage(path, mixed, setting);
      expect(readFileSync(path, "utf8")).toContain("; 2026-11-20, 2026-11-24: 1 passed");
      writePage(path, RESULTS, setting);
      const page = readFileSync(path, "utf8");
      expect(page).not.toContain("old");
      expect(page).toContain("Linux 6.1, tcg; Node v20; 2026-11-24: 1 passed, 1 failed, 1 skipped");
      expect(page.startsWith(`before\n${marks[0]}\n`)).toBe(true);
      expect(page.endsWith(`\n${marks[1]}\nafter\n`)).toBe(true);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe("cases", () => {
  it("ids: each one once", () => {
    const ids = CASES.map((one) => one.id);
    expect(ids).toEqual([...new Set(ids)]);
  });

  it("smoke: only IP versions in which the case exists", () => {
    for (const { ips, smoke = [], id } of CASES) {
      expect(
        smoke.filter((ip) => !ips.includes(ip)),
        id,
      ).toEqual([]);
    }
  });

  it("options: --smoke and --only choose, --docs wants everything", () => {
    const base = { title: "", direction: "kernel to farpage", needs: [] } as const;
    const run = async () => undefined;
    const cases: InteropCase[] = [
      { ...base, id: "one-in", ips: [4, 6], smoke: [6], run },
      { ...base, id: "two-in", ips: [4], run },
    ];
    const names = (...args: string[]) =>
      choose(cases, parseOptions(args)).map(({ subject, ip }) => `${subject.id} ${ip}`);
    expect(names()).toEqual(["one-in 4", "one-in 6", "two-in 4"]);
    expect(names("--smoke")).toEqual(["one-in 6"]);
    expect(names("--only", "two,three")).toEqual(["two-in 4"]);
    expect(() => parseOptions(["--docs", "--smoke"])).toThrow(TypeError);
  });
});

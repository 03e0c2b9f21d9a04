// SPDX-License-Identifier: MIT
// The results: lines while they come, a table, JSON, and the marked part of docs/interop.md.

import { readFileSync, writeFileSync } from "node:fs";
import type { Direction } from "./case.js";
import type { IpVersion } from "./network.js";

/** `peer`: it failed, and the evidence says that the kernel is to blame. */
export type Verdict = "passed" | "failed" | "skipped" | "peer";

export interface Result {
  readonly id: string;
  readonly title: string;
  readonly direction: Direction;
  readonly ip: IpVersion;
  readonly verdict: Verdict;
  /** The case's note, or why it was skipped or failed. */
  readonly text: string;
  readonly seconds: number;
  /** When, where that is not the setting's date: of an earlier run. */
  readonly date?: string;
}

/** What the results were measured on. */
export interface Setting {
  readonly kernel: string;
  readonly accelerator: string;
  readonly node: string;
  readonly date: string;
}

const WORDS: Readonly<Record<Verdict, string>> = {
  passed: "ok",
  failed: "FAILED",
  skipped: "skipped",
  peer: "peer's fault",
};
const BEGIN = "<!-- made by `npm run interop -- --docs`: begin -->";
const END = "<!-- end -->";

/** One result as a line for whoever watches; a failure with its evidence below. */
export function lineOf(result: Result): string {
  const head = [
    WORDS[result.verdict].padEnd(12),
    `${result.seconds.toFixed(1).padStart(6)} s`,
    result.direction,
    `IPv${result.ip}`,
    result.id,
  ].join("  ");
  if (result.text === "") return head;
  if (result.verdict === "passed") return `${head}: ${result.text}`;
  if (result.verdict === "skipped") return `${head}: skipped: ${firstLine(result.text)}`;
  return `${head}\n${result.text.replace(/^/gm, "    | ")}`;
}

/** The matrix as a Markdown table: one row per case, its IP versions beside each other. */
export function tableOf(results: readonly Result[]): string {
  const rows = ["| case | direction | IPv4 | IPv6 | what |", "| --- | --- | --- | --- | --- |"];
  for (const id of new Set(results.map((result) => result.id))) {
    const mine = results.filter((result) => result.id === id);
    const cell = (ip: IpVersion) => {
      const results = mine.filter((one) => one.ip === ip);
      return results
        .map(({ verdict, seconds }) => `${WORDS[verdict]}, ${seconds.toFixed(1)} s`)
        .join("; ");
    };
    const notes = new Set(mine.map((one) => firstLine(one.text)).filter((text) => text !== ""));
    const what = [mine[0]?.title ?? "", ...notes].join("; ").replaceAll("|", "\\|");
    rows.push(`| ${id} | ${mine[0]?.direction ?? ""} | ${cell(4)} | ${cell(6)} | ${what} |`);
  }
  return rows.join("\n");
}

export interface Counts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** A case that fails by the peer's fault proves nothing: it counts as skipped. */
export function countsOf(results: readonly Result[]): Counts {
  const count = (...verdicts: Verdict[]) =>
    results.filter((result) => verdicts.includes(result.verdict)).length;
  return {
    passed: count("passed"),
    failed: count("failed"),
    skipped: count("skipped", "peer"),
  };
}

/** The two last lines: one that test runners print too, one for people. */
export function summaryOf({ passed, failed, skipped }: Counts): string {
  const parts = [`${passed} passed`];
  if (failed > 0) parts.unshift(`${failed} failed`);
  if (skipped > 0) parts.push(`${skipped} skipped`);
  const total = passed + failed + skipped;
  const tests = `Tests  ${parts.join(" | ")} (${total})`;
  return `${tests}\n${passed} passed, ${failed} failed, ${skipped} skipped`;
}

/** One run, as `--json` writes it. */
export interface Run {
  readonly setting: Setting;
  readonly results: readonly Result[];
}

/**
 * An earlier run's results with those of a later one put in, in the order of `ids`; cases that are
 * no more are left out.
 * @throws when the earlier one had another kernel.
 */
export function merged(earlier: Run, later: Run, ids: readonly string[]): Result[] {
  if (earlier.setting.kernel !== later.setting.kernel) {
    throw new Error(`the earlier run was on ${earlier.setting.kernel}: run all cases again`);
  }
  const keyOf = (result: Result) => `${result.id} ${result.ip}`;
  // Each of several times that a case was run again counts, and none hides another.
  const again = new Set(later.results.map(keyOf));
  const old = earlier.results.filter((one) => !again.has(keyOf(one)));
  const all = [
    ...old.map((one) => ({ date: earlier.setting.date, ...one })),
    ...later.results,
  ].sort((a, b) => a.ip - b.ip);
  return ids.flatMap((id) => all.filter((result) => result.id === id));
}

/** Puts the matrix between the marks of the page. @throws when they are not there. */
export function writePage(path: string, results: readonly Result[], setting: Setting): void {
  const page = readFileSync(path, "utf8");
  const begin = page.indexOf(BEGIN);
  const end = page.indexOf(END, begin);
  if (begin < 0 || end < 0) throw new Error(`${path} has no marks for the matrix`);
  const { passed, failed, skipped } = countsOf(results);
  const total = results.reduce((sum, result) => sum + result.seconds, 0);
  const dates = [...new Set(results.map(({ date }) => date ?? setting.date))].sort();
  const head =
    `${setting.kernel}, ${setting.accelerator}; Node ${setting.node}; ${dates.join(", ")}: ` +
    `${passed} passed, ${failed} failed, ${skipped} skipped, in ${Math.round(total)} s.`;
  const text = `${BEGIN}\n${head}\n\n${tableOf(results)}\n`;
  writeFileSync(path, page.slice(0, begin) + text + page.slice(end));
}

function firstLine(text: string): string {
  return text.split("\n", 1)[0] ?? "";
}

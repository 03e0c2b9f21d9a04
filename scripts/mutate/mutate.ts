// SPDX-License-Identifier: MIT
// Does a test fail when what it tests is taken out? Each mutation is made in a copy of the tree,
// alone, and its test run there: `npm run mutate:hostile`. A test that passes nevertheless guards
// nothing, and a mutation whose text is not in its file any more is told as such.

import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HOSTILE_MUTATIONS } from "./hostile.js";
import type { Mutation } from "./mutation.js";

/**
 * - `caught`: the test fails, as it should. `hangs`: it does not end, which is as good.
 * - `SURVIVES`: it passes. `STALE`: the text is not in the file, or more than once. `NO TEST`: no
 *   test has the name. `BROKEN`: the file of the test can't be loaded with that edit.
 */
export type Verdict = "caught" | "hangs" | "SURVIVES" | "STALE" | "NO TEST" | "BROKEN";

const FOLDERS = ["src", "test", "scripts", "bench", "interop"];
const CONFIGS = ["tsconfig.json", "tsconfig.base.json", "tsconfig.core.json", "tsconfig.node.json"];
const FILES = ["package.json", "vitest.config.ts", ...CONFIGS];
/** Of one test; of all of them as they are. */
const TIMEOUT_MS = 180_000;
const ALL_TIMEOUT_MS = 900_000;

interface Report {
  readonly testResults: readonly {
    readonly assertionResults: readonly {
      readonly status: string;
      readonly failureMessages?: readonly string[];
    }[];
  }[];
}

/** A copy of the tree, in which one thing at a time is taken out. */
export class MutationCopy {
  private readonly folder = mkdtempSync(join(tmpdir(), "farpage-mutate-"));

  /** @param root of the tree. */
  constructor(root: string) {
    for (const name of [...FOLDERS, ...FILES]) {
      cpSync(join(root, name), join(this.folder, name), { recursive: true });
    }
    symlinkSync(join(root, "node_modules"), join(this.folder, "node_modules"));
  }

  /** Whether the tests pass as they are: if not, nothing can be said. */
  async isSound(chosen: readonly Mutation[]): Promise<boolean> {
    const files = [...new Set(chosen.map(({ test }) => test))];
    return (await this.runVitest(files, ALL_TIMEOUT_MS)) === "SURVIVES";
  }

  async judge({ file, from, to, test, name }: Mutation): Promise<Verdict> {
    const path = join(this.folder, file);
    const text = readFileSync(path, "utf8");
    if (text.split(from).length !== 2) return "STALE";
    const mutated = text.replace(from, () => to);
    writeFileSync(path, mutated);
    try {
      const pattern = name.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
      return await this.runVitest([test, "-t", pattern], TIMEOUT_MS);
    } finally {
      writeFileSync(path, text);
    }
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }

  private async runVitest(args: readonly string[], timeoutMs: number): Promise<Verdict> {
    const output = join(this.folder, "report.json");
    rmSync(output, { force: true });
    const command = ["--no-install", "vitest", "run", "--project", "pure", ...args];
    const reporting = ["--reporter=json", `--outputFile=${output}`];
    if (!(await ends(this.folder, [...command, ...reporting], timeoutMs))) return "hangs";
    let report: Report;
    try {
      report = JSON.parse(readFileSync(output, "utf8")) as Report;
    } catch {
      return "BROKEN";
    }
    const results = report.testResults.flatMap(({ assertionResults }) => assertionResults);
    if (results.length === 0) return "BROKEN";
    const failed = results.filter(({ status }) => status === "failed");
    const isLate = (text: string) => text.includes("Test timed out");
    if (failed.some(({ failureMessages = [] }) => !failureMessages.some(isLate))) return "caught";
    if (failed.length > 0) return "hangs";
    return results.some(({ status }) => status === "passed") ? "SURVIVES" : "NO TEST";
  }
}

/** Runs `npx` in a group of its own, which is killed when the time is over. */
function ends(cwd: string, args: readonly string[], timeoutMs: number): Promise<boolean> {
  // Vitest tells a vitest within it from one of its own by these.
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith("VITEST"));
  const env = Object.fromEntries(kept);
  const child = spawn("npx", args, { cwd, env, stdio: "ignore", detached: true });
  return new Promise((resolve, reject) => {
    let isLate = false;
    const timer = setTimeout(() => {
      isLate = true;
      if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    }, timeoutMs);
    child.once("error", reject);
    child.once("exit", () => {
      clearTimeout(timer);
      resolve(!isLate);
    });
  });
}

/**
 * Runs all mutations, or those whose check or file contains one of `wanted`, and prints a table.
 * @returns the exit status: 0 when every one of them was caught.
 */
export async function runMutations(root: string, wanted: readonly string[]): Promise<number> {
  const chosen = HOSTILE_MUTATIONS.filter(
    ({ check, file }) =>
      wanted.length === 0 || wanted.some((text) => check.includes(text) || file.includes(text)),
  );
  const copy = new MutationCopy(root);
  try {
    if (!(await copy.isSound(chosen))) {
      process.stdout.write("the tests fail as they are: nothing can be said\n");
      return 1;
    }
    let caught = 0;
    for (const mutation of chosen) {
      const verdict = await copy.judge(mutation);
      if (verdict === "caught" || verdict === "hangs") caught++;
      const { file, check, test, name } = mutation;
      process.stdout.write(`${verdict.padEnd(8)}  ${file}: ${check}  [${test}: ${name}]\n`);
    }
    process.stdout.write(`${caught} of ${chosen.length} caught\n`);
    return caught === chosen.length && caught > 0 ? 0 : 1;
  } finally {
    copy.remove();
  }
}

// SPDX-License-Identifier: MIT
// `npm run interop`: farpage on this side, stock Debian kernels in QEMU as its peers. See
// docs/interop.md.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { InteropCase } from "./case.js";
import { CASES } from "./cases/index.js";
import { type Kernel, prepareKernel, prepareRnbd } from "./kernel.js";
import {
  countsOf,
  lineOf,
  merged,
  type Result,
  type Run,
  summaryOf,
  tableOf,
  writePage,
} from "./matrix.js";
import { Network } from "./network.js";
import { choose, type Options, parseOptions, USAGE } from "./options.js";
import { type Need, provideBase, provideNeeds, whyNotHere } from "./packages.js";
import { stopAllProcesses } from "./processes.js";
import { type Job, Runner } from "./runner.js";

const PAGE = fileURLToPath(new URL("../../docs/interop.md", import.meta.url));

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Says that nothing runs here, and why. */
function skipAll(jobs: readonly Job[], reason: string): number {
  say(`skipped: all of the interop cases: ${reason}`);
  say(summaryOf({ passed: 0, failed: 0, skipped: jobs.length }));
  return 0;
}

/** What the chosen cases need and can't have, and why. */
async function provide(
  options: Options,
  jobs: readonly Job[],
  kernel: Kernel,
): Promise<Map<Need, string>> {
  const needs = new Set(jobs.flatMap((job) => job.subject.needs));
  if (options.capture) needs.add("tcpdump");
  const lacking = await provideNeeds(needs);
  if (needs.has("rnbd-modules")) {
    await prepareRnbd(options.cache, kernel).catch((error) => {
      lacking.set("rnbd-modules", `rtrs and rnbd were not built: ${messageOf(error)}`);
    });
  }
  return lacking;
}

/** Runs the jobs until the end or until `signal`. */
async function runJobs(
  options: Options,
  jobs: readonly Job[],
  kernel: Kernel,
  signal: AbortSignal,
): Promise<Result[]> {
  const lacking = await provide(options, jobs, kernel);
  const folder = mkdtempSync(join(tmpdir(), "farpage-interop-"));
  const network = new Network();
  const runner = new Runner({ ...options, network, kernel, folder, lacking });
  const results: Result[] = [];
  const interrupt = () => void runner.stop();
  signal.addEventListener("abort", interrupt);
  try {
    await network.up();
    for (const job of jobs) {
      if (signal.aborted) break;
      const result = await runner.run(job);
      if (signal.aborted) break;
      results.push(result);
      say(lineOf(result));
    }
  } finally {
    signal.removeEventListener("abort", interrupt);
    if (options.keep && runner.current !== null && !signal.aborted) {
      const { pid, folder: home } = runner.current;
      say(`kept: namespace ${network.name}, guest's QEMU ${pid}, its console in ${home}`);
      say(`end them with: kill ${pid}; ip netns del ${network.name}; rm -r ${folder}`);
    } else {
      await runner.stop();
      await stopAllProcesses();
      await network.down();
      const hasFailed = results.some((result) => result.verdict === "failed");
      if (hasFailed || options.capture) say(`consoles and outputs: ${folder}`);
      else rmSync(folder, { recursive: true, force: true });
    }
  }
  return results;
}

/** What `--json` of this command has written. */
function readRun(path: string): Run {
  return JSON.parse(readFileSync(path, "utf8")) as Run;
}

function namesOf(cases: readonly InteropCase[]): string[] {
  return cases.map(({ id }) => id);
}

function report(options: Options, results: readonly Result[], kernel: Kernel): void {
  const setting = {
    kernel: `Linux ${kernel.release} (Debian ${kernel.version})`,
    accelerator: options.kvm ? "KVM" : "software emulation",
    node: process.version,
    date: new Date().toISOString().slice(0, 10),
  };
  say(`\n${setting.kernel}, ${setting.accelerator}\n\n${tableOf(results)}\n`);
  const all =
    options.earlier === null
      ? results
      : merged(readRun(options.earlier), { setting, results }, namesOf(CASES));
  if (options.json !== null) {
    writeFileSync(options.json, `${JSON.stringify({ setting, results: all }, null, 2)}\n`);
  }
  if (options.docs) writePage(PAGE, all, setting);
}

async function main(): Promise<number> {
  const options = parseOptions(process.argv.slice(2));
  const jobs = choose(CASES, options);
  if (options.list) {
    for (const { subject, ip } of jobs) {
      const smoke = subject.smoke?.includes(ip) === true ? "smoke" : "";
      say([subject.id, subject.direction, `IPv${ip}`, smoke, subject.title].join("\t"));
    }
    return 0;
  }
  if (jobs.length === 0) throw new TypeError("no case has such a name: see --list");
  const reason = whyNotHere() ?? (await provideBase());
  if (reason !== null) return skipAll(jobs, reason);
  const abort = new AbortController();
  let status = 0;
  for (const [name, number] of [["SIGINT", 2] as const, ["SIGTERM", 15] as const]) {
    process.on(name, () => {
      status = 128 + number;
      abort.abort();
      void stopAllProcesses();
    });
  }
  const kernel = await prepareKernel(options.cache);
  const results = await runJobs(options, jobs, kernel, abort.signal);
  if (status !== 0) {
    say("interrupted");
    return status;
  }
  report(options, results, kernel);
  const counts = countsOf(results);
  say(summaryOf(counts));
  return counts.failed === 0 ? 0 : 1;
}

// A reader of our output that goes away ("--list | head") is no bug; guests are ended all the same.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
});
try {
  process.exitCode = await main();
} catch (error) {
  process.stderr.write(`interop: ${messageOf(error)}\n`);
  if (error instanceof TypeError) process.stderr.write(USAGE);
  process.exitCode = 2;
}

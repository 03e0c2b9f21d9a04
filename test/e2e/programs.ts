// SPDX-License-Identifier: MIT
// Starting the built program and stock clients, and ending exactly those processes again.

import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export const MAIN = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));

/** One JSON event of a `farpage --json` process. */
export type Event = Readonly<Record<string, unknown>> & { readonly event: string };

/** A running `farpage` command. */
export class Farpage {
  readonly child: ChildProcess;
  readonly events: Event[] = [];
  /** What it said on standard error. */
  stderr = "";
  readonly exited: Promise<number | null>;
  private readonly waiters: { name: string; from: number; resolve: (event: Event) => void }[] = [];

  /** @param inside a command that runs it somewhere else, such as `ip netns exec NAME`. */
  constructor(
    args: readonly string[],
    env: Readonly<Record<string, string>> = {},
    inside: readonly string[] = [],
  ) {
    const [program = "", ...rest] = [...inside, process.execPath, MAIN, ...args, "--json"];
    this.child = spawn(program, rest, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...env },
    });
    running.add(this);
    this.exited = new Promise((resolve) => {
      this.child.once("exit", (status) => {
        running.delete(this);
        resolve(status);
      });
    });
    const { stdout, stderr } = this.child;
    if (stdout === null || stderr === null) throw new Error("no pipes");
    createInterface({ input: stdout }).on("line", (line) => this.take(JSON.parse(line) as Event));
    stderr.on("data", (text) => {
      this.stderr += String(text);
    });
  }

  get pid(): number {
    return this.child.pid ?? -1;
  }

  /** The first event of that name from index `from` on; rejects when the process ends before. */
  async event(name: string, from = 0, timeoutMs = 30_000): Promise<Event> {
    const there = this.events.slice(from).find((event) => event.event === name);
    if (there !== undefined) return there;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const say = (why: string) => reject(new Error(`no "${name}" event: ${why}\n${this.stderr}`));
      timer = setTimeout(() => say(`none in ${timeoutMs} ms`), timeoutMs);
      this.exited.then((status) => say(`the process ended with status ${status}`));
    });
    const found = new Promise<Event>((resolve) => this.waiters.push({ name, from, resolve }));
    try {
      return await Promise.race([found, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** SIGTERM and wait. @returns the exit status. */
  async stop(): Promise<number | null> {
    this.child.kill("SIGTERM");
    return this.exited;
  }

  /** SIGKILL and wait. */
  async kill(): Promise<void> {
    this.child.kill("SIGKILL");
    await this.exited;
  }

  private take(event: Event): void {
    const index = this.events.push(event) - 1;
    for (let i = this.waiters.length - 1; i >= 0; i--) {
      const waiter = this.waiters[i];
      if (waiter === undefined || waiter.name !== event.event || index < waiter.from) continue;
      this.waiters.splice(i, 1);
      waiter.resolve(event);
    }
  }
}

const running = new Set<Farpage>();

/** Ends every farpage process that this test file started; for `afterEach`. */
export async function stopAll(): Promise<void> {
  await Promise.all([...running].map((farpage) => farpage.kill()));
}

/** Runs a stock program to its end. @throws with its output when it fails. */
export function run(
  program: string,
  args: readonly string[],
  timeoutMs = 120_000,
): Promise<{ readonly stdout: string; readonly stderr: string }> {
  return new Promise((resolve, reject) => {
    execFile(
      program,
      [...args],
      { timeout: timeoutMs, maxBuffer: 64 << 20 },
      (error, stdout, stderr) => {
        if (error === null) resolve({ stdout, stderr });
        else
          reject(new Error(`${program} ${args.join(" ")}: ${error.message}\n${stdout}\n${stderr}`));
      },
    );
  });
}

/** Whether a program is installed. */
export function has(program: string): boolean {
  try {
    execFileSync("sh", ["-c", `command -v ${program}`], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** A folder of its own for one test. */
export function scratch(): { readonly path: string; readonly remove: () => void } {
  const path = mkdtempSync(join(tmpdir(), "farpage-e2e-"));
  return { path, remove: () => rmSync(path, { recursive: true, force: true }) };
}

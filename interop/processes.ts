// SPDX-License-Identifier: MIT
// Processes of this side: stock programs that run to their end, and ones that run until a case is
// over. Every one is known here until it has ended, so that nothing outlives the command; only
// processes that were started here are ever signalled, each by its number.

import { type ChildProcess, spawn } from "node:child_process";

/** Bytes of a process's output that are kept; a longer one loses its beginning. */
const OUTPUT_KEPT = 4 << 20;
/** Between SIGTERM and SIGKILL. */
const GRACE_MS = 10_000;

export interface ProcessOptions {
  /** Milliseconds after which it is killed and counts as failed. */
  readonly timeoutMs?: number;
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
}

const children = new Set<Process>();

/** A process and all that it has said. */
export class Process {
  readonly command: string;
  /** Standard output and standard error, in the order in which they came. */
  output = "";
  /** Standard output alone. */
  stdout = "";
  /** Standard error. */
  stderr = "";
  /** Resolves with the exit status; 128 + the number of the signal that ended it. */
  readonly exited: Promise<number>;
  status: number | null = null;
  private readonly child: ChildProcess;
  private readonly watchers = new Set<() => void>();

  constructor(argv: readonly string[], options: ProcessOptions = {}) {
    const [program, ...args] = argv;
    if (program === undefined) throw new Error("no program");
    this.command = argv.join(" ");
    this.child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, ...options.env },
      cwd: options.cwd,
      // A Ctrl-C in the terminal is for the harness, which ends its processes in order.
      detached: true,
    });
    children.add(this);
    this.child.stdout?.on("data", (bytes) => this.take(String(bytes), true));
    this.child.stderr?.on("data", (bytes) => this.take(String(bytes), false));
    this.exited = this.watchExit(options.timeoutMs);
  }

  get pid(): number {
    return this.child.pid ?? -1;
  }

  /** Waits until `pattern` is found in what it has said. @throws when it ends or is late. */
  async waitFor(pattern: RegExp, timeoutMs = 60_000): Promise<RegExpExecArray> {
    const found = await this.until(() => pattern.exec(this.output), timeoutMs);
    if (found !== null) return found;
    const why = this.status === null ? `not in ${timeoutMs} ms` : `it ended with ${this.status}`;
    throw new Error(`${this.command}: no ${pattern}: ${why}\n${tail(this.output)}`);
  }

  /** Waits until `look` gives something. @returns null when the process ended or time ran out. */
  async until<T>(look: () => T | null, timeoutMs: number): Promise<T | null> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const found = look();
      const left = deadline - Date.now();
      if (found !== null || this.status !== null || left <= 0) return found;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(done, left);
        const watchers = this.watchers;
        watchers.add(done);
        function done(): void {
          clearTimeout(timer);
          watchers.delete(done);
          resolve();
        }
      });
    }
  }

  /** Sends a signal, if it still runs. */
  signal(name: NodeJS.Signals): void {
    if (this.status === null) this.child.kill(name);
  }

  /** SIGTERM, SIGKILL if that isn't heard. @returns the exit status. */
  async stop(graceMs = GRACE_MS): Promise<number> {
    this.signal("SIGTERM");
    const timer = setTimeout(() => this.signal("SIGKILL"), graceMs);
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }

  private take(text: string, isStdout: boolean): void {
    this.output = (this.output + text).slice(-OUTPUT_KEPT);
    if (isStdout) this.stdout = (this.stdout + text).slice(-OUTPUT_KEPT);
    else this.stderr = (this.stderr + text).slice(-OUTPUT_KEPT);
    this.wake();
  }

  private wake(): void {
    for (const watcher of [...this.watchers]) watcher();
  }

  private watchExit(timeoutMs: number | undefined): Promise<number> {
    let timer: NodeJS.Timeout | undefined;
    if (timeoutMs !== undefined) {
      timer = setTimeout(() => {
        this.take(`\n(killed after ${timeoutMs} ms)\n`, false);
        this.signal("SIGKILL");
      }, timeoutMs);
    }
    return new Promise((resolve) => {
      const end = (status: number) => {
        clearTimeout(timer);
        children.delete(this);
        this.status = status;
        this.wake();
        resolve(status);
      };
      this.child.once("error", (error) => {
        this.take(`${error.message}\n`, false);
        end(127);
      });
      this.child.once("close", (code, signal) => {
        end(code ?? 128 + (signal === "SIGKILL" ? 9 : signal === "SIGTERM" ? 15 : 1));
      });
    });
  }
}

/** Runs a program to its end. @returns what it wrote to standard output. @throws when it fails. */
export async function run(argv: readonly string[], options: ProcessOptions = {}): Promise<string> {
  const process = new Process(argv, { timeoutMs: 600_000, ...options });
  const status = await process.exited;
  if (status === 0) return process.stdout;
  // What went wrong is often said at once, and long figures after it.
  const { stderr, stdout } = process;
  throw new Error(`${process.command}: status ${status}\n${tail(stderr)}\n${tail(stdout)}`);
}

/** Whether a program runs to its end with status 0. */
export async function succeeds(argv: readonly string[]): Promise<boolean> {
  return (await new Process(argv, { timeoutMs: 60_000 }).exited) === 0;
}

/** Ends every process that is still there; for the end of the command. */
export async function stopAllProcesses(): Promise<void> {
  await Promise.all([...children].map((child) => child.stop(2000)));
}

/** The last lines of a text. */
export function tail(text: string, lines = 30): string {
  return text.trimEnd().split("\n").slice(-lines).join("\n");
}

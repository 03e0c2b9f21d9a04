// SPDX-License-Identifier: MIT
// farpage on this side, inside the network namespace.

import { fileURLToPath } from "node:url";
import type { Network } from "./network.js";
import { Process, tail } from "./processes.js";

const MAIN = fileURLToPath(new URL("../cli/main.js", import.meta.url));

/** One JSON event of a `farpage --json` process. */
export type Event = Readonly<Record<string, unknown>> & { readonly event: string };

/** A running `farpage` command. */
export class Farpage {
  readonly process: Process;

  constructor(network: Network, args: readonly string[]) {
    const argv = [process.execPath, MAIN, ...args, "--json"];
    this.process = new Process(network.inside(argv), { env: { NO_COLOR: "1" } });
  }

  /** All events so far. */
  get events(): Event[] {
    const lines = this.process.stdout.split("\n").slice(0, -1);
    return lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line) as Event);
  }

  /**
   * The first event of one of these names (separated by blanks) from index `from` on.
   * @throws when it ends or is late.
   */
  async event(names: string, from = 0, timeoutMs = 60_000): Promise<Event> {
    const wanted = names.split(" ");
    const look = () => this.events.slice(from).find(({ event }) => wanted.includes(event)) ?? null;
    const found = await this.process.until(look, timeoutMs);
    if (found !== null) return found;
    throw new Error(`farpage: no "${names}" event: ${this.evidence()}`);
  }

  /** Waits for its end. @throws when its status is not 0, or when that takes too long. */
  async end(timeoutMs = 180_000): Promise<void> {
    await this.process.until(() => null, timeoutMs);
    if (this.process.status === 0) return;
    const why = this.process.status === null ? `no end in ${timeoutMs} ms` : "failed";
    await this.process.stop(2000);
    throw new Error(`farpage ${why}: ${this.evidence()}`);
  }

  /** SIGTERM and wait. @throws when its status is not 0. */
  async stop(): Promise<void> {
    const status = await this.process.stop();
    if (status !== 0) throw new Error(`farpage did not stop well: ${this.evidence()}`);
  }

  /** SIGKILL and wait. */
  async kill(): Promise<void> {
    this.process.signal("SIGKILL");
    await this.process.exited;
  }

  /** Its command, status and the end of its output, for an error. */
  evidence(): string {
    const { command, status, output } = this.process;
    const words = command.slice(command.indexOf(MAIN) + MAIN.length + 1);
    return `farpage ${words}\nstatus ${status ?? "none yet"}\n${tail(output)}`;
  }
}

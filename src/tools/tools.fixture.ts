// SPDX-License-Identifier: MIT
// What the tests of this room stand on: hosts on loopback, tools in both roles, what they told.

import { type Host, openHost } from "../runtime/index.js";
import type { ToolEnvironment } from "./environment.js";

/**
 * Loopback address number `n`, 1 .. 254, of this process alone: UDP port 4791 can be bound once per
 * address, and tests of several checkouts may run at a time.
 */
export function loopback(n: number): string {
  return `127.${128 + ((process.pid >>> 8) & 63)}.${process.pid & 0xff}.${n}`;
}

/** What a tool told, in order. */
export type Told = { readonly event: string; readonly [field: string]: unknown };

/** A tool's surroundings in a test: a host, a Ctrl-C, what was told. */
export class Stage implements AsyncDisposable {
  readonly host: Host;
  readonly told: Told[] = [];
  readonly environment: ToolEnvironment;
  private readonly controller = new AbortController();
  private readonly listeners = new Set<() => void>();

  private constructor(host: Host) {
    this.host = host;
    this.environment = {
      host,
      signal: this.controller.signal,
      report: (event, fields) => {
        this.told.push({ event, ...fields });
        for (const listener of this.listeners) listener();
      },
    };
  }

  static async open(...addresses: string[]): Promise<Stage> {
    return new Stage(await openHost({ addresses }));
  }

  /** The user's Ctrl-C. */
  interrupt(): void {
    this.controller.abort();
  }

  /** Waits until `event` was told for the `count`-th time. */
  async heard(event: string, count = 1): Promise<Told> {
    for (;;) {
      const found = this.told.filter((told) => told.event === event)[count - 1];
      if (found !== undefined) return found;
      await new Promise<void>((resolve) => {
        const listener = () => {
          this.listeners.delete(listener);
          resolve();
        };
        this.listeners.add(listener);
      });
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.host.close();
  }
}

// SPDX-License-Identifier: MIT
// What the tests of this room stand on: hosts on loopback, tools in both roles, what they told.

import { FarpageError, type Host, IpAddress, openHost } from "../runtime/index.js";
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
    for (;;) {
      try {
        return new Stage(await openHost({ addresses }));
      } catch (error) {
        // This machine has one IPv6 loopback address: another test may hold it for a moment.
        const isTaken = error instanceof FarpageError && error.code === "EADDRINUSE";
        if (!isTaken || !addresses.includes("::1")) throw error;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  /** Another tool on the same host. */
  static beside(other: Stage): Stage {
    return new Stage(other.host);
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

/** Two stages that reach each other, and the address of the first. */
export interface Both extends AsyncDisposable {
  readonly server: Stage;
  readonly client: Stage;
  readonly address: IpAddress;
}

/**
 * Two hosts on loopback, or with IPv6, which has one loopback address, one that talks to itself.
 * @param n number of two `loopback` addresses, n and n + 1, that nothing else in the process has.
 */
export async function both(family: 4 | 6, n: number): Promise<Both> {
  const address = family === 4 ? loopback(n) : "::1";
  const server = await Stage.open(address);
  const client = family === 4 ? await Stage.open(loopback(n + 1)) : Stage.beside(server);
  return {
    server,
    client,
    address: IpAddress.parse(address),
    async [Symbol.asyncDispose]() {
      await Promise.all([client[Symbol.asyncDispose](), server[Symbol.asyncDispose]()]);
    },
  };
}

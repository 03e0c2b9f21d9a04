// SPDX-License-Identifier: MIT
// Two network namespaces with several links between them, which can be cut and slowed down.

import { execFileSync } from "node:child_process";

function ip(...args: readonly string[]): void {
  execFileSync("ip", args, { stdio: ["ignore", "ignore", "pipe"] });
}

/** Whether this machine lets us make namespaces; why not is printed by whoever skips. */
export function canMakeNamespaces(): boolean {
  const name = `fp-try-${process.pid}`;
  try {
    ip("netns", "add", name);
    ip("netns", "del", name);
    return true;
  } catch {
    return false;
  }
}

/** See the head of the file. Link `i` joins `clients[i]` and `servers[i]`. */
export class TwoNamespaces {
  readonly clients: readonly string[];
  readonly servers: readonly string[];
  private readonly client = `fp-c-${process.pid}`;
  private readonly server = `fp-s-${process.pid}`;

  constructor(linkCount: number) {
    const nets = Array.from({ length: linkCount }, (_, i) => `10.213.${i + 1}`);
    this.clients = nets.map((net) => `${net}.1`);
    this.servers = nets.map((net) => `${net}.2`);
    try {
      for (const name of [this.client, this.server]) {
        ip("netns", "add", name);
        ip("-n", name, "link", "set", "lo", "up");
      }
      for (const [i, address] of this.clients.entries()) {
        const name = `p${i}`;
        const peer = ["peer", "name", name, "netns", this.server];
        ip("-n", this.client, "link", "add", name, "type", "veth", ...peer);
        ip("-n", this.client, "addr", "add", `${address}/24`, "dev", name);
        ip("-n", this.server, "addr", "add", `${this.servers[i]}/24`, "dev", name);
        for (const side of [this.client, this.server]) ip("-n", side, "link", "set", name, "up");
      }
    } catch (error) {
      this.remove();
      throw error;
    }
  }

  /** What runs a program in there. */
  get inClient(): readonly string[] {
    return ["ip", "netns", "exec", this.client];
  }

  get inServer(): readonly string[] {
    return ["ip", "netns", "exec", this.server];
  }

  /** Loses everything on a link, both ways, without a word to either end's program. */
  cut(link: number): void {
    ip("-n", this.server, "link", "set", `p${link}`, "down");
  }

  mend(link: number): void {
    ip("-n", this.server, "link", "set", `p${link}`, "up");
  }

  /** @param megabits per second that each link carries, each way. */
  limit(megabits: number): void {
    for (const side of [this.client, this.server]) {
      for (const i of this.clients.keys()) {
        const shape = ["tbf", "rate", `${megabits}mbit`, "burst", "64k", "latency", "400ms"];
        const args = ["-n", side, "qdisc", "replace", "dev", `p${i}`, "root", ...shape];
        execFileSync("tc", args, { stdio: ["ignore", "ignore", "pipe"] });
      }
    }
  }

  remove(): void {
    for (const name of [this.client, this.server]) {
      try {
        ip("netns", "del", name);
      } catch {
        // It was never made.
      }
    }
  }
}

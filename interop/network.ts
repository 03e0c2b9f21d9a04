// SPDX-License-Identifier: MIT
// The network between this side and the guest: a network namespace of its own, in it two links
// (each a bridge with a tap device), so that sessions can have two paths.
// Nothing of the machine's own network is touched, and the whole goes with the namespace.

import { readdirSync } from "node:fs";
import { run } from "./processes.js";

const PREFIX = "farpage-interop-";
/** Room for a RoCE MTU of 4096. */
const LINK_MTU = 9000;

export type IpVersion = 4 | 6;
/** The two links; the guest has a network interface and an rxe device on each. */
export const LINKS = [0, 1] as const;
export type Link = (typeof LINKS)[number];

/** The guest's number; this side's is 1. */
export const GUEST_HOST = 2;

/** Address of a host on a link. */
export function addressOf(host: number, ip: IpVersion, link: Link = 0): string {
  return ip === 4 ? `10.${78 + link}.0.${host}` : `fd00:${78 + link}::${host}`;
}

export class Network {
  /** Name of the namespace. */
  readonly name = `${PREFIX}${process.pid}`;
  private isUp = false;

  /**
   * The command that runs `argv` inside the namespace.
   * @param isTied it ends with this process, even if that is killed.
   */
  inside(argv: readonly string[], isTied = true): string[] {
    const tie = isTied ? ["setpriv", "--pdeathsig", "KILL"] : [];
    return ["ip", "netns", "exec", this.name, ...tie, ...argv];
  }

  bridge(link: Link): string {
    return `br${link}`;
  }

  /** The tap device of a guest on a link. */
  tap(host: number, link: Link): string {
    return `tap${link}-${host}`;
  }

  async up(): Promise<void> {
    await removeStale();
    await run(["ip", "netns", "add", this.name]);
    this.isUp = true;
    await this.ip("link", "set", "lo", "up");
    for (const link of LINKS) {
      const bridge = this.bridge(link);
      await this.ip("link", "add", bridge, "type", "bridge");
      // The bridge is a wire: it learns, and does nothing of its own that takes time.
      const wire = ["mcast_snooping", "0", "stp_state", "0", "forward_delay", "0"];
      await this.ip("link", "set", bridge, "type", "bridge", ...wire);
      const tap = this.tap(GUEST_HOST, link);
      await this.ip("tuntap", "add", "dev", tap, "mode", "tap");
      await this.ip("link", "set", tap, "mtu", `${LINK_MTU}`, "master", bridge, "up");
      await this.ip("link", "set", bridge, "mtu", `${LINK_MTU}`, "up");
      await this.ip("addr", "add", `${addressOf(1, 4, link)}/24`, "dev", bridge);
      await this.ip("-6", "addr", "add", `${addressOf(1, 6, link)}/64`, "dev", bridge, "nodad");
    }
  }

  /** Removes the namespace and with it every device. The processes in it have ended before. */
  async down(): Promise<void> {
    if (!this.isUp) return;
    this.isUp = false;
    await run(["ip", "netns", "del", this.name]);
  }

  /** `ip ARGS` inside the namespace. */
  async ip(...args: readonly string[]): Promise<string> {
    return run(this.inside(["ip", ...args]));
  }
}

/** Namespaces that a run left behind which was killed the hard way. */
async function removeStale(): Promise<void> {
  for (const name of namesOf("/run/netns")) {
    if (!name.startsWith(PREFIX)) continue;
    const pid = Number(name.slice(PREFIX.length));
    if (Number.isSafeInteger(pid) && pid > 0 && !isAlive(pid)) {
      await run(["ip", "netns", "del", name]);
    }
  }
}

function namesOf(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

// SPDX-License-Identifier: MIT
// What a case is, and what it is given to run.

import type { Farpage } from "./farpage.js";
import type { Guest } from "./guest.js";
import type { IpVersion, Link, Network } from "./network.js";
import type { Need } from "./packages.js";

/** Who begins: connects, maps, sends first. */
export type Direction = "kernel to farpage" | "farpage to kernel";

/** One case: it runs once for each of its IP versions, in a guest that the last one left whole. */
export interface InteropCase {
  /** Unique, of words and dashes; begins with the family. */
  readonly id: string;
  /** What is shown, in one line. */
  readonly title: string;
  readonly direction: Direction;
  readonly ips: readonly IpVersion[];
  /** IP versions in which it belongs to the smoke set. */
  readonly smoke?: readonly IpVersion[];
  readonly needs: readonly Need[];
  /** After so long it has failed and its guest is ended. Default: five minutes. */
  readonly timeoutSeconds?: number;
  /** Gets a guest that was booted for it, which is ended after it. */
  readonly fresh?: boolean;
  /**
   * Loses no packet, and can't end once the kernel has run a registration twice (`evidence.ts`):
   * then it is ended, and tried again in a fresh guest, twice at most.
   */
  readonly mayHang?: boolean;
  /**
   * Does it, and throws an error with the evidence when it fails.
   * @returns a word for the matrix, such as a figure, or nothing.
   * @throws {@link PeerFault} when the kernel, by evidence, is to blame.
   * @throws {@link Unfit} when this machine or kernel lacks something.
   */
  run(context: CaseContext): Promise<string | undefined>;
}

/** What a case runs with. All that it starts is ended after it. */
export interface CaseContext {
  readonly ip: IpVersion;
  readonly guest: Guest;
  readonly network: Network;
  /** An empty folder on this side, removed after the case. */
  readonly folder: string;
  /** This side's address in the case's IP version. */
  here(link?: Link): string;
  /** The guest's address in the case's IP version. */
  there(link?: Link): string;
  /** Starts `farpage ARGS --json` in the namespace. */
  farpage(...args: readonly string[]): Farpage;
  /** Runs a stock program of this side in the namespace. @returns its standard output. */
  run(...argv: readonly string[]): Promise<string>;
  /** Captures the packets on link 0 from now on. @returns what ends it, and tells the file. */
  capture(): Promise<() => Promise<string>>;
  /** Does this after the case, whatever its end; the last one first. */
  finally(undo: () => Promise<void>): void;
}

/** The peer is to blame, and this is the evidence. */
export class PeerFault extends Error {}

/** Such a fault as another attempt may not meet. */
export class PassingFault extends PeerFault {}

/** The case can't be run here, for a reason that is no fault. */
export class Unfit extends Error {}

/** @throws an error with the evidence unless `holds`. */
export function check(holds: boolean, what: string, evidence = ""): asserts holds {
  if (!holds) throw new Error(evidence === "" ? what : `${what}\n${evidence}`);
}

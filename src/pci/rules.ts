// SPDX-License-Identifier: MIT
// The kernel's rules by release: what differs between Linux 4.20 and now is data.

import { FarpageError } from "../base/index.js";
import { LISTED_HOST_BRIDGES, type ListedHostBridge } from "./host-bridges.js";

/** The rules of one release of the kernel. */
export interface RuleSet {
  /** As asked for. */
  readonly release: string;
  /** Newer than what is known here: the newest known rules stand in. */
  readonly isExtrapolated: boolean;
  /** Pairs without a common bridge may go through the host bridge. */
  readonly hasHostRoute: boolean;
  /** So may pairs that have one, where ACS sends them up. */
  readonly takesRedirected: boolean;
  /** Nothing passes the host bridge while an IOMMU driver runs. */
  readonly isStoppedByIommu: boolean;
  /** AMD family 17h and later may, whatever the list says. */
  readonly hasCpuRule: boolean;
  /** A root port at any device number may stand for its root bus, not only device 00.0. */
  readonly takesAnyRootPort: boolean;
  /**
   * ACS counts at the two ports where the ways part, and there only what it does to the pair:
   * request redirection at the client's, completion redirection at the provider's. Else every
   * function of both ways counts, with any of these bits.
   */
  readonly isJudgedAtParting: boolean;
  /** `pci=config_acs=` exists. */
  readonly hasConfigAcs: boolean;
  /** The log names a host bridge that isn't listed, and has 128 bytes for its list of ports. */
  readonly logsHostBridge: boolean;
  readonly hostBridges: readonly ListedHostBridge[];
}

/** Releases at which a rule or the list changed, oldest first; `next`: not in a release yet. */
export const KERNEL_RELEASES: readonly string[] = [
  "4.20",
  "5.2",
  "5.4",
  "5.6",
  "5.7",
  "5.8",
  "5.9",
  "5.14",
  "5.18",
  "5.19",
  "6.1",
  "6.11",
  "7.1",
  "7.2",
  "next",
];

/** The newest release whose rules are known. */
export const NEWEST_KERNEL = "7.2";

/** Codes of the `FarpageError` that `p2pPath` throws. */
export type PathErrorCode = "PCI_NO_SUCH_FUNCTION" | "PCI_UNKNOWN_KERNEL";

const SETS = new Map<string, RuleSet>();

/** @throws FarpageError `PCI_UNKNOWN_KERNEL` for what isn't a release from 4.20 on. */
export function ruleSet(release: string): RuleSet {
  let rules = SETS.get(release);
  if (rules === undefined) {
    rules = makeRules(release);
    if (SETS.size < 256) SETS.set(release, rules);
  }
  return rules;
}

/** Whether a release is judged by the rules of the newest known one, for want of its own. */
export function isNewerThanKnown(release: string): boolean {
  const number = numberOf(release);
  return release !== "next" && number !== null && number > (numberOf(NEWEST_KERNEL) as number);
}

function makeRules(release: string): RuleSet {
  const number = numberOf(release);
  if (number === null || number < (numberOf("4.20") as number)) {
    throw new FarpageError<PathErrorCode>(
      "PCI_UNKNOWN_KERNEL",
      `"${release.slice(0, 40)}" is no kernel release from 4.20 on; known: ` +
        `${KERNEL_RELEASES.join(" ")}`,
    );
  }
  const since = (first: string) => number >= (numberOf(first) as number);
  return {
    release,
    isExtrapolated: isNewerThanKnown(release),
    hasHostRoute: since("5.2"),
    takesRedirected: since("5.4"),
    isStoppedByIommu: !since("5.4"),
    hasCpuRule: since("5.9"),
    takesAnyRootPort: since("5.19"),
    isJudgedAtParting: since("next"),
    hasConfigAcs: since("6.11"),
    logsHostBridge: since("5.14"),
    hostBridges: LISTED_HOST_BRIDGES.filter(
      (one) => since(one.since) && (one.until === null || !since(one.until)),
    ),
  };
}

/** `6.1.0-18-amd64` counts as 6.1. */
function numberOf(release: string): number | null {
  if (release === "next") return Number.MAX_SAFE_INTEGER;
  const match = /^([0-9]{1,3})\.([0-9]{1,3})(?![0-9])/.exec(release);
  return match === null ? null : Number(match[1]) * 1000 + Number(match[2]);
}

/** The first known release after `rules`' own in which `test` holds; null: in none. */
export function firstLaterRelease(
  rules: RuleSet,
  test: (later: RuleSet) => boolean,
): string | null {
  const own = numberOf(rules.release) as number;
  for (const release of KERNEL_RELEASES) {
    if ((numberOf(release) as number) > own && test(ruleSet(release))) return release;
  }
  return null;
}

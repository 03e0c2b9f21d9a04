// SPDX-License-Identifier: MIT
// Who may use what a server has: rules over the client's address, its session's name and the name
// of the thing (a volume). The first rule that fits decides; what no rule fits is refused.
//
// An address is known as well as the network makes it known: see docs/rtrs.md, "Who may do what".
// A session's name is what the client says, so it divides clients that one trusts, no others.

import { FarpageError, type IpAddress, IpPrefix } from "../base/index.js";

/**
 * What a rule gives:
 * - `none`: nothing, so that an exception can stand in front of a wider rule;
 * - `ro`: reading;
 * - `rw`: reading and writing, as far as the protocol on top lets several clients do that;
 * - `exclusive`: both, while nobody else has the thing open in any way.
 */
export type AccessLevel = "none" | "ro" | "rw" | "exclusive";

/** One rule, as written and in parts. */
export interface AccessRule {
  /** The rule's text: errors and logs name it by that. */
  readonly text: string;
  /** Clients whose address is in one of them; empty: in any. */
  readonly clients: readonly IpPrefix[];
  /** The session's name, "*" at the end standing for any further bytes; null: any. */
  readonly session: string | null;
  /** The thing's name, in the same way; null: any. */
  readonly volume: string | null;
  readonly level: AccessLevel;
}

const USAGE =
  "CLIENTS[,session=NAME][,volume=NAME][,ro|rw|exclusive|none], where CLIENTS is an address, " +
  "a network such as 192.0.2.0/24, loopback or any";

const LOOPBACK = ["127.0.0.0/8", "::1"];
const LEVELS: readonly string[] = ["none", "ro", "rw", "exclusive"];

/** What holds behind all rules that are given: this machine's own clients may do everything. */
export const LOOPBACK_RULE: AccessRule = {
  text: "loopback,rw (the default)",
  clients: LOOPBACK.map((text) => IpPrefix.parse(text)),
  session: null,
  volume: null,
  level: "rw",
};

/**
 * Parses one rule. A comma, "*" or "%" within a name is written as %2C, %2A, %25.
 * @throws FarpageError EINVAL naming the rule and what is wrong.
 */
export function parseAccessRule(text: string): AccessRule {
  const [clients = "", ...words] = text.split(",").map((word) => word.trim());
  let session: string | null = null;
  let volume: string | null = null;
  let level: AccessLevel | null = null;
  for (const word of words) {
    const [, key, value] = /^(session|volume)=(.+)$/.exec(word) ?? [];
    if (key === "session" && session === null) session = checkName(value as string, text);
    else if (key === "volume" && volume === null) volume = checkName(value as string, text);
    else if (LEVELS.includes(word) && level === null) level = word as AccessLevel;
    else throw invalid(text, `"${word}" is unknown or there twice; write ${USAGE}`);
  }
  return { text, clients: parseClients(clients, text), session, volume, level: level ?? "rw" };
}

/**
 * Parses a file of rules: one a line, in the order in which they are asked; what follows a "#" is
 * a comment.
 * @throws FarpageError EINVAL naming the line.
 */
export function parseAccessFile(text: string): readonly AccessRule[] {
  const rules: AccessRule[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const rule = line.replace(/#.*$/, "").trim();
    if (rule === "") continue;
    try {
      rules.push(parseAccessRule(rule));
    } catch (error) {
      if (!(error instanceof FarpageError)) throw error;
      throw new FarpageError(error.code, `line ${index + 1}: ${error.message}`, { cause: error });
    }
  }
  return rules;
}

function parseClients(text: string, rule: string): readonly IpPrefix[] {
  if (text === "any") return [];
  if (text === "loopback") return LOOPBACK_RULE.clients;
  try {
    return [IpPrefix.parse(text)];
  } catch (error) {
    throw invalid(rule, `${error instanceof Error ? error.message : error}; write ${USAGE}`);
  }
}

/** Names stay as written, so that an escaped "*" is told from one that stands for anything. */
function checkName(name: string, rule: string): string {
  try {
    decodeURIComponent(name);
  } catch {
    throw invalid(rule, `the name "${name}" has a bad %-escape`);
  }
  if (name.slice(0, -1).includes("*")) {
    throw invalid(rule, `the name "${name}" has a "*" that is not its last character`);
  }
  return name;
}

function invalid(rule: string, what: string): FarpageError {
  return new FarpageError("EINVAL", `rule "${rule}": ${what}`);
}

function fits(pattern: string | null, name: string): boolean {
  if (pattern === null) return true;
  const isOpen = pattern.endsWith("*");
  const wanted = decodeURIComponent(isOpen ? pattern.slice(0, -1) : pattern);
  return isOpen ? name.startsWith(wanted) : name === wanted;
}

/** The rules of a server, in order, with `LOOPBACK_RULE` behind them. */
export class AccessRules {
  readonly rules: readonly AccessRule[];

  constructor(rules: readonly AccessRule[] = []) {
    this.rules = [...rules, LOOPBACK_RULE];
  }

  /**
   * Whether a client with this address could be given anything at all. One that could not is
   * refused before it costs memory.
   */
  admits(client: IpAddress): boolean {
    for (const rule of this.rules) {
      if (!isClient(rule, client)) continue;
      if (rule.level !== "none") return true;
      if (rule.session === null && rule.volume === null) return false;
    }
    return false;
  }

  /** The rule that decides; null when none fits, which refuses. */
  find(client: IpAddress, session: string, volume: string): AccessRule | null {
    const found = this.rules.find(
      (rule) => isClient(rule, client) && fits(rule.session, session) && fits(rule.volume, volume),
    );
    return found ?? null;
  }
}

function isClient(rule: AccessRule, client: IpAddress): boolean {
  return rule.clients.length === 0 || rule.clients.some((prefix) => prefix.contains(client));
}

// SPDX-License-Identifier: MIT

import { FarpageError } from "./errors.js";

/**
 * An IPv4 or IPv6 address as a GID: sixteen bytes in four big-endian words, IPv4 as ::ffff:a.b.c.d
 * (RoCEv2 annex A17; facts page "GIDs and addresses"). Immutable; compare with `equals`, never
 * `===`.
 */
export class IpAddress {
  readonly family: 4 | 6;
  /** Words 0..3, each 0 .. 2^32 - 1, word 0 the most significant. */
  readonly word0: number;
  readonly word1: number;
  readonly word2: number;
  readonly word3: number;

  constructor(word0: number, word1: number, word2: number, word3: number) {
    this.word0 = word0 >>> 0;
    this.word1 = word1 >>> 0;
    this.word2 = word2 >>> 0;
    this.word3 = word3 >>> 0;
    this.family = this.word0 === 0 && this.word1 === 0 && this.word2 === 0xffff ? 4 : 6;
  }

  static v4(address: number): IpAddress {
    return new IpAddress(0, 0, 0xffff, address);
  }

  /** Reads a 16-byte GID at `offset`. */
  static fromGid(view: DataView, offset: number): IpAddress {
    return new IpAddress(
      view.getUint32(offset),
      view.getUint32(offset + 4),
      view.getUint32(offset + 8),
      view.getUint32(offset + 12),
    );
  }

  /**
   * Parses "192.0.2.1", "2001:db8::1" or "::ffff:192.0.2.1"; no zone, no port, no brackets.
   * @throws FarpageError EINVAL when `text` is no address.
   */
  static parse(text: string): IpAddress {
    const address = text.includes(":") ? parseV6(text) : parseV4(text);
    if (address === null) {
      throw new FarpageError("EINVAL", `"${text}" is not an IPv4 or IPv6 address`);
    }
    return address;
  }

  equals(other: IpAddress): boolean {
    return (
      this.word3 === other.word3 &&
      this.word2 === other.word2 &&
      this.word1 === other.word1 &&
      this.word0 === other.word0
    );
  }

  /** Writes the 16-byte GID at `offset`. */
  writeGid(view: DataView, offset: number): void {
    view.setUint32(offset, this.word0);
    view.setUint32(offset + 4, this.word1);
    view.setUint32(offset + 8, this.word2);
    view.setUint32(offset + 12, this.word3);
  }

  /** The usual text form; IPv6 compressed as RFC 5952 wants it. */
  toString(): string {
    return this.family === 4 ? formatV4(this.word3) : formatV6(this.groups());
  }

  private groups(): number[] {
    return [this.word0, this.word1, this.word2, this.word3].flatMap((w) => [w >>> 16, w & 0xffff]);
  }
}

function parseV4(text: string): IpAddress | null {
  const word = parseV4Word(text);
  return word === null ? null : IpAddress.v4(word);
}

function parseV4Word(text: string): number | null {
  const parts = text.split(".");
  if (parts.length !== 4) return null;
  let word = 0;
  for (const part of parts) {
    if (!/^(0|[1-9]\d{0,2})$/.test(part) || Number(part) > 255) return null;
    word = word * 256 + Number(part);
  }
  return word;
}

function parseV6(text: string): IpAddress | null {
  let groupsText = text;
  const dot = text.indexOf(".");
  if (dot >= 0) {
    const colon = text.lastIndexOf(":");
    const word = parseV4Word(text.slice(colon + 1));
    if (word === null) return null;
    const low = `${(word >>> 16).toString(16)}:${(word & 0xffff).toString(16)}`;
    groupsText = `${text.slice(0, colon + 1)}${low}`;
  }
  const halves = groupsText.split("::");
  if (halves.length > 2) return null;
  const head = parseGroups(halves[0] ?? "");
  const tail = halves.length === 2 ? parseGroups(halves[1] ?? "") : [];
  if (head === null || tail === null) return null;
  const missing = 8 - head.length - tail.length;
  if (halves.length === 2 ? missing < 1 : missing !== 0) return null;
  const groups = [...head, ...new Array<number>(missing).fill(0), ...tail];
  const word = (i: number) => (groups[i] ?? 0) * 0x10000 + (groups[i + 1] ?? 0);
  return new IpAddress(word(0), word(2), word(4), word(6));
}

function parseGroups(text: string): number[] | null {
  if (text === "") return [];
  const groups: number[] = [];
  for (const part of text.split(":")) {
    if (!/^[0-9a-fA-F]{1,4}$/.test(part)) return null;
    groups.push(Number.parseInt(part, 16));
  }
  return groups;
}

function formatV4(word: number): string {
  return `${word >>> 24}.${(word >>> 16) & 255}.${(word >>> 8) & 255}.${word & 255}`;
}

function formatV6(groups: readonly number[]): string {
  // RFC 5952: the longest run of at least two zero groups, the first of equals, becomes "::".
  let bestStart = -1;
  let bestLength = 1;
  for (let start = 0; start < 8; start++) {
    let end = start;
    while (end < 8 && groups[end] === 0) end++;
    if (end - start > bestLength) {
      bestStart = start;
      bestLength = end - start;
    }
  }
  const hex = (part: readonly number[]) => part.map((g) => g.toString(16)).join(":");
  if (bestStart < 0) return hex(groups);
  return `${hex(groups.slice(0, bestStart))}::${hex(groups.slice(bestStart + bestLength))}`;
}

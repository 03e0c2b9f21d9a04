// SPDX-License-Identifier: MIT
// Reads a tar archive (POSIX.1-1988 ustar, the pax headers of POSIX.1-2001, GNU's long names) that
// is in memory. Nothing is written anywhere, so a path can't escape; what is odd is left out.

import { decodeUtf8 } from "../base/index.js";
import { printable } from "./draft.js";
import type { FolderEntry } from "./source.js";

const BLOCK = 512;
/** A whole sysfs of a big server has about half of that. */
const ENTRIES_MAX = 500_000;
const PATH_LENGTH_MAX = 4096;
const ENTRY_BYTES_MAX = 16 << 20;
/** Of the keys that count here, `linkpath` is the longest. */
const PAX_KEY_LENGTH_MAX = 16;

export interface TarProblem {
  readonly offset: number;
  readonly message: string;
}

/** Whether `bytes` begin with a ustar header whose checksum is right. */
export function isTar(bytes: Uint8Array): boolean {
  return bytes.length >= BLOCK && checksumIsRight(bytes, 0) && text(bytes, 257, 5) === "ustar";
}

/** Entries by path. Bytes are views into `bytes`. The last of several of one name counts. */
export function readTar(bytes: Uint8Array): {
  readonly entries: ReadonlyMap<string, FolderEntry>;
  readonly problems: readonly TarProblem[];
} {
  const reader = new TarReader(bytes);
  reader.read();
  return reader;
}

class TarReader {
  readonly entries = new Map<string, FolderEntry>();
  readonly problems: TarProblem[] = [];
  private readonly bytes: Uint8Array;
  private longName: string | null = null;
  private longLink: string | null = null;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  read(): void {
    let at = 0;
    while (at + BLOCK <= this.bytes.length) {
      if (this.bytes[at] === 0 && isZero(this.bytes, at)) return;
      const size = this.header(at);
      if (size === null) return;
      at += BLOCK + Math.ceil(size / BLOCK) * BLOCK;
      if (this.entries.size > ENTRIES_MAX) {
        this.problem(at, `more than ${ENTRIES_MAX} entries; the rest is left out`);
        return;
      }
    }
    if (at !== this.bytes.length) this.problem(at, "the archive is cut off");
  }

  /** @returns bytes of content after the header, or null where reading can't go on. */
  private header(at: number): number | null {
    if (!checksumIsRight(this.bytes, at)) {
      this.problem(at, "a header's checksum is wrong; the rest is left out");
      return null;
    }
    const size = octal(this.bytes, at + 124, 12);
    if (size === null || size > this.bytes.length - at - BLOCK) {
      this.problem(at, "an entry is longer than the archive; the rest is left out");
      return null;
    }
    const content = this.bytes.subarray(at + BLOCK, at + BLOCK + size);
    this.entry(at, String.fromCharCode(this.bytes[at + 156] as number), content);
    return size;
  }

  private entry(at: number, type: string, content: Uint8Array): void {
    if (type === "L" || type === "K") {
      const value = cString(content, 0, Math.min(content.length, PATH_LENGTH_MAX));
      if (type === "L") this.longName = value;
      else this.longLink = value;
      return;
    }
    if (type === "x") {
      this.pax(content);
      return;
    }
    const path = cleanPath(this.longName ?? this.shortName(at));
    const link = this.longLink ?? cString(this.bytes, at + 157, 100);
    this.longName = null;
    this.longLink = null;
    if (path === null) return;
    if (type === "5") this.entries.set(path, { kind: "folder" });
    else if (type === "2") this.entries.set(path, { kind: "link", target: link });
    else if (type === "0" || type === "\0" || type === "7") this.file(at, path, content);
    else if (type === "1") this.hardLink(path, link);
  }

  private file(at: number, path: string, bytes: Uint8Array): void {
    if (bytes.length > ENTRY_BYTES_MAX) {
      this.problem(
        at,
        `${printable(path)} is longer than ${ENTRY_BYTES_MAX} bytes; it is left out`,
      );
      return;
    }
    this.entries.set(path, { kind: "file", bytes });
  }

  private hardLink(path: string, link: string): void {
    const target = cleanPath(link);
    const known = target === null ? undefined : this.entries.get(target);
    if (known !== undefined) this.entries.set(path, known);
  }

  private shortName(at: number): string {
    const name = cString(this.bytes, at, 100);
    const prefix =
      text(this.bytes, at + 257, 6) === "ustar\0" ? cString(this.bytes, at + 345, 155) : "";
    return prefix === "" ? name : `${prefix}/${name}`;
  }

  /** Records `LENGTH KEY=VALUE\n`. */
  private pax(content: Uint8Array): void {
    for (let at = 0; at < content.length; ) {
      const space = at + content.subarray(at, at + 9).indexOf(0x20);
      if (space < at) return;
      const length = Number(text(content, at, space - at));
      if (!Number.isInteger(length) || length < space - at + 3) return;
      if (at + length > content.length) return;
      const record = content.subarray(space + 1, at + length - 1);
      const equals = record.subarray(0, PAX_KEY_LENGTH_MAX).indexOf(0x3d);
      if (equals > 0 && record.length - equals <= PATH_LENGTH_MAX) {
        const key = text(record, 0, equals);
        const value = decodeUtf8(record, equals + 1, record.length);
        if (key === "path") this.longName = value ?? this.longName;
        if (key === "linkpath") this.longLink = value ?? this.longLink;
      }
      at += length;
    }
  }

  private problem(offset: number, message: string): void {
    this.problems.push({ offset, message });
  }
}

/** Without `./` in front and `/` behind; null for what leaves the archive or says nothing. */
function cleanPath(path: string): string | null {
  const parts = path.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.length === 0 || parts.includes("..")) return null;
  return parts.join("/");
}

function isZero(bytes: Uint8Array, at: number): boolean {
  for (let i = 0; i < BLOCK; i++) if (bytes[at + i] !== 0) return false;
  return true;
}

function checksumIsRight(bytes: Uint8Array, at: number): boolean {
  const told = octal(bytes, at + 148, 8);
  let sum = 0;
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 0x20 : (bytes[at + i] as number);
  return told === sum;
}

/** A number in octal digits, or in GNU's base 256 below 2^48; null for neither. */
function octal(bytes: Uint8Array, at: number, length: number): number | null {
  if (((bytes[at] as number) & 0x80) !== 0) {
    let value = 0;
    for (let i = 1; i < length; i++) value = value * 256 + (bytes[at + i] as number);
    return value < 2 ** 48 ? value : null;
  }
  const digits = cString(bytes, at, length).trim();
  if (digits === "") return 0;
  return /^[0-7]{1,12}$/.test(digits) ? Number.parseInt(digits, 8) : null;
}

function cString(bytes: Uint8Array, at: number, length: number): string {
  // Of the field alone: an archive without zeros would be searched to its end for each of them.
  const end = bytes.subarray(at, at + length).indexOf(0);
  const stop = end < 0 ? at + length : at + end;
  return decodeUtf8(bytes, at, stop) ?? text(bytes, at, stop - at);
}

function text(bytes: Uint8Array, at: number, length: number): string {
  return String.fromCharCode(...bytes.subarray(at, at + length));
}

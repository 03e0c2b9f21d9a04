// SPDX-License-Identifier: MIT
// Lines and numbers out of text that anybody may have written, cut off or mixed up: what a machine
// says of its memory, or what somebody saved of that. Nothing here throws.

/** What was odd in a text. */
export interface TextNotice {
  /** Its file: `"proc/buddyinfo"`. */
  readonly file: string;
  /** From 1; 0 for the file as a whole. */
  readonly line: number;
  readonly message: string;
}

/** Notices that are kept; a file of garbage would have one for every line. */
const NOTICE_COUNT_MAX = 64;
/** Lines of a file that are looked at; a host of many nodes has some hundreds. */
const LINE_COUNT_MAX = 20_000;
const LINE_LENGTH_MAX = 4096;
/** Fifteen digits fit a JS number exactly. */
const NUMBER = /^\d{1,15}$/;

/** Keeps the first notices, and counts the others. */
export class Notices {
  readonly kept: TextNotice[] = [];
  dropped = 0;

  add(file: string, line: number, message: string): void {
    if (this.kept.length < NOTICE_COUNT_MAX) this.kept.push({ file, line, message });
    else this.dropped++;
  }
}

/** One line with its place, for notices. */
export interface TextLine {
  readonly number: number;
  readonly text: string;
}

/** The whole lines of a file. A last line without its end may be half of one: it isn't taken. */
export function linesOf(bytes: Uint8Array, file: string, notices: Notices): TextLine[] {
  const texts = asciiOf(bytes).split("\n");
  const rest = texts.pop() ?? "";
  if (rest.trim() !== "") notices.add(file, texts.length + 1, "the last line has no end: left out");
  if (texts.length > LINE_COUNT_MAX) {
    notices.add(file, LINE_COUNT_MAX, "more lines than any such file has: the others are left out");
  }
  const lines: TextLine[] = [];
  for (let i = 0; i < Math.min(texts.length, LINE_COUNT_MAX); i++) {
    const text = texts[i] as string;
    if (text.length > LINE_LENGTH_MAX) notices.add(file, i + 1, "too long: left out");
    else if (text.trim() !== "") lines.push({ number: i + 1, text });
  }
  return lines;
}

/** Each byte a character: all that is looked for is ASCII. */
export function asciiOf(bytes: Uint8Array): string {
  const pieces: string[] = [];
  const step = 8192;
  for (let at = 0; at < bytes.length; at += step) {
    pieces.push(String.fromCharCode(...bytes.subarray(at, at + step)));
  }
  return pieces.join("").replaceAll("\r\n", "\n");
}

/** @returns null for what is no whole number below 10^15. */
export function numberOf(text: string | undefined): number | null {
  return text !== undefined && NUMBER.test(text) ? Number(text) : null;
}

/** The one value of a small file, without its white space; null for what is none. */
export function singleValue(bytes: Uint8Array): string | null {
  if (bytes.length > LINE_LENGTH_MAX) return null;
  const text = asciiOf(bytes).trim();
  return text === "" || text.includes("\n") || !/^[ -~\t]+$/.test(text) ? null : text;
}

/** Of `"always [madvise] never"` the one in brackets; null when none is. */
export function chosenOf(value: string | null): string | null {
  return value === null ? null : (/\[([a-z+_]{1,32})\]/.exec(value)?.[1] ?? null);
}

// SPDX-License-Identifier: MIT
// Names of files are bytes, not text: on Linux anything but "/" and NUL. Here they are strings with
// one character per byte (0 .. 255), which compare, concatenate and serve as keys as strings do.

import { decodeUtf8 } from "../base/index.js";

/** The byte string of `bytes[start .. end)`. */
export function readByteText(bytes: Uint8Array, start: number, end: number): string {
  let text = "";
  for (let at = start; at < end; at++) text += String.fromCharCode(bytes[at] as number);
  return text;
}

/** Writes a byte string. @returns where it ends. Preconditions: it fits. */
export function writeByteText(text: string, bytes: Uint8Array, at: number): number {
  for (let i = 0; i < text.length; i++) bytes[at + i] = text.charCodeAt(i);
  return at + text.length;
}

/** A byte string for people: as UTF-8 where it is, else as it stands; control characters hidden. */
export function showByteText(text: string): string {
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  const shown = decodeUtf8(bytes, 0, bytes.length) ?? text;
  let safe = "";
  for (const character of shown) {
    const point = character.codePointAt(0) as number;
    safe += point < 0x20 || (point >= 0x7f && point < 0xa0) ? "?" : character;
  }
  return safe;
}

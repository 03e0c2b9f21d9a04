// SPDX-License-Identifier: MIT
// UTF-8 for names on the wire (RFC 3629): core rooms have no TextEncoder. For the control plane:
// both functions allocate.

/** The UTF-8 form of `text`; a lone surrogate becomes U+FFFD. */
export function encodeUtf8(text: string): Uint8Array {
  const bytes: number[] = [];
  for (const character of text) {
    let point = character.codePointAt(0) as number;
    if (point >= 0xd800 && point <= 0xdfff) point = 0xfffd;
    if (point < 0x80) {
      bytes.push(point);
    } else if (point < 0x800) {
      bytes.push(0xc0 | (point >> 6), continuation(point));
    } else if (point < 0x10000) {
      bytes.push(0xe0 | (point >> 12), continuation(point >> 6), continuation(point));
    } else {
      bytes.push(
        0xf0 | (point >> 18),
        continuation(point >> 12),
        continuation(point >> 6),
        continuation(point),
      );
    }
  }
  return Uint8Array.from(bytes);
}

function continuation(bits: number): number {
  return 0x80 | (bits & 0x3f);
}

/** The text of `bytes[start .. end)`, or null where that is no UTF-8 (overlong forms included). */
export function decodeUtf8(bytes: Uint8Array, start: number, end: number): string | null {
  let text = "";
  for (let at = start; at < end; ) {
    const first = bytes[at] as number;
    const length = sequenceLength(first);
    if (length === 0 || at + length > end) return null;
    let point = length === 1 ? first : first & (0x7f >> length);
    for (let i = 1; i < length; i++) {
      const next = bytes[at + i] as number;
      if ((next & 0xc0) !== 0x80) return null;
      point = (point << 6) | (next & 0x3f);
    }
    if (point < (POINT_MIN[length] as number)) return null;
    if (point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff)) return null;
    text += String.fromCodePoint(point);
    at += length;
  }
  return text;
}

/** The smallest code point that needs a sequence of this many bytes. */
const POINT_MIN = [0, 0, 0x80, 0x800, 0x10000];

function sequenceLength(first: number): number {
  if (first < 0x80) return 1;
  if (first >= 0xc0 && first < 0xe0) return 2;
  if (first >= 0xe0 && first < 0xf0) return 3;
  return first >= 0xf0 && first < 0xf8 ? 4 : 0;
}

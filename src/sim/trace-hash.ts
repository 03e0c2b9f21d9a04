// SPDX-License-Identifier: MIT

/**
 * A running fingerprint of everything that happened, for telling two runs apart. Two lanes of 32
 * bits with different multipliers (in the manner of FNV-1a and of Murmur's finish); not for
 * secrets.
 */
export class TraceHash {
  private first = 0x811c9dc5 | 0;
  private second = 0x9e3779b9 | 0;

  /** Mixes a number in; integers up to 2^53 count with all their bits. */
  addNumber(value: number): void {
    this.addWord(value | 0);
    this.addWord(Math.floor(value / 0x1_0000_0000) | 0);
  }

  addText(text: string): void {
    for (let i = 0; i < text.length; i++) this.addWord(text.charCodeAt(i));
  }

  addBytes(bytes: Uint8Array, offset: number, length: number): void {
    let word = length;
    for (let i = 0; i < length; i++) {
      word = (word << 8) | (bytes[offset + i] as number);
      if ((i & 3) === 3) {
        this.addWord(word);
        word = 0;
      }
    }
    this.addWord(word);
  }

  /** Sixteen hexadecimal digits. */
  toString(): string {
    return hex(finish(this.first)) + hex(finish(this.second ^ this.first));
  }

  private addWord(word: number): void {
    this.first = Math.imul(this.first ^ word, 0x01000193);
    this.second = Math.imul(((this.second << 5) | (this.second >>> 27)) ^ word, 0x5bd1e995);
  }
}

function finish(lane: number): number {
  let mixed = Math.imul(lane ^ (lane >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

function hex(word: number): string {
  return word.toString(16).padStart(8, "0");
}

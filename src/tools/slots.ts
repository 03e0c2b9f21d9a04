// SPDX-License-Identifier: MIT
// Messages in a row: where each one lands or leaves from, and what may stand in it.

import { FarpageError } from "../runtime/index.js";
import type { ProtectionDomain } from "../verbs/index.js";
import { Area, type Piece } from "./area.js";
import type { ToolEnvironment } from "./environment.js";
import { fillPattern, firstDifference } from "./pattern.js";

/** Of one side of one connection. */
const BYTES_MAX = 256 << 20;

/** Room for messages that are under way at a time. */
export class Slots implements Disposable {
  private readonly area: Area;
  private readonly size: number;
  private readonly head: number;

  /**
   * @param options.head bytes before each message: a datagram's GRH; default 0.
   * @throws FarpageError EINVAL when they would be too many.
   */
  constructor(
    environment: ToolEnvironment,
    pd: ProtectionDomain,
    options: { readonly count: number; readonly size: number; readonly head?: number },
  ) {
    this.size = options.size;
    this.head = options.head ?? 0;
    const length = options.count * (this.head + this.size);
    if (length > BYTES_MAX) {
      const what = `${options.count} messages of ${this.size} bytes`;
      throw new FarpageError("EINVAL", `${what} are more than ${BYTES_MAX} bytes`);
    }
    this.area = new Area(environment, pd, length);
  }

  /** The whole of slot `index`, as a work request names it. */
  piece(index: number, wrId: number): Piece {
    const length = this.head + this.size;
    return { area: this.area, offset: index * length, length, wrId };
  }

  /** The message in slot `index`. */
  message(index: number): Uint8Array {
    const from = index * (this.head + this.size) + this.head;
    return this.area.bytes.subarray(from, from + this.size);
  }

  /** Where slot `index` begins in `view`. */
  offset(index: number): number {
    return index * (this.head + this.size);
  }

  get view(): DataView {
    return this.area.view;
  }

  /** Every slot with the pattern of its number. */
  fill(count: number): void {
    for (let i = 0; i < count; i++) fillPattern(this.message(i), i);
  }

  [Symbol.dispose](): void {
    this.area.free();
  }
}

/**
 * Checks what a peer that speaks first has sent: ours sends patterns, a stock one the same
 * uninitialised memory again and again.
 * @throws FarpageError EILSEQ naming the message that is neither.
 */
export function checkFirstWords(slots: Slots, count: number): void {
  if (count === 0) return;
  const expected = new Uint8Array(slots.message(0).length);
  for (let i = 0; i < count; i++) {
    fillPattern(expected, i);
    const at = firstDifference(slots.message(i), expected);
    if (at < 0 || (firstDifference(slots.message(i), slots.message(0)) < 0 && i > 0)) continue;
    // The first message of a stock program can be anything; the others are like it.
    if (i === 0) continue;
    throw new FarpageError(
      "EILSEQ",
      `message ${i} is wrong: byte ${at} is ${slots.message(i)[at]}, should be ${expected[at]}`,
    );
  }
}

/** Sizes that both sides must share. @throws FarpageError EMSGSIZE. */
export function checkSize(byteLength: number, size: number): void {
  if (byteLength === size) return;
  throw new FarpageError(
    "EMSGSIZE",
    `the peer sends ${byteLength} bytes, this side ${size}: give both the same size`,
  );
}

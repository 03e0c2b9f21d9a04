// SPDX-License-Identifier: MIT
import { FarpageError } from "../../runtime/index.js";
import { fillPattern, firstDifference } from "../pattern.js";

/** The stock programs' option to check a buffer wants a zero at the start of each page. */
const PAGE_BYTES = 4096;
/** What a stock client's first message is full of. */
const STOCK_BYTE = 0x7b;

/**
 * The message that goes to and fro. A stock program sends from the buffer that it receives into, so
 * that what comes back from either of its roles is what it got last. A client of ours sends another
 * pattern each time and wants it back; a server of ours gives back what came, and wants either a
 * pattern of ours or, from a stock client, what it gave last (the first time 0x7b, all over).
 */
export class Ball {
  private readonly isClient: boolean;
  private readonly arrived: Uint8Array;
  private readonly leaving: Uint8Array;
  private readonly expected: Uint8Array;

  /**
   * @param arrived where messages land.
   * @param leaving where they are sent from; the same length.
   */
  constructor(isClient: boolean, arrived: Uint8Array, leaving: Uint8Array) {
    this.isClient = isClient;
    this.arrived = arrived;
    this.leaving = leaving;
    this.expected = new Uint8Array(leaving.length);
    leaving.fill(STOCK_BYTE);
  }

  /** Message `number` leaves now. */
  leave(number: number): void {
    if (this.isClient) fill(this.leaving, number);
  }

  /**
   * Looks at the `number`-th message that came. @throws FarpageError EILSEQ when it is another than
   * it has to be.
   */
  check(number: number): void {
    let at = firstDifference(this.arrived, this.leaving);
    if (at >= 0 && !this.isClient) {
      fill(this.expected, number);
      if (firstDifference(this.arrived, this.expected) < 0) at = -1;
      else if (number === 0 && isStock(this.arrived)) at = -1;
    }
    if (at < 0) return;
    throw new FarpageError(
      "EILSEQ",
      `message ${number} is wrong: byte ${at} is ${this.arrived[at]}, was ${this.leaving[at]}`,
    );
  }

  /** A message was looked at: a server will give it back. */
  arrive(): void {
    if (!this.isClient) this.leaving.set(this.arrived);
  }
}

function fill(bytes: Uint8Array, number: number): void {
  fillPattern(bytes, number);
  for (let i = 0; i < bytes.length; i += PAGE_BYTES) bytes[i] = 0;
}

function isStock(bytes: Uint8Array): boolean {
  return bytes.every((byte, at) => byte === STOCK_BYTE || (byte === 0 && at % PAGE_BYTES === 0));
}

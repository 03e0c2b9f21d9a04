// SPDX-License-Identifier: MIT
// What a connection has still to send: a queue of pieces of its pool's memory, in order. Headers
// are written into a ring of their own, data leaves from where it lies; pieces that touch are
// joined, so that one gathered write takes as many replies as are ready.

import { assert, ERRNO, type Memory } from "../base/index.js";
import { type ByteStream, IoVector } from "./byte-stream.js";
import { REPLY_HEADER_BYTES_MAX } from "./nbd-limits.js";
import type { RequestPool } from "./request-pool.js";

/** Token of a piece whose memory nobody waits for. */
export const NO_TOKEN = -1;

/** Pieces in one write: below what every system takes (IOV_MAX is 1,024 on Linux). */
const VECTOR_PIECES = 256;
/** Bytes in one write; a socket takes less, and a longer list would be built for nothing. */
const VECTOR_BYTES = 1 << 20;

export class ReplyQueue {
  private readonly pool: RequestPool;
  private readonly memory: Memory;
  private readonly vector: IoVector = new IoVector(VECTOR_PIECES);
  private readonly offsets: Int32Array;
  private readonly lengths: Int32Array;
  /** What to release when a piece has been sent: see `RequestPool.release`. */
  private readonly tokens: Int32Array;
  private readonly mask: number;
  /** Pieces ever taken and ever pushed, modulo 2^32. Empty: head === tail. */
  private head = 0;
  private tail = 0;
  /** Bytes of the first piece that have been sent. */
  private headSent = 0;
  private readonly headersEnd: number;
  private headersNext: number;
  /** Slots and segments released since `takeReleasedCount`. */
  private releasedCount = 0;

  constructor(pool: RequestPool) {
    this.pool = pool;
    this.memory = pool.memory;
    // A slot has at most a header, data and an end mark waiting, a segment a header and data.
    const piecesMax = 3 * pool.slots.length + 2 * pool.segments.length + 1;
    let capacity = 1;
    while (capacity < piecesMax) capacity *= 2;
    this.offsets = new Int32Array(capacity);
    this.lengths = new Int32Array(capacity);
    this.tokens = new Int32Array(capacity);
    this.mask = capacity - 1;
    this.headersEnd = pool.layout.headersOffset + pool.layout.headersBytes;
    this.headersNext = pool.layout.headersOffset;
  }

  get isEmpty(): boolean {
    return this.head === this.tail;
  }

  get count(): number {
    return (this.tail - this.head) >>> 0;
  }

  /** Forgets everything unsent, and releases nothing. */
  reset(): void {
    this.head = this.tail;
    this.headSent = 0;
    this.releasedCount = 0;
    this.headersNext = this.pool.layout.headersOffset;
    this.vector.clear();
  }

  /**
   * Where to write the next header, up to `REPLY_HEADER_BYTES_MAX` bytes; `pushHeader` takes it.
   */
  headerOffset(): number {
    if (this.headersNext + REPLY_HEADER_BYTES_MAX > this.headersEnd) {
      this.headersNext = this.pool.layout.headersOffset;
    }
    return this.headersNext;
  }

  /** Queues the header just written at `headerOffset()`. */
  pushHeader(length: number, token: number): void {
    assert(length <= REPLY_HEADER_BYTES_MAX, "a reply header fits its place");
    const offset = this.headersNext;
    this.headersNext += length;
    this.push(offset, length, token);
  }

  /** Queues `length` bytes at `offset` of the pool's memory; 0 bytes only carry the token. */
  push(offset: number, length: number, token: number): void {
    assert(this.count <= this.mask, "every reply of every request fits the queue");
    const index = this.tail & this.mask;
    this.offsets[index] = offset;
    this.lengths[index] = length;
    this.tokens[index] = token;
    this.tail = (this.tail + 1) | 0;
  }

  /**
   * Writes until the queue is empty or the stream takes no more, and releases what was sent.
   * @returns 0 when all is sent, -EAGAIN when the stream is full, else the stream's -errno.
   */
  flush(stream: ByteStream, onWrite: () => void): number {
    while (this.head !== this.tail) {
      const offered = this.gather();
      if (offered > 0) {
        const taken = stream.write(this.vector);
        onWrite();
        if (taken < 0) return taken;
        this.consume(taken);
        if (taken < offered) return -ERRNO.EAGAIN;
      } else {
        this.consume(0);
      }
    }
    return 0;
  }

  /** Slots and segments released since the last call. */
  takeReleasedCount(): number {
    const count = this.releasedCount;
    this.releasedCount = 0;
    return count;
  }

  /** Lists the oldest pieces in `vector`. @returns their bytes. */
  private gather(): number {
    const vector = this.vector;
    vector.clear();
    let end = -1;
    let skip = this.headSent;
    for (let at = this.head; at !== this.tail; at = (at + 1) | 0) {
      const index = at & this.mask;
      const offset = (this.offsets[index] as number) + skip;
      const length = (this.lengths[index] as number) - skip;
      skip = 0;
      if (length === 0) continue;
      if (offset === end) {
        const last = vector.count - 1;
        vector.lengths[last] = (vector.lengths[last] as number) + length;
        vector.byteLength += length;
      } else if (!vector.push(this.memory, offset, length)) {
        break;
      }
      end = offset + length;
      if (vector.byteLength >= VECTOR_BYTES) break;
    }
    return vector.byteLength;
  }

  /** Takes `count` sent bytes off the queue, and every empty piece that has become the first. */
  private consume(count: number): void {
    let left = count + this.headSent;
    while (this.head !== this.tail) {
      const index = this.head & this.mask;
      const length = this.lengths[index] as number;
      if (left < length) break;
      left -= length;
      const token = this.tokens[index] as number;
      this.head = (this.head + 1) | 0;
      if (token >= 0) {
        this.releasedCount++;
        this.pool.release(token);
      }
    }
    this.headSent = left;
  }
}

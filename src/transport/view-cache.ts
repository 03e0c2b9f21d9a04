// SPDX-License-Identifier: MIT
// Copies payload without allocating. `TypedArray.set` is the fast copy, but it wants a view of
// exactly the source bytes, and making one costs as much as copying 2 KiB, and garbage besides.
// Traffic keeps coming back to the same places (packet k of a receive buffer, packet k of a chunk),
// so views are kept in a direct-mapped cache.

/** Up to here a byte loop is faster than `set`. */
const LOOP_BYTES_MAX = 32;
const SLOT_BITS = 12;
const SLOTS = 1 << SLOT_BITS;
const NOTHING = new Uint8Array(0);

export class ViewCache {
  private readonly owners: Uint8Array[] = new Array<Uint8Array>(SLOTS).fill(NOTHING);
  private readonly views: Uint8Array[] = new Array<Uint8Array>(SLOTS).fill(NOTHING);
  private readonly offsets = new Float64Array(SLOTS);
  private readonly lengths = new Float64Array(SLOTS);

  /**
   * `target[targetOffset ..] = source[sourceOffset .. sourceOffset + length - 1]`.
   * Preconditions: both ranges exist; they don't overlap.
   */
  copy(
    target: Uint8Array,
    targetOffset: number,
    source: Uint8Array,
    sourceOffset: number,
    length: number,
  ): void {
    if (length <= LOOP_BYTES_MAX) {
      for (let i = 0; i < length; i++) {
        target[targetOffset + i] = source[sourceOffset + i] as number;
      }
    } else {
      target.set(this.view(source, sourceOffset, length), targetOffset);
    }
  }

  /** Lets go of all views of `bytes`, whose memory is about to be given back. */
  forget(bytes: Uint8Array): void {
    for (let slot = 0; slot < SLOTS; slot++) {
      if (this.owners[slot] !== bytes) continue;
      this.owners[slot] = NOTHING;
      this.views[slot] = NOTHING;
    }
  }

  /**
   * A view of `length` bytes from `offset` on, made now or kept since it was made. Borrowed: good
   * until the next call.
   */
  view(bytes: Uint8Array, offset: number, length: number): Uint8Array {
    // Fibonacci hashing: neighbouring packets are a fixed stride apart and must not collide.
    const slot = Math.imul((offset >>> 2) ^ (length << 20), 0x9e3779b1) >>> (32 - SLOT_BITS);
    if (
      this.owners[slot] === bytes &&
      this.offsets[slot] === offset &&
      this.lengths[slot] === length
    ) {
      return this.views[slot] as Uint8Array;
    }
    const view = bytes.subarray(offset, offset + length);
    this.owners[slot] = bytes;
    this.views[slot] = view;
    this.offsets[slot] = offset;
    this.lengths[slot] = length;
    return view;
  }
}

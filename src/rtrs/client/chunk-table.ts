// SPDX-License-Identifier: MIT
import { carryOf, FarpageError } from "../../base/index.js";
import { type RtrsDescriptor, rtrsChunkShift } from "../../wire/index.js";

/**
 * The server's chunks as one path sees them: where each is and which key opens it now. Addresses
 * are the peer's, all 64 bits of them; keys change with every reply of a server that rotates them.
 */
export class ChunkTable {
  readonly count: number;
  readonly chunkBytes: number;
  /** S of the immediates of this path. */
  readonly shift: number;
  readonly addressHighs: Uint32Array;
  readonly addressLows: Uint32Array;
  readonly keys: Uint32Array;

  /**
   * Cuts the regions of an INFO_RSP into chunks, in order of appearance (facts page, section 5.4).
   * @param count the queue depth that the server announced.
   * @throws FarpageError EPROTO when the regions do not make exactly `count` chunks.
   */
  constructor(regions: readonly RtrsDescriptor[], count: number, chunkBytes: number) {
    this.count = count;
    this.chunkBytes = chunkBytes;
    this.shift = rtrsChunkShift(count);
    this.addressHighs = new Uint32Array(count);
    this.addressLows = new Uint32Array(count);
    this.keys = new Uint32Array(count);
    if (regions.length === 0 || count % regions.length !== 0) {
      refuse(`${regions.length} regions for ${count} chunks`);
    }
    let chunk = 0;
    for (const region of regions) {
      if (region.length === 0 || region.length % chunkBytes !== 0) {
        refuse(`a region of ${region.length} bytes for chunks of ${chunkBytes}`);
      }
      const end = chunk + region.length / chunkBytes;
      if (end > count) refuse(`more than ${count} chunks`);
      for (let offset = 0; chunk < end; chunk++, offset += chunkBytes) {
        this.addressHighs[chunk] = region.addressHigh + carryOf(region.addressLow, offset);
        this.addressLows[chunk] = region.addressLow + offset;
        this.keys[chunk] = region.rkey;
      }
    }
    if (chunk !== count) refuse(`${chunk} chunks instead of ${count}`);
  }
}

function refuse(what: string): never {
  throw new FarpageError("EPROTO", `the server's INFO_RSP has ${what}`);
}

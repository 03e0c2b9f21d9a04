// SPDX-License-Identifier: MIT
import type { Memory } from "../base/index.js";

/**
 * Looks over a server's shoulder while it reads what its peers write. Tests have one that counts,
 * in every simulated system; a real host has none, and its server reads the memory itself.
 */
export interface ChunkWatch {
  /**
   * Called once per path.
   * @param memory the path's chunks, `chunkBytes` each, as the device knows them.
   */
  open(memory: Memory, chunkBytes: number): WatchedChunks;
}

export interface WatchedChunks {
  /** The same memory as the server's own code, and its user's, gets to see it. */
  readonly memory: Memory;
  /**
   * A request has come: the chunk is the server's from here to `release`.
   * @param isOpen whether the peer can write it nevertheless.
   */
  handOver(chunk: number, isOpen: boolean): void;
  /** It is sound. A read's first `dataLength` bytes are for the answer, the server's to fill. */
  accept(chunk: number, isRead: boolean, dataLength: number): void;
  /** The request is over, and the chunk the peer's. */
  release(chunk: number): void;
}

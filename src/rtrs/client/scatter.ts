// SPDX-License-Identifier: MIT
// The scatter list of a request. A WRITE gathers its pieces as they lie, into one RDMA WRITE. For a
// READ the wire has one descriptor, so one range of memory that the server writes to (facts page,
// section 7.2: sg_cnt is 0 or 1): its data lands in memory of the session's own and is dealt out to
// the pieces when the answer is there, which costs a copy.

import { assert, type Memory, type MemorySource } from "../../base/index.js";
import type { RegisteredMemories } from "./client-memory.js";
import type { ClientRequest } from "./client-request.js";

/** One place of a request's data. Made with the request and reused. */
export class DataPiece {
  memory: Memory | null = null;
  memoryOffset = 0;
  length = 0;
}

/** Where the data of READs with several pieces lands: memory for each request that has had one. */
export class ReadStaging {
  private readonly source: MemorySource;
  private readonly memories: RegisteredMemories;
  private readonly ioBytesMax: number;
  private readonly byNumber: (Memory | null)[] = [];

  constructor(source: MemorySource, memories: RegisteredMemories, ioBytesMax: number) {
    this.source = source;
    this.memories = memories;
    this.ioBytesMax = ioBytesMax;
  }

  /** Has memory ready for a request that is submitted. @throws FarpageError ENOMEM. */
  check(request: ClientRequest, isRead: boolean, dataLength: number): void {
    assert(request.holds(dataLength), "the pieces of a request are its data");
    if (isRead && request.pieceCount > 0) this.prepare(request);
  }

  /** Where the data of a READ goes. */
  memoryOf(request: ClientRequest): Memory | null {
    if (request.pieceCount === 0) return request.memory;
    return this.byNumber[request.number] ?? null;
  }

  /** The answer to a READ is there, and the server can't write any more. */
  deal(request: ClientRequest): void {
    const memory = this.memoryOf(request);
    assert(memory !== null, "a READ with pieces was prepared");
    let at = 0;
    for (let i = 0; i < request.pieceCount; i++) {
      const piece = request.pieces[i] as DataPiece;
      const { bytes } = piece.memory as Memory;
      bytes.set(memory.bytes.subarray(at, at + piece.length), piece.memoryOffset);
      at += piece.length;
    }
  }

  /** Preconditions: no queue pair is alive. */
  free(): void {
    for (const memory of this.byNumber) {
      if (memory === null || memory === undefined) continue;
      this.memories.remove(memory);
      this.source.free(memory);
    }
    this.byNumber.length = 0;
  }

  private prepare(request: ClientRequest): void {
    if ((this.byNumber[request.number] ?? null) !== null) return;
    const memory = this.source.allocate(this.ioBytesMax, "RTRS requests in parts");
    try {
      this.memories.add(memory);
    } catch (error) {
      this.source.free(memory);
      throw error;
    }
    this.byNumber[request.number] = memory;
  }
}

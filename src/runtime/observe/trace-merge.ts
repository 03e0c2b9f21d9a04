// SPDX-License-Identifier: MIT
// One pcapng file out of the traces of several lanes. They have the same addresses in the same
// order, so the same interfaces: the head is lane 0's, packets and statistics are all of theirs.
// Packets of one lane are in order; those of two lie as they came here.

import { assert } from "../../base/index.js";
import type { TraceSink } from "./trace-session.js";

const BLOCK_SECTION = 0x0a0d_0d0a;
const BLOCK_INTERFACE = 1;
const BLOCK_PACKET = 6;
const BLOCK_HEAD_BYTES = 8;

export interface TraceMergeOptions {
  readonly laneCount: number;
  /** Packets of all lanes together; `onFull` is called once when they are written. */
  readonly packetCountMax?: number;
  readonly onFull?: () => void;
}

/** See the head of the file. */
export class TraceMerge {
  private readonly target: TraceSink;
  private readonly parts: readonly MergePart[];
  private readonly onFull: () => void;
  private packetsLeft: number;
  /** What is being written; the next comes behind it. */
  private writing: Promise<void> = Promise.resolve();
  private endedCount = 0;
  private readonly done: Promise<void>;
  private finish: () => void = () => {};
  private fail: (error: unknown) => void = () => {};

  constructor(target: TraceSink, options: TraceMergeOptions) {
    this.target = target;
    this.packetsLeft = options.packetCountMax ?? Number.POSITIVE_INFINITY;
    this.onFull = options.onFull ?? (() => {});
    this.done = new Promise((resolve, reject) => {
      this.finish = resolve;
      this.fail = reject;
    });
    this.done.catch(() => {});
    let started: () => void = () => {};
    const hasHead = new Promise<void>((resolve) => {
      started = resolve;
    });
    this.parts = Array.from(
      { length: options.laneCount },
      (_, lane) => new MergePart(this, lane, hasHead, started),
    );
  }

  /** Where lane `lane` writes its trace; it must be ended for the whole to end. */
  part(lane: number): TraceSink {
    const part = this.parts[lane];
    assert(part !== undefined, "each lane has its part");
    return part;
  }

  /** Parts only: whole blocks, in the order of the calls. */
  write(bytes: Uint8Array): Promise<void> {
    const written = this.writing.then(() => this.target.write(bytes));
    // Nobody waits any more for lanes that have nothing to write.
    this.writing = written.catch((error) => this.fail(error));
    return written;
  }

  /** Parts only. @returns whether there is room for one more packet. */
  takePacket(): boolean {
    if (this.packetsLeft <= 0) return false;
    if (--this.packetsLeft === 0) queueMicrotask(this.onFull);
    return true;
  }

  /**
   * Parts only: one has ended. Settles when all have, and the target has; rejects when that takes
   * nothing any more.
   */
  end(): Promise<void> {
    this.endedCount++;
    if (this.endedCount === this.parts.length) {
      this.writing.then(() => this.target.end()).then(this.finish, this.fail);
    }
    return this.done;
  }
}

class MergePart implements TraceSink {
  private readonly merge: TraceMerge;
  private readonly isFirst: boolean;
  private readonly hasHead: Promise<void>;
  private readonly started: () => void;
  /** The beginning of a block. */
  private rest: Buffer = Buffer.alloc(0);
  private isEnded = false;

  constructor(merge: TraceMerge, lane: number, hasHead: Promise<void>, started: () => void) {
    this.merge = merge;
    this.isFirst = lane === 0;
    this.hasHead = hasHead;
    this.started = started;
  }

  async write(bytes: Uint8Array): Promise<void> {
    const pending = Buffer.concat([this.rest, bytes]);
    const blocks: Buffer[] = [];
    let at = 0;
    while (at + BLOCK_HEAD_BYTES <= pending.length) {
      const end = at + pending.readUInt32LE(at + 4);
      if (end > pending.length) break;
      if (this.wants(pending.readUInt32LE(at))) blocks.push(pending.subarray(at, end));
      at = end;
    }
    this.rest = pending.subarray(at);
    if (!this.isFirst) await this.hasHead;
    if (blocks.length > 0) await this.merge.write(Buffer.concat(blocks));
    if (this.isFirst) this.started();
  }

  async end(): Promise<void> {
    this.started();
    if (this.isEnded) return;
    this.isEnded = true;
    await this.merge.end();
  }

  private wants(type: number): boolean {
    if (type === BLOCK_PACKET) return this.merge.takePacket();
    return this.isFirst || (type !== BLOCK_SECTION && type !== BLOCK_INTERFACE);
  }
}

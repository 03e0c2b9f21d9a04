// SPDX-License-Identifier: MIT
// Finds who writes to a buffer after it was freed, or behind its end. A buffer that is freed is
// filled with a pattern and kept aside for a while; before its frames are anybody else's, the
// pattern must be there still. Who reads it finds the pattern, not a neighbour's bytes. What KASAN
// does for Linux' objects, without its instructions: a write is found late, and named exactly.

import { assert } from "../../base/index.js";
import type { PhysicalMemory } from "../frames/physical-memory.js";
import type { ArenaMemory } from "./arena-memory-source.js";

const FREED = 0x6b;
const UNUSED = 0x5a;
const FRAME_BYTES = 4096;
/** Of a larger buffer the first and the last bytes are filled: filling makes memory real. */
const FILLED_MAX = 256 * 1024;

export class FreedBuffers {
  /** Oldest first. */
  private readonly waiting = new Set<ArenaMemory>();
  private waitingBytes = 0;
  private readonly memory: PhysicalMemory;
  private readonly bytesMax: number;
  private readonly release: (buffer: ArenaMemory) => void;

  /**
   * @param bytesMax bytes that are kept aside.
   * @param release frees a buffer in truth.
   */
  constructor(memory: PhysicalMemory, bytesMax: number, release: (buffer: ArenaMemory) => void) {
    this.memory = memory;
    this.bytesMax = bytesMax;
    this.release = release;
  }

  /** A buffer is handed out: marks what its last frame has behind the end. */
  begin(buffer: ArenaMemory): void {
    this.slackOf(buffer).fill(UNUSED);
  }

  /** A buffer is freed. Asserts that nobody wrote behind its end. */
  add(buffer: ArenaMemory): void {
    checkBytes(this.slackOf(buffer), UNUSED, buffer, "written behind its end", buffer.length);
    if (!this.isAlone(buffer)) {
      // Who else holds a frame may write to it: it is not the buffer any more.
      this.release(buffer);
      return;
    }
    for (const [start, end] of filledParts(buffer)) buffer.bytes.fill(FREED, start, end);
    this.waiting.add(buffer);
    this.waitingBytes += buffer.length;
    for (const oldest of this.waiting) {
      if (this.waitingBytes <= this.bytesMax) break;
      this.end(oldest);
    }
  }

  /** Frees all that waits. @returns whether anything did. */
  drain(): boolean {
    const hadSome = this.waiting.size > 0;
    for (const buffer of this.waiting) this.end(buffer);
    return hadSome;
  }

  private end(buffer: ArenaMemory): void {
    this.waiting.delete(buffer);
    this.waitingBytes -= buffer.length;
    for (const [start, end] of filledParts(buffer)) {
      checkBytes(buffer.bytes.subarray(start, end), FREED, buffer, "written after its end", start);
    }
    this.release(buffer);
  }

  private slackOf(buffer: ArenaMemory): Uint8Array {
    const { bytes } = buffer.section;
    const end = buffer.offset + buffer.frameCount * FRAME_BYTES;
    return bytes.subarray(buffer.offset + buffer.length, end);
  }

  /** Whether no frame of it is referenced or pinned by others, as those of a region are. */
  private isAlone(buffer: ArenaMemory): boolean {
    const { memory } = this;
    for (let pfn = buffer.pfn; pfn < buffer.pfn + buffer.frameCount; ) {
      if (memory.referencesOf(pfn) !== 1 || memory.isPinned(pfn)) return false;
      pfn += 2 ** memory.orderOf(pfn);
    }
    return true;
  }
}

function filledParts({ length }: ArenaMemory): [start: number, end: number][] {
  if (length <= FILLED_MAX) return [[0, length]];
  return [
    [0, FILLED_MAX / 2],
    [length - FILLED_MAX / 2, length],
  ];
}

/** @param offset of the bytes in the buffer, for the message. */
function checkBytes(
  bytes: Uint8Array,
  pattern: number,
  buffer: ArenaMemory,
  what: string,
  offset: number,
): void {
  const at = bytes.findIndex((byte) => byte !== pattern);
  if (at < 0) return;
  const where = `at byte ${offset + at}`;
  assert(
    false,
    `buffer 0x${buffer.address.toString(16)} of ${buffer.length} bytes: ${what}, ${where}`,
  );
}

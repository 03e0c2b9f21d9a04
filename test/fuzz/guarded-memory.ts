// SPDX-License-Identifier: MIT
// Memory with a moat: every allocation lies inside a larger buffer whose other bytes are a secret
// that nobody may change or send.

import type { Memory, MemorySource } from "../../src/base/index.js";

const MOAT_BYTES = 4096;
/** Fourteen bytes that no header and no pattern of a test contains. */
const SECRET = [0xd1, 0x5e, 0xa5, 0xed, 0xba, 0x11, 0x0f, 0xf1, 0xce, 0x5a, 0xfe, 0x90, 0x0d, 0xc0];

interface Allocation {
  readonly buffer: Uint8Array;
  readonly length: number;
}

/** Fills `bytes` with the secret, in step with their place in the buffer. */
export function fillSecret(bytes: Uint8Array): void {
  for (let i = 0; i < bytes.length; i++) bytes[i] = SECRET[i % SECRET.length] as number;
}

/** Whether the bytes are still what `fillSecret` made them. */
export function isSecret(bytes: Uint8Array): boolean {
  for (let i = 0; i < bytes.length; i++) if (bytes[i] !== SECRET[i % SECRET.length]) return false;
  return true;
}

/** Whether `bytes[offset .. offset + length)` contains the beginning of the secret. */
export function containsSecret(bytes: Uint8Array, offset: number, length: number): boolean {
  const [first, second, third, fourth] = SECRET;
  for (let i = offset; i < offset + length - 3; i++) {
    if (bytes[i] !== first || bytes[i + 1] !== second || bytes[i + 2] !== third) continue;
    if (bytes[i + 3] === fourth) return true;
  }
  return false;
}

export class GuardedMemorySource implements MemorySource {
  /** Bytes allocated and not freed. */
  usedBytes = 0;
  private nextAddress: number;
  private readonly live = new Map<Memory, Allocation>();

  constructor(firstAddress = 0x10_0000_0000) {
    this.nextAddress = firstAddress;
  }

  allocate(length: number): Memory {
    const buffer = new Uint8Array(MOAT_BYTES + length + MOAT_BYTES);
    fillSecret(buffer.subarray(0, MOAT_BYTES));
    fillSecret(buffer.subarray(MOAT_BYTES + length));
    const bytes = buffer.subarray(MOAT_BYTES, MOAT_BYTES + length);
    const view = new DataView(buffer.buffer, MOAT_BYTES, length);
    const memory: Memory = { bytes, view, address: this.nextAddress, length };
    this.nextAddress += (Math.ceil(length / 4096) + 2) * 4096;
    this.live.set(memory, { buffer, length });
    this.usedBytes += length;
    return memory;
  }

  free(memory: Memory): void {
    const allocation = this.live.get(memory);
    if (allocation === undefined) throw new Error("memory is freed once, by its source");
    this.checkOne(allocation);
    this.live.delete(memory);
    this.usedBytes -= memory.length;
  }

  /** @throws Error when a byte outside of an allocation has changed. */
  check(): void {
    for (const allocation of this.live.values()) this.checkOne(allocation);
  }

  private checkOne({ buffer, length }: Allocation): void {
    if (!isSecret(buffer.subarray(0, MOAT_BYTES))) throw new Error("bytes before a range changed");
    if (!isSecret(buffer.subarray(MOAT_BYTES + length))) {
      throw new Error("bytes behind a range changed");
    }
  }
}

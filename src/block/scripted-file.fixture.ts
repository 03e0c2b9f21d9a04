// SPDX-License-Identifier: MIT
// A file that does exactly what a test says, operation by operation.

import { expect } from "vitest";
import type { Memory } from "../base/index.js";
import { type BlockFile, FILE_OPERATION, type FileIo } from "./block-file.js";

/** Answers the next tries as told (by default all of it), and keeps what is started until told. */
export class ScriptedFile implements BlockFile {
  readonly path = "scripted";
  readonly kind = "file";
  readOnly = false;
  sizeBytes = 1 << 20;
  readonly logicalBlockBytes = 512;
  readonly physicalBlockBytes = 4096;
  readonly rotational = false;
  canPunch = true;
  canZero = true;
  sizeNow = this.sizeBytes;
  closed = false;
  readonly tries: number[] = [];
  readonly tried: string[] = [];
  readonly started: FileIo[] = [];
  private readonly finished: FileIo[] = [];

  get inflight(): number {
    return this.started.length + this.finished.length;
  }

  refreshSize(): number {
    this.sizeBytes = this.sizeNow;
    return this.sizeNow;
  }

  tryRead(offset: number, memory: Memory, memoryOffset: number, length: number): number {
    return this.answer("read", offset, memory, memoryOffset, length);
  }

  tryWrite(offset: number, memory: Memory, memoryOffset: number, length: number): number {
    return this.answer("write", offset, memory, memoryOffset, length);
  }

  start(io: FileIo): void {
    this.started.push(io);
  }

  poll(): number {
    const finished = this.finished.splice(0);
    for (const io of finished) io.owner.onFileIoComplete(io);
    return finished.length;
  }

  close(): void {
    this.closed = true;
  }

  /** What is on other threads now: "operation offset+length". */
  get running(): string[] {
    const names = Object.entries(FILE_OPERATION);
    return this.started.map((io) => {
      const name = names.find(([, value]) => value === io.operation)?.[0] ?? "?";
      return io.operation === FILE_OPERATION.SYNC ? name : `${name} ${io.offset}+${io.length}`;
    });
  }

  /** The oldest started operation ends with `result` (default: everything, or 0). */
  finish(result?: number): FileIo {
    const io = this.started.shift() as FileIo;
    const moves = io.operation === FILE_OPERATION.READ || io.operation === FILE_OPERATION.WRITE;
    io.result = result ?? (moves ? io.length : 0);
    this.finished.push(io);
    return io;
  }

  private answer(
    name: string,
    offset: number,
    memory: Memory,
    memoryOffset: number,
    length: number,
  ): number {
    expect(memoryOffset + length).toBeLessThanOrEqual(memory.length);
    this.tried.push(`${name} ${offset}+${length}`);
    return this.tries.shift() ?? length;
  }
}

// SPDX-License-Identifier: MIT

import type { Memory } from "../base/index.js";
import { type BlockFile, FILE_OPERATION, type FileIo, type FileOperation } from "../block/index.js";

/**
 * Sees each operation before the file does.
 * @returns null to let it pass, or a result (bytes moved, or -errno) to give instead of doing it.
 */
export type FileInterceptor = (
  operation: FileOperation,
  offset: number,
  length: number,
) => number | null;

/**
 * A decorator over any file: traces operations, fails chosen ones, or pretends to have done them (a
 * disk that lies).
 */
export class InterceptedFile implements BlockFile {
  readonly path: string;
  readonly kind: "file" | "block-special";
  readonly readOnly: boolean;
  readonly logicalBlockBytes: number;
  readonly physicalBlockBytes: number;
  readonly rotational: boolean;
  readonly canPunch: boolean;
  readonly canZero: boolean;
  private readonly inner: BlockFile;
  private readonly intercept: FileInterceptor;
  /** Answered by the interceptor, not yet delivered. */
  private readonly answered: FileIo[] = [];

  constructor(inner: BlockFile, intercept: FileInterceptor) {
    this.inner = inner;
    this.intercept = intercept;
    this.path = inner.path;
    this.kind = inner.kind;
    this.readOnly = inner.readOnly;
    this.logicalBlockBytes = inner.logicalBlockBytes;
    this.physicalBlockBytes = inner.physicalBlockBytes;
    this.rotational = inner.rotational;
    this.canPunch = inner.canPunch;
    this.canZero = inner.canZero;
  }

  get sizeBytes(): number {
    return this.inner.sizeBytes;
  }

  get inflight(): number {
    return this.inner.inflight + this.answered.length;
  }

  /** Now, when an answer waits to be polled; `Infinity` otherwise (the inner file has its own). */
  get nextWakeNs(): number {
    return this.answered.length > 0 ? 0 : Number.POSITIVE_INFINITY;
  }

  refreshSize(): number {
    return this.inner.refreshSize();
  }

  tryRead(offset: number, memory: Memory, memoryOffset: number, length: number): number {
    return (
      this.intercept(FILE_OPERATION.READ, offset, length) ??
      this.inner.tryRead(offset, memory, memoryOffset, length)
    );
  }

  tryWrite(offset: number, memory: Memory, memoryOffset: number, length: number): number {
    return (
      this.intercept(FILE_OPERATION.WRITE, offset, length) ??
      this.inner.tryWrite(offset, memory, memoryOffset, length)
    );
  }

  start(io: FileIo): void {
    const result = this.intercept(io.operation, io.offset, io.length);
    if (result === null) {
      this.inner.start(io);
      return;
    }
    io.result = result;
    this.answered.push(io);
  }

  poll(): number {
    const answered = this.answered.splice(0);
    for (const io of answered) io.owner.onFileIoComplete(io);
    return answered.length + this.inner.poll();
  }

  close(): void {
    this.inner.close();
  }
}

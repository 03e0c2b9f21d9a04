// SPDX-License-Identifier: MIT
// A copy from here to a server.

import type { FarpageError } from "../../base/index.js";
import { type CopyOperand, CopySource } from "../../copy/index.js";
import { createCrc32 } from "../../os/index.js";
import type { RtrsEnvironment } from "../../rtrs/index.js";
import type { CopyJob, CopyStatus, JobRtrs, OnProblem } from "./copy-job.js";

export class PushJob implements CopyJob {
  private readonly source: CopySource;
  private readonly operands: readonly CopyOperand[];
  private stopError: FarpageError | null = null;

  constructor(
    environment: RtrsEnvironment,
    options: {
      readonly rtrs: JobRtrs;
      readonly operands: readonly CopyOperand[];
      readonly target: string;
      readonly onProblem: OnProblem;
    },
  ) {
    this.operands = options.operands;
    this.source = new CopySource(environment, {
      rtrs: options.rtrs,
      crc32: createCrc32(),
      random: environment.random,
      operands: options.operands,
      target: options.target,
      onProblem: ({ path, errno, isRemote }) => options.onProblem(path, errno, isRemote),
    });
    this.source.connect();
  }

  get isOver(): boolean {
    return this.source.isClosed;
  }

  get error(): FarpageError | null {
    return this.stopError ?? this.source.error;
  }

  get hasConnected(): boolean {
    return this.source.hasConnected;
  }

  get isConnected(): boolean {
    return this.source.session.state === "CONNECTED";
  }

  get lastError(): FarpageError | null {
    return this.source.session.lastError;
  }

  status(): CopyStatus {
    const { progress } = this.source;
    return {
      files: progress.filesDone,
      bytes: progress.bytesDone,
      skippedFiles: progress.filesSkipped,
      skippedBytes: progress.bytesSkipped,
      filesFound: progress.filesFound,
      bytesFound: progress.bytesFound,
      isFoundAll: progress.isFoundAll,
      problems: progress.problemCount,
    };
  }

  stop(error: FarpageError): void {
    if (this.source.state === "CLOSING" || this.isOver) return;
    this.stopError = error;
    this.source.cancel();
  }

  free(): void {
    for (const tree of new Set(this.operands.map((operand) => operand.tree))) tree.close();
  }

  pump(nowNs: number): void {
    this.source.pump(nowNs);
  }

  deadlineNs(): number {
    return this.source.deadlineNs();
  }

  checkInvariants(): void {
    this.source.checkInvariants();
  }
}

// SPDX-License-Identifier: MIT
// A copy from a server to here: asked for by one session, brought by another, which the server
// opens (rtrs/callback.ts).

import { ERRNO, errnoName, FarpageError, type IpAddress } from "../../base/index.js";
import {
  askedFor,
  COPY_USER_BYTES_MAX,
  CopyAsker,
  type CopyEnd,
  CopySink,
  type CopySinkCounters,
  type CopySinkHost,
  type CopyTell,
  type CopyTree,
  showByteText,
} from "../../copy/index.js";
import { createCrc32, type OsCopyTree } from "../../os/index.js";
import {
  RtrsCallback,
  type RtrsEnvironment,
  type ServerRequest,
  type ServerSession,
} from "../../rtrs/index.js";
import type { CopyJob, CopyStatus, JobRtrs, OnProblem } from "./copy-job.js";
import { COPY_CHUNK_BYTES, COPY_QUEUE_DEPTH } from "./copy-server.js";

/** How long a source that is lost is waited for. */
const GRACE_NS = 60e9;

export class PullJob implements CopyJob, CopySinkHost {
  error: FarpageError | null = null;
  hasConnected = false;
  private readonly asker: CopyAsker;
  private readonly callback: RtrsCallback;
  private readonly sink: CopySink;
  private readonly tree: OsCopyTree;
  private readonly onProblem: OnProblem;
  private last: CopySinkCounters | null = null;
  private found = { files: 0, bytes: 0, all: false };
  private problemCount = 0;
  private isStopping = false;

  constructor(
    environment: RtrsEnvironment,
    options: {
      readonly rtrs: JobRtrs;
      readonly tree: OsCopyTree;
      readonly paths: readonly string[];
      readonly local: IpAddress;
      readonly peer: IpAddress;
      readonly onProblem: OnProblem;
    },
  ) {
    this.tree = options.tree;
    this.onProblem = options.onProblem;
    const { local, peer } = options;
    const sizes = { queueDepth: COPY_QUEUE_DEPTH, chunkBytes: COPY_CHUNK_BYTES };
    const user = {
      onSessionUp: (session: ServerSession) => this.sink.onSessionUp(session),
      onSessionDown: (session: ServerSession) => this.sink.onSessionDown(session),
      onRequest: (request: ServerRequest) => this.sink.onRequest(request),
    };
    this.callback = new RtrsCallback(
      environment,
      { local, peer, ...sizes, pathCountMax: 1, userBytesMax: COPY_USER_BYTES_MAX },
      user,
    );
    this.sink = new CopySink(
      {
        crc32: createCrc32(),
        memory: environment.memory,
        maxIoBytes: this.callback.server.maxIoBytes,
        graceNs: GRACE_NS,
        replacesRuns: true,
        accepts: askedFor(options.paths),
      },
      this,
    );
    const run = { high: environment.random.nextU32(), low: environment.random.nextU32() };
    const pull = { ...this.callback.offer, paths: options.paths };
    this.asker = new CopyAsker(environment, { rtrs: options.rtrs, pull, run });
    this.asker.connect();
  }

  get isOver(): boolean {
    return this.isStopping && this.asker.isClosed && this.callback.isClosed && this.sink.isIdle;
  }

  get isConnected(): boolean {
    return this.asker.session.state === "CONNECTED";
  }

  get lastError(): FarpageError | null {
    return this.asker.session.lastError;
  }

  status(): CopyStatus {
    const counters = this.last ?? this.sink.counters();
    return {
      files: counters.files,
      bytes: counters.bytes,
      skippedFiles: counters.skippedFiles,
      skippedBytes: counters.skippedBytes,
      filesFound: this.found.files,
      bytesFound: this.found.bytes,
      isFoundAll: this.found.all,
      problems: this.problemCount + counters.failures,
    };
  }

  stop(error: FarpageError): void {
    if (this.isStopping) return;
    this.error = error;
    this.end();
  }

  free(): void {
    this.sink.close();
    this.tree.close();
  }

  pump(nowNs: number): void {
    this.asker.pump(nowNs);
    this.callback.pump(nowNs);
    this.sink.pump(nowNs);
    if (this.isConnected) this.hasConnected = true;
    if (this.asker.error !== null) this.stop(this.asker.error);
  }

  deadlineNs(): number {
    return Math.min(this.asker.deadlineNs(), this.callback.deadlineNs(), this.sink.deadlineNs());
  }

  checkInvariants(): void {
    this.callback.checkInvariants();
    this.sink.checkInvariants();
  }

  // ---------------------------------------------------------------------------------- CopySinkHost

  open(_path: string): CopyTree | number {
    return this.tree.below("", false);
  }

  pull(): number {
    // Nobody but this end asks for files here.
    return ERRNO.EACCES;
  }

  tell(tell: CopyTell): void {
    if (tell.what === "FOUND") this.found = tell;
    else if (tell.what === "PROBLEM") {
      this.problemCount++;
      this.onProblem(tell.path, tell.errno, true);
    } else if (tell.what === "FAILED") {
      const name = errnoName(tell.errno);
      this.stop(new FarpageError(name, `the server gave up: ${name}`));
    }
  }

  failed(path: string, errno: number): void {
    this.onProblem(path, errno, false);
    if (errno !== ERRNO.ENOSPC && errno !== ERRNO.EDQUOT && errno !== ERRNO.EROFS) return;
    const name = errnoName(errno);
    this.stop(new FarpageError(name, `"${showByteText(path)}" can't be stored: ${name}`));
  }

  ended(counters: CopySinkCounters, how: CopyEnd): void {
    if (how === "REPLACED") return;
    this.last = { ...counters };
    if (how === "DONE") this.end();
    else this.stop(new FarpageError("ESTALE", "the server has stopped sending"));
  }

  private end(): void {
    this.isStopping = true;
    this.asker.close();
    this.callback.close();
  }
}

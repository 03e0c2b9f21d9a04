// SPDX-License-Identifier: MIT
// The storing end of copies: the user of an RTRS server. It holds no policy: which folder a source
// may have, and whether a peer may ask to be sent something, its host says.

import {
  assert,
  type Crc32,
  ERRNO,
  joinHalves,
  type Machine,
  type MemorySource,
} from "../base/index.js";
import type { RtrsServerUser, ServerRequest, ServerSession } from "../rtrs/index.js";
import { SumsBudget } from "./block-sums.js";
import {
  COPY_FLAG_OWNERS,
  COPY_HELLO_BYTES,
  COPY_TELL,
  COPY_TOKEN_BYTES,
  COPY_TYPE,
  CopyHeader,
  copyBlockBytes,
  readCopyHeader,
} from "./messages.js";
import { CopyRecord, readRecord } from "./records.js";
import { type CopySinkCounters, newCounters } from "./sink-file.js";
import { SinkRun, type SinkRunContext } from "./sink-run.js";
import type { CopyTree } from "./tree.js";

/** A request to be sent files, by a session of the asking end (docs/rtrs.md). */
export interface CopyPull {
  /** Names the request: one that comes twice is the same. */
  readonly key: string;
  /** Where the asking end listens, and the name under which it lets a session in. */
  readonly port: number;
  readonly token: string;
  /** What it wants: below the exports, as byte strings. */
  readonly paths: readonly string[];
}

/** What a source tells about itself. */
export type CopyTell =
  | {
      readonly what: "FOUND";
      readonly files: number;
      readonly bytes: number;
      readonly all: boolean;
    }
  | { readonly what: "PROBLEM"; readonly path: string; readonly errno: number }
  | { readonly what: "DONE"; readonly counters: CopySinkCounters }
  | { readonly what: "FAILED"; readonly errno: number };

/**
 * How a run has ended: as the source says; the source stayed away for too long, gave up, or the
 * sink was closed; another run has taken its place.
 */
export type CopyEnd = "DONE" | "LOST" | "REPLACED";

/** Who decides. All are called from `pump`. */
export interface CopySinkHost {
  /** @returns the tree that `path` names, or the errno to refuse it with. */
  open(path: string, session: ServerSession): CopyTree | number;
  /** Somebody wants files. @returns 0 when they will be sent, or an errno. */
  pull(pull: CopyPull, session: ServerSession): number;
  tell(tell: CopyTell): void;
  /** A run has ended. */
  ended(counters: CopySinkCounters, how: CopyEnd): void;
  /** Something could not be stored; the source is told as well. */
  failed(path: string, errno: number): void;
}

export interface CopySinkOptions {
  readonly crc32: Crc32;
  readonly memory: MemorySource;
  /** Largest data of a request of the server. */
  readonly maxIoBytes: number;
  /** How long a run waits for its source to come back, nanoseconds; default a minute. */
  readonly graceNs?: number;
  /**
   * Runs at a time, default 16, one of a session. A further one takes the place of a run that has
   * no session any more; if there is none, it gets EBUSY.
   */
  readonly runCountMax?: number;
  /** What may be made below a run's root; default: everything. Others get EPERM. */
  readonly accepts?: (path: string) => boolean;
  /** Groups of 1024 blocks whose CRCs are kept for all large files, default 65,536. */
  readonly sumGroupsMax?: number;
  /** A new run ends those before it: for a sink that has one source. */
  readonly replacesRuns?: boolean;
}

const GRACE_NS = 60e9;
const RUN_COUNT_MAX = 16;
const REQUESTS_PER_PUMP = 16;
/** 5 KiB each, for 17 TB of blocks. */
const SUM_GROUPS_MAX = 65_536;

export class CopySink implements RtrsServerUser, Machine {
  private readonly options: CopySinkOptions;
  private readonly context: SinkRunContext;
  private readonly host: CopySinkHost;
  private readonly runs = new Map<string, SinkRun>();
  /** Runs that are over, while I/O of theirs is under way. */
  private readonly closing = new Set<SinkRun>();
  /** What changes the file system waits here: one a pump, so that packets get their turn. */
  private readonly queue: ServerRequest[] = [];
  private readonly header = new CopyHeader();
  private nowNs = 0;

  constructor(options: CopySinkOptions, host: CopySinkHost) {
    this.options = options;
    this.host = host;
    const { crc32, memory } = options;
    const sums = new SumsBudget(options.sumGroupsMax ?? SUM_GROUPS_MAX);
    this.context = {
      crc32,
      memory,
      sums,
      failed: (path, errno) => host.failed(path, errno),
      accepts: options.accepts ?? (() => true),
    };
  }

  get runCount(): number {
    return this.runs.size;
  }

  /** No I/O is under way, and nothing waits. */
  get isIdle(): boolean {
    return this.queue.length === 0 && this.closing.size === 0 && !this.isMoving();
  }

  /** Files and bytes stored so far by the runs there are. */
  counters(): CopySinkCounters {
    const all = newCounters();
    for (const { counters } of this.runs.values()) {
      all.files += counters.files;
      all.bytes += counters.bytes;
      all.skippedFiles += counters.skippedFiles;
      all.skippedBytes += counters.skippedBytes;
      all.failures += counters.failures;
    }
    return all;
  }

  /** Ends all runs; pump until `isIdle`. Preconditions: no session is left. */
  close(): void {
    for (const [key, run] of this.runs) this.endRun(key, run, "LOST");
    this.reap();
  }

  pump(nowNs: number): void {
    this.nowNs = nowNs;
    for (const run of this.runs.values()) run.tree.poll();
    for (const run of this.closing) run.tree.poll();
    // A batch may make hundreds of files: the rest waits for the next turn.
    for (let left = REQUESTS_PER_PUMP; left > 0; left--) {
      const request = this.queue.shift();
      if (request === undefined) break;
      this.execute(request);
      if (this.header.type === COPY_TYPE.BATCH) break;
    }
    for (const [key, run] of this.runs) if (nowNs >= run.expiresNs) this.endRun(key, run, "LOST");
    this.reap();
  }

  deadlineNs(): number {
    if (this.queue.length > 0) return this.nowNs;
    let deadlineNs = Infinity;
    for (const run of this.runs.values()) deadlineNs = Math.min(deadlineNs, run.expiresNs);
    return deadlineNs;
  }

  checkInvariants(): void {
    const max = this.options.runCountMax ?? RUN_COUNT_MAX;
    assert(this.runs.size <= max, "no more runs than allowed");
  }

  // ------------------------------------------------------------------------------- RtrsServerUser

  onSessionUp(_session: ServerSession): void {
    // Who it is turns out with its first request.
  }

  onSessionDown(session: ServerSession): void {
    for (const run of this.runs.values()) {
      if (run.session !== session) continue;
      run.session = null;
      run.expiresNs = this.nowNs + (this.options.graceNs ?? GRACE_NS);
    }
  }

  onRequest(request: ServerRequest): void {
    this.queue.push(request);
  }

  // --------------------------------------------------------------------------------------- inside

  private isMoving(): boolean {
    for (const run of this.runs.values()) if (run.isBusy) return true;
    return false;
  }

  private execute(request: ServerRequest): void {
    const { header } = this;
    const { userMessage, userView, userLength, session } = request;
    const fault = readCopyHeader(header, userMessage, userView, userLength);
    if (fault !== null) {
      request.complete(fault === "VERSION" ? ERRNO.EPROTONOSUPPORT : ERRNO.EPROTO);
      return;
    }
    const key = `${header.runHigh}:${header.runLow}`;
    if (header.type === COPY_TYPE.HELLO) {
      this.hello(key, request);
    } else if (header.type === COPY_TYPE.PULL) {
      request.complete(this.pull(key, request), 0);
    } else {
      const run = this.runs.get(key);
      if (run === undefined || !run.isOf(session)) {
        request.complete(ERRNO.ESTALE);
        return;
      }
      run.join(session);
      if (header.type === COPY_TYPE.TELL) this.tell(key, run, request);
      else run.take(header, request);
    }
  }

  private hello(key: string, request: ServerRequest): void {
    if (!request.isRead || request.dataLength < COPY_HELLO_BYTES) {
      request.complete(ERRNO.EINVAL);
      return;
    }
    const run = this.runs.get(key) ?? this.begin(key, request.session);
    if (typeof run === "number" || !run.isOf(request.session)) {
      request.complete(typeof run === "number" ? run : ERRNO.ESTALE);
      return;
    }
    run.join(request.session);
    const { blockBytes } = run;
    const { view } = request.memory;
    view.setUint32(request.memoryOffset, blockBytes, true);
    view.setUint32(request.memoryOffset + 4, run.tree.keepsOwners ? COPY_FLAG_OWNERS : 0, true);
    view.setUint32(request.memoryOffset + 8, 0, true);
    view.setUint32(request.memoryOffset + 12, 0, true);
    request.complete(0, COPY_HELLO_BYTES);
  }

  /** @returns a run that is new, or the errno to refuse it with. */
  private begin(key: string, session: ServerSession): SinkRun | number {
    if (this.options.replacesRuns === true) {
      for (const [other, old] of this.runs) this.endRun(other, old, "REPLACED");
    }
    const tree = this.host.open(this.header.path, session);
    if (typeof tree === "number") return tree;
    if (!this.makeRoom(session)) {
      tree.close();
      return ERRNO.EBUSY;
    }
    const blockBytes = copyBlockBytes(this.options.maxIoBytes);
    const run = new SinkRun(this.context, tree, blockBytes, session, this.host);
    this.runs.set(key, run);
    return run;
  }

  /**
   * A session has one run, so no client can use up those of the others; and who has left makes room
   * for who is there: first one from the same address, which has mostly begun again.
   */
  private makeRoom(session: ServerSession): boolean {
    for (const run of this.runs.values()) if (run.session === session) return false;
    if (this.runs.size < (this.options.runCountMax ?? RUN_COUNT_MAX)) return true;
    const left = [...this.runs].filter(([, run]) => run.session === null);
    left.sort(([, one], [, other]) => one.expiresNs - other.expiresNs);
    const [key, run] = left.find(([, one]) => one.peer.equals(session.peer)) ?? left[0] ?? [];
    if (key === undefined || run === undefined) return false;
    this.endRun(key, run, "LOST");
    return true;
  }

  private pull(key: string, request: ServerRequest): number {
    const { path, argument: port } = this.header;
    const token = path.slice(0, COPY_TOKEN_BYTES);
    const rest = path.slice(COPY_TOKEN_BYTES);
    if (!/^[0-9a-f]{32}$/.test(token) || port < 1 || port > 65_535) return ERRNO.EINVAL;
    if (!rest.endsWith("\0")) return ERRNO.EINVAL;
    const paths = rest.slice(0, -1).split("\0");
    return this.host.pull({ key, port, token, paths }, request.session);
  }

  private tell(key: string, run: SinkRun, request: ServerRequest): void {
    const { header } = this;
    const { memory, memoryOffset, isRead, dataLength } = request;
    if (isRead || header.byteLength > dataLength) {
      request.complete(ERRNO.EINVAL);
      return;
    }
    const { view } = memory;
    switch (header.argument) {
      case COPY_TELL.FOUND: {
        if (header.byteLength < 16) break;
        const [files, bytes] = [0, 8].map((at) =>
          joinHalves(
            view.getUint32(memoryOffset + at + 4, true),
            view.getUint32(memoryOffset + at, true),
          ),
        ) as [number, number];
        this.host.tell({ what: "FOUND", files, bytes, all: header.offset === 1 });
        request.complete(0);
        return;
      }
      case COPY_TELL.PROBLEM: {
        const record = new CopyRecord();
        const end = memoryOffset + header.byteLength;
        if (readRecord(record, memory.bytes, view, memoryOffset, end) < 0) break;
        this.host.tell({ what: "PROBLEM", path: record.path, errno: record.size });
        request.complete(0);
        return;
      }
      case COPY_TELL.DONE:
        this.host.tell({ what: "DONE", counters: { ...run.counters } });
        this.endRun(key, run, "DONE");
        request.complete(0);
        return;
      case COPY_TELL.FAILED:
        this.host.tell({ what: "FAILED", errno: header.offset });
        this.endRun(key, run, "LOST");
        request.complete(0);
        return;
      default:
    }
    request.complete(ERRNO.EINVAL);
  }

  private endRun(key: string, run: SinkRun, how: CopyEnd): void {
    this.runs.delete(key);
    this.closing.add(run);
    this.host.ended(run.counters, how);
  }

  private reap(): void {
    for (const run of this.closing) {
      if (run.isBusy) continue;
      this.closing.delete(run);
      run.close();
    }
  }
}

// SPDX-License-Identifier: MIT
// The end of a copy that has the files: the user of an RTRS client session. It walks what it was
// told to copy, asks the sink what it has already, packs small files into batches and sends large
// ones block by block, as many at a time as the session has requests.
//
// What can't be copied is told file by file and does not end the copy; the sink's disk full, or the
// sink gone with all it knew (ESTALE), does. Then it is run again, and goes on where it was.

import {
  assert,
  type Crc32,
  ERRNO,
  errnoName,
  FarpageError,
  type Machine,
  type Random,
} from "../base/index.js";
import {
  type ClientRequest,
  RtrsClient,
  type RtrsClientOptions,
  type RtrsClientUser,
  type RtrsEnvironment,
} from "../rtrs/index.js";
import { BatchWriter } from "./batch-writer.js";
import { Batches } from "./batches.js";
import { BigFiles } from "./big-files.js";
import { showByteText } from "./byte-text.js";
import { COPY_HELLO_BYTES, COPY_TELL, COPY_TELL_BYTES, COPY_TYPE } from "./messages.js";
import {
  COPY_SESSION,
  type CopyProblem,
  type CopyProgress,
  type CopySession,
  SourceLink,
  type SourceOwner,
  type SourceTask,
} from "./source-link.js";
import { Tells } from "./tells.js";
import type { CopyIo, CopyIoOwner } from "./tree.js";
import { type CopyItem, type CopyOperand, Walk, type WalkOwner } from "./walk.js";

export interface CopySourceOptions {
  readonly rtrs: Omit<RtrsClientOptions, "userBytesMax">;
  readonly crc32: Crc32;
  readonly random: Random;
  /** Their trees are not the source's: whoever opened them closes them. */
  readonly operands: readonly CopyOperand[];
  /** What the sink's host takes for the folder to copy to; a byte string. */
  readonly target: string;
  readonly onProblem: (problem: CopyProblem) => void;
  /** Tell the sink how far the walk is and what went wrong: it is the one who asked. */
  readonly tells?: boolean;
}

/**
 * - `CONNECTING`: the session comes up for the first time; HELLO is under way.
 * - `PROBING`: directories that were named are made: are they new at the sink?
 * - `COPYING`: everything but what comes last.
 * - `LINKING`, `SETTLING`: further names of files; attributes of directories, deepest first.
 * - `ENDING`: DONE is under way.
 * - `CLOSING`: the session ends.
 * - `CLOSED`: nothing is left; `error` says how it ended.
 */
export type CopySourceState =
  | "CONNECTING"
  | "PROBING"
  | "COPYING"
  | "LINKING"
  | "SETTLING"
  | "ENDING"
  | "CLOSING"
  | "CLOSED";

/** What follows on a stage in which nothing is left to do. */
const NEXT: Readonly<Partial<Record<CopySourceState, CopySourceState>>> = {
  PROBING: "COPYING",
  COPYING: "LINKING",
  LINKING: "SETTLING",
  SETTLING: "ENDING",
};

/** What no further file can be stored for. */
const FATAL: readonly number[] = [
  ERRNO.ESTALE,
  ERRNO.ENOSPC,
  ERRNO.EDQUOT,
  ERRNO.EROFS,
  ERRNO.EPROTO,
  ERRNO.EPROTONOSUPPORT,
];

export class CopySource implements Machine, RtrsClientUser, CopyIoOwner, WalkOwner, SourceOwner {
  state: CopySourceState = "CONNECTING";
  /** Why it ended before everything was done; null when all went well, or so far. */
  error: FarpageError | null = null;
  readonly progress: CopyProgress = {
    filesFound: 0,
    bytesFound: 0,
    isFoundAll: false,
    filesDone: 0,
    bytesDone: 0,
    filesSkipped: 0,
    bytesSkipped: 0,
    problemCount: 0,
  };
  readonly session: CopySession;

  private readonly options: CopySourceOptions;
  private readonly link: SourceLink;
  private readonly big: BigFiles;
  private readonly batches: Batches;
  private readonly tells: Tells | null;
  private writer: BatchWriter | null = null;
  private hasHello = false;
  /** Something has happened since the last attempt to use a request. */
  private isStirred = false;
  private nowNs = 0;

  /**
   * @param createSession makes the session that `options.rtrs` tells of, with at most
   *   `COPY_REQUESTS_MAX` requests.
   * @throws FarpageError as `RtrsClient` does.
   */
  constructor(
    environment: RtrsEnvironment,
    options: CopySourceOptions,
    createSession: (user: RtrsClientUser) => CopySession = (user) =>
      new RtrsClient(environment, { ...options.rtrs, ...COPY_SESSION }, user),
  ) {
    this.options = options;
    this.session = createSession(this);
    this.link = new SourceLink(environment, this.session, this, options.random);
    const walk = new Walk(options.operands, this);
    this.big = new BigFiles(this.link, this, options.crc32);
    this.batches = new Batches(this.link, this, walk, this.big);
    this.tells = options.tells === true ? new Tells(this.link, walk) : null;
  }

  connect(): void {
    this.session.connect();
  }

  /** Ends it as it is: what has been sent stays, parts of large files too. */
  cancel(): void {
    this.fail(new FarpageError("ECANCELED", "the copy was stopped; run it again to go on"));
  }

  get isClosed(): boolean {
    return this.state === "CLOSED";
  }

  /** Whether the session has been up. */
  get hasConnected(): boolean {
    return this.writer !== null;
  }

  pump(nowNs: number): void {
    this.nowNs = nowNs;
    if (this.state === "CLOSED") return;
    this.session.pump(nowNs);
    for (const { tree } of this.options.operands) tree.poll();
    if (this.hasHello && this.state !== "CLOSING") this.work();
    if (this.state === "CLOSING" && !this.big.isReading && this.session.state === "CLOSED") {
      this.state = "CLOSED";
      this.big.close();
      this.link.free();
    }
  }

  deadlineNs(): number {
    if (this.state === "CLOSED") return Infinity;
    if (this.isStirred && this.hasHello && this.state !== "CLOSING") return this.nowNs;
    return this.session.deadlineNs();
  }

  checkInvariants(): void {
    if (this.state !== "CLOSED") this.session.checkInvariants();
    const { filesDone, filesSkipped } = this.progress;
    assert(filesSkipped <= filesDone, "what is skipped is done");
    assert(this.link.inflight >= 0, "requests end once");
  }

  // -------------------------------------------------------------------------------- RtrsClientUser

  onSessionUp(): void {
    if (this.writer !== null) {
      this.session.reissue();
      return;
    }
    const { link } = this;
    try {
      link.open();
    } catch (error) {
      if (!(error instanceof FarpageError)) throw error;
      this.fail(error);
      return;
    }
    this.writer = new BatchWriter(this.options.crc32, link.place, link.slotBytes);
    const request = link.acquire();
    assert(request !== null, "a session that has come up has a request");
    link.send(request, COPY_TYPE.HELLO, { path: this.options.target, read: COPY_HELLO_BYTES });
  }

  onSessionDown(): void {
    // Requests wait until it is up again.
  }

  onSessionFailed(error: FarpageError): void {
    this.fail(error);
  }

  onRequestReissue(_request: ClientRequest): number {
    return 0;
  }

  onPermitAvailable(): void {
    this.isStirred = true;
  }

  onRequestComplete(request: ClientRequest): void {
    const { link } = this;
    link.inflight--;
    this.isStirred = true;
    if (this.state === "CLOSING") link.release(request);
    else this.onAnswer(request, link.taskOf(request));
  }

  // ---------------------------------------------------------------------------- its parts' owner

  onCopyIo(io: CopyIo): void {
    this.isStirred = true;
    this.big.onCopyIo(io, this.state === "CLOSING");
  }

  onProblem(path: string, errno: number): void {
    this.problem({ path, errno, isRemote: false });
  }

  isFresh(operand: CopyOperand): boolean {
    return this.batches.isFresh(operand);
  }

  want(item: CopyItem): void {
    item.isFresh = true;
    this.batches.want(item);
  }

  problem(problem: CopyProblem): void {
    this.progress.problemCount++;
    this.options.onProblem(problem);
    if (!problem.isRemote) this.tells?.add(problem);
  }

  refused(path: string, errno: number): void {
    if (!FATAL.includes(errno)) {
      this.problem({ path, errno, isRemote: true });
      return;
    }
    const name = errnoName(errno);
    this.fail(new FarpageError(name, `the other end can't store "${showByteText(path)}": ${name}`));
  }

  // ------------------------------------------------------------------------------------------ work

  private work(): void {
    this.isStirred = false;
    const { link } = this;
    for (let left = this.session.queueDepth; left > 0; left--) {
      const request = link.acquire();
      if (request === null) return;
      const outcome = this.use(request);
      if (outcome === "NOTHING") {
        link.release(request);
        break;
      }
      if (outcome === "BATCH") {
        // One a pump: making it reads many files, and packets wait.
        this.isStirred = true;
        return;
      }
    }
    if (link.inflight === 0 && !this.isClosing) this.nextStage();
  }

  private get isClosing(): boolean {
    return this.state === "CLOSING";
  }

  /** Finds something for a request to do. */
  private use(request: ClientRequest): "SENT" | "BATCH" | "NOTHING" {
    const writer = this.writer as BatchWriter;
    if (this.tells?.use(request, this.nowNs) === true) return "SENT";
    switch (this.state) {
      case "PROBING":
        return this.batches.probe(this.options.operands, request, writer) ? "BATCH" : "NOTHING";
      case "COPYING":
        if (this.big.use(request, writer)) return "SENT";
        return this.batches.pack(request, writer) ? "BATCH" : "NOTHING";
      case "LINKING":
        return this.batches.sendLinks(request, writer) ? "BATCH" : "NOTHING";
      case "SETTLING":
        return this.batches.settleDirectories(request, writer) ? "BATCH" : "NOTHING";
      default:
        return "NOTHING";
    }
  }

  /** Nothing is under way, and nothing more was found to do. */
  private nextStage(): void {
    const next = NEXT[this.state];
    if (next === undefined || (this.state === "COPYING" && !this.big.isEmpty)) return;
    this.state = next;
    this.isStirred = true;
    if (next !== "ENDING") return;
    const request = this.link.acquire();
    assert(request !== null, "nothing is under way, so requests are free");
    this.link.writeNumbers(request, [this.progress.filesDone, this.progress.bytesDone]);
    this.link.send(request, COPY_TYPE.TELL, { argument: COPY_TELL.DONE, write: COPY_TELL_BYTES });
  }

  private onAnswer(request: ClientRequest, task: SourceTask): void {
    const { errno } = request;
    switch (task.header.type) {
      case COPY_TYPE.HELLO:
        this.onHello(request);
        return;
      case COPY_TYPE.TELL:
        this.onTold(request, task);
        return;
      case COPY_TYPE.BATCH:
        if (!FATAL.includes(errno)) this.batches.onBatch(request, task);
        break;
      case COPY_TYPE.ANSWER:
        if (!FATAL.includes(errno)) this.batches.onResults(request, task);
        break;
      default:
        if (!FATAL.includes(errno)) this.big.onAnswer(request, task);
    }
    if (!FATAL.includes(errno)) return;
    this.link.release(request);
    this.refused(task.file?.item.target ?? this.options.target, errno);
  }

  private onHello(request: ClientRequest): void {
    const { errno, memoryOffset } = request;
    const { link } = this;
    const blockBytes = errno === 0 ? link.place.view.getUint32(memoryOffset, true) : 0;
    link.release(request);
    if (errno !== 0) {
      const name = errnoName(errno);
      const where = showByteText(this.options.target);
      this.fail(new FarpageError(name, `the other end does not take "${where}": ${name}`));
    } else if (blockBytes < 512 || blockBytes > link.slotBytes) {
      this.fail(new FarpageError("EPROTO", `the other end wants blocks of ${blockBytes} bytes`));
    } else {
      this.big.blockBytes = blockBytes;
      this.hasHello = true;
      this.state = "PROBING";
    }
  }

  private onTold(request: ClientRequest, task: SourceTask): void {
    const { errno, reissueCount } = request;
    const isDone = task.header.argument === COPY_TELL.DONE;
    this.link.release(request);
    // A DONE that was executed, and comes again, names a run that is over.
    const isRepeated = isDone && errno === ERRNO.ESTALE && reissueCount > 0;
    if (errno !== 0 && !isRepeated) this.refused(this.options.target, FATAL[0] as number);
    else if (isDone) this.startClosing();
  }

  private fail(error: FarpageError): void {
    if (this.state === "CLOSING" || this.state === "CLOSED") return;
    this.error = error;
    this.startClosing();
  }

  private startClosing(): void {
    this.state = "CLOSING";
    if (this.session.state !== "CLOSED") this.session.close();
  }
}

// SPDX-License-Identifier: MIT
// A source's requests: each with its place in registered memory and with what it is doing.

import { assert, type Memory, type Random } from "../base/index.js";
import type { ClientRequest, RtrsClient, RtrsEnvironment } from "../rtrs/index.js";
import type { BigFile } from "./big-file.js";
import { COPY_USER_BYTES_MAX, CopyHeader, type CopyType, writeCopyHeader } from "./messages.js";
import type { CopyAction } from "./records.js";
import { CopyIo, type CopyIoOwner } from "./tree.js";
import type { CopyItem } from "./walk.js";

/**
 * Requests of a copy at a time, and bytes of each one's place, whatever the other end offers: it
 * must not decide how much memory this one takes.
 */
export const COPY_REQUESTS_MAX = 64;
const PLACE_BYTES_MAX = 1 << 18;

/** What the session of a copy needs beside addresses and a name. */
export const COPY_SESSION = {
  userBytesMax: COPY_USER_BYTES_MAX,
  queueDepthMax: COPY_REQUESTS_MAX,
} as const;

/** What a `CopySource` takes of an `RtrsClient`. */
export type CopySession = Pick<
  RtrsClient,
  | "acquire"
  | "checkInvariants"
  | "close"
  | "connect"
  | "deadlineNs"
  | "lastError"
  | "maxIoBytes"
  | "pump"
  | "queueDepth"
  | "registerMemory"
  | "reissue"
  | "release"
  | "state"
  | "submitRead"
  | "submitWrite"
>;

/** What a record of a batch was about. */
export interface BatchEntry {
  readonly action: CopyAction;
  readonly item: CopyItem | null;
  readonly path: string;
}

/** What a request is doing; made with the first use of the request and reused. */
export class SourceTask {
  readonly io: CopyIo;
  readonly header = new CopyHeader();
  /** A batch's records, in order. */
  readonly entries: BatchEntry[] = [];
  file: BigFile | null = null;
  /** The block that is read and sent. */
  index = 0;

  constructor(owner: CopyIoOwner) {
    this.io = new CopyIo(owner);
  }
}

/** The fields of a header that differ from nothing. */
export interface CopyWords {
  readonly slot?: number;
  readonly argument?: number;
  readonly offset?: number;
  readonly path?: string;
  /** Data bytes that are asked for, or sent. */
  readonly read?: number;
  readonly write?: number;
}

export class SourceLink {
  readonly session: CopySession;
  memory: Memory | null = null;
  /** Bytes of each request's place. */
  slotBytes = 0;
  /** Requests that are submitted, or whose block is being read. */
  inflight = 0;
  private readonly environment: RtrsEnvironment;
  private readonly owner: CopyIoOwner;
  private readonly tasks: (SourceTask | null)[] = [];
  private readonly runHigh: number;
  private readonly runLow: number;

  constructor(
    environment: RtrsEnvironment,
    session: CopySession,
    owner: CopyIoOwner,
    random: Random,
  ) {
    this.environment = environment;
    this.session = session;
    this.owner = owner;
    this.runHigh = random.nextU32();
    this.runLow = random.nextU32();
  }

  /**
   * The session is connected for the first time.
   * @throws FarpageError ENOMEM.
   */
  open(): void {
    const { maxIoBytes, queueDepth } = this.session;
    assert(queueDepth <= COPY_REQUESTS_MAX, "whoever makes the session bounds its requests");
    this.slotBytes = Math.min(maxIoBytes, PLACE_BYTES_MAX);
    // Requests are numbered beyond those that `acquire` hands out: some are reserved.
    const bytes = (queueDepth + 16) * this.slotBytes;
    this.memory = this.environment.memory.allocate(bytes, "files on their way");
    this.session.registerMemory(this.memory);
  }

  /** Preconditions: the session is closed, and nothing is read any more. */
  free(): void {
    if (this.memory !== null) this.environment.memory.free(this.memory);
    this.memory = null;
  }

  /** The memory of requests. Preconditions: `open`. */
  get place(): Memory {
    return this.memory as Memory;
  }

  acquire(): ClientRequest | null {
    const request = this.session.acquire();
    if (request === null) return null;
    request.memory = this.memory;
    request.memoryOffset = request.number * this.slotBytes;
    return request;
  }

  /** The requests of a session that is closed have gone with it. */
  release(request: ClientRequest): void {
    if (this.session.state !== "CLOSED") this.session.release(request);
  }

  taskOf(request: ClientRequest): SourceTask {
    const task = this.tasks[request.number] ?? new SourceTask(this.owner);
    this.tasks[request.number] = task;
    return task;
  }

  send(request: ClientRequest, type: CopyType, words: CopyWords): void {
    const { header } = this.taskOf(request);
    header.type = type;
    header.slot = words.slot ?? 0;
    header.argument = words.argument ?? 0;
    header.offset = words.offset ?? 0;
    header.byteLength = words.write ?? words.read ?? 0;
    header.path = words.path ?? "";
    header.runHigh = this.runHigh;
    header.runLow = this.runLow;
    request.userLength = writeCopyHeader(header, request.userMessage, request.userView);
    this.inflight++;
    if (words.read !== undefined) this.session.submitRead(request, words.read);
    else this.session.submitWrite(request, words.write ?? 0);
  }

  /** Writes 64-bit numbers to a request's place. */
  writeNumbers(request: ClientRequest, numbers: readonly number[]): void {
    const { view } = this.place;
    numbers.forEach((value, i) => {
      view.setUint32(request.memoryOffset + i * 8, value >>> 0, true);
      view.setUint32(request.memoryOffset + i * 8 + 4, Math.floor(value / 0x1_0000_0000), true);
    });
  }
}

/** What could not be copied, and why. */
export interface CopyProblem {
  /** A byte string: where it is at the source, or (`isRemote`) at the sink. */
  readonly path: string;
  readonly errno: number;
  /** Whether the sink said so. */
  readonly isRemote: boolean;
}

/** How far it is; all only grow. */
export interface CopyProgress {
  filesFound: number;
  bytesFound: number;
  /** No more will be found. */
  isFoundAll: boolean;
  filesDone: number;
  bytesDone: number;
  /** Of those done: were there already. */
  filesSkipped: number;
  bytesSkipped: number;
  problemCount: number;
}

/** What the parts of a source tell it. */
export interface SourceOwner {
  readonly progress: CopyProgress;
  problem(problem: CopyProblem): void;
  /** The sink could not store something: a problem, or the end. */
  refused(path: string, errno: number): void;
  /** An item is to be sent (again). */
  want(item: CopyItem): void;
}

// SPDX-License-Identifier: MIT
// One run at the sink: a tree, the answers to batches, the large files that are open. Everything
// that a source sends is checked here; what it does can harm this tree alone.

import { ERRNO, type IpAddress, type Memory } from "../base/index.js";
import type { ServerRequest, ServerSession } from "../rtrs/index.js";
import { decodeExtra, NO_EXTRA } from "./attributes.js";
import { readByteText } from "./byte-text.js";
import type { CopyHeader } from "./messages.js";
import { COPY_TYPE } from "./messages.js";
import { nameOf } from "./path.js";
import {
  COPY_ACTION,
  COPY_RESULT,
  CopyRecord,
  checkRecordPath,
  crcOf,
  RECORD_BYTES,
  RESULT_BYTES,
  readRecord,
} from "./records.js";
import { type CopySinkCounters, newCounters, type SinkContext, SinkFile } from "./sink-file.js";
import { CopyStat, type CopyTree } from "./tree.js";

/** Batches whose answers are kept, and large files open at a time. */
const ANSWERS_MAX = 1024;
const FILES_MAX = 64;

export interface SinkRunContext extends SinkContext {
  /** Whether something may be made at this path. */
  readonly accepts: (path: string) => boolean;
}

export interface SinkRunOwner {
  failed(path: string, errno: number): void;
}

export class SinkRun {
  readonly tree: CopyTree;
  readonly blockBytes: number;
  /** Who sent the last request of it. */
  session: ServerSession | null;
  /** Without a session: when it is given up. */
  expiresNs = Infinity;
  readonly counters: CopySinkCounters = newCounters();
  /** Whose it is: a run can't be gone on with from elsewhere, or under another name. */
  readonly peer: IpAddress;
  private readonly name: string;
  private readonly context: SinkRunContext;
  private readonly owner: SinkRunOwner;
  private readonly answers: (Uint16Array | null)[] = [];
  private readonly files: (SinkFile | null)[] = [];
  private readonly record = new CopyRecord();
  private readonly stat = new CopyStat();

  constructor(
    context: SinkRunContext,
    tree: CopyTree,
    blockBytes: number,
    session: ServerSession,
    owner: SinkRunOwner,
  ) {
    this.owner = owner;
    this.context = context;
    this.tree = tree;
    this.blockBytes = blockBytes;
    this.session = session;
    this.peer = session.peer;
    this.name = session.name;
  }

  /** Whether a session is of the client that began the run. */
  isOf(session: ServerSession): boolean {
    return session.peer.equals(this.peer) && session.name === this.name;
  }

  /** Its client is there, by this session. */
  join(session: ServerSession): void {
    this.session = session;
    this.expiresNs = Infinity;
  }

  /** Whether I/O is under way: it must not be closed. */
  get isBusy(): boolean {
    return this.files.some((file) => file?.isBusy === true);
  }

  /** Ends the run. Preconditions: not `isBusy`. */
  close(): void {
    for (const file of this.files) file?.close();
    this.files.length = 0;
    this.tree.close();
  }

  /** Executes a request of this run and answers it, now or when its I/O is done. */
  take(header: CopyHeader, request: ServerRequest): void {
    switch (header.type) {
      case COPY_TYPE.BATCH:
        this.takeBatch(header, request);
        return;
      case COPY_TYPE.ANSWER:
        this.giveAnswer(header, request);
        return;
      case COPY_TYPE.OPEN:
        this.openFile(header, request);
        return;
      case COPY_TYPE.FINISH:
        request.complete(this.finishFile(header, request));
        return;
      default:
    }
    const file = this.files[header.slot] ?? null;
    if (file === null) request.complete(ERRNO.EBADF);
    else if (header.type === COPY_TYPE.SUMS) file.takeSums(request, header.offset, header.argument);
    else file.takeBlock(request, header.offset, header.byteLength, header.argument);
  }

  // -------------------------------------------------------------------------------------- batches

  private takeBatch(header: CopyHeader, request: ServerRequest): void {
    const { byteLength, argument: count, slot } = header;
    const isSane =
      !request.isRead &&
      byteLength <= request.dataLength &&
      count * RECORD_BYTES <= byteLength &&
      slot < ANSWERS_MAX;
    if (!isSane) {
      request.complete(ERRNO.EINVAL);
      return;
    }
    const { bytes, view } = request.memory;
    const results = new Uint16Array(count);
    const end = request.memoryOffset + byteLength;
    let at = request.memoryOffset;
    let isPlain = true;
    for (let i = 0; i < count; i++) {
      at = readRecord(this.record, bytes, view, at, end);
      if (at < 0) {
        request.complete(ERRNO.EPROTO);
        return;
      }
      const result = this.execute(request.memory);
      results[i] = result;
      if (result !== COPY_RESULT.DONE) isPlain = false;
    }
    this.answers[slot] = results;
    request.complete(isPlain ? 0 : ERRNO.EREMOTEIO);
  }

  private giveAnswer(header: CopyHeader, request: ServerRequest): void {
    const results = this.answers[header.slot] ?? null;
    const bytes = header.argument * RESULT_BYTES;
    if (results === null || results.length !== header.argument || bytes > request.dataLength) {
      request.complete(ERRNO.EINVAL);
      return;
    }
    if (!request.isRead) {
      request.complete(ERRNO.EINVAL);
      return;
    }
    const { view } = request.memory;
    for (let i = 0; i < results.length; i++) {
      view.setUint16(request.memoryOffset + i * RESULT_BYTES, results[i] as number, true);
    }
    request.complete(0, bytes);
  }

  /** Does what the record says. @returns its result. */
  private execute(memory: Memory): number {
    const { record, tree } = this;
    const errno = this.refusal(record.path);
    if (errno !== 0) return this.failed(errno);
    // What is copied to is not a part of the copy: it keeps its mode and its owner.
    if (record.path === "" && record.action === COPY_ACTION.ATTRIBUTES) {
      return this.failed(ERRNO.EPERM);
    }
    // The root itself is a directory and stays one.
    const isDirectory =
      record.action === COPY_ACTION.DIRECTORY || record.action === COPY_ACTION.ATTRIBUTES;
    if (record.path === "" && !isDirectory) return this.failed(ERRNO.EISDIR);
    switch (record.action) {
      case COPY_ACTION.CHECK:
        return this.check();
      case COPY_ACTION.DIRECTORY: {
        const result = tree.makeDirectory(record.path);
        if (result < 0) return this.failed(-result);
        return result === 0 ? COPY_RESULT.MADE : COPY_RESULT.HAVE;
      }
      case COPY_ACTION.FILE:
        return this.putFile(memory);
      case COPY_ACTION.SYMLINK: {
        const target = this.linkTarget();
        if (target === "" || target.includes("\0")) return this.failed(ERRNO.EINVAL);
        record.extra = NO_EXTRA;
        return this.done(tree.makeSymlink(record.path, target, record));
      }
      case COPY_ACTION.HARDLINK: {
        const target = this.linkTarget();
        const refused = target === "" ? ERRNO.EINVAL : this.refusal(target);
        if (refused !== 0) return this.failed(refused);
        const result = tree.makeHardLink(record.path, target);
        if (result >= 0) this.skip(record.size);
        return this.done(result);
      }
      case COPY_ACTION.ATTRIBUTES: {
        if (decodeExtra(record.extra) === null) return this.failed(ERRNO.EPROTO);
        const result = tree.setDirectory(record.path, record);
        return result < 0 ? this.failed(-result) : COPY_RESULT.DONE;
      }
    }
  }

  /** @returns why nothing may be made at this path, as an errno; 0 where it may. */
  private refusal(path: string): number {
    const errno = checkRecordPath(path);
    return errno === 0 && !this.context.accepts(path) ? ERRNO.EPERM : errno;
  }

  private linkTarget(): string {
    const { extra } = this.record;
    return readByteText(extra, 0, extra.length);
  }

  private check(): number {
    const result = this.isThere();
    if (typeof result === "number") {
      const isAway = result === -ERRNO.ENOENT || result === -ERRNO.ENOTDIR;
      return isAway ? COPY_RESULT.SEND : this.failed(-result);
    }
    if (!result) return COPY_RESULT.SEND;
    const { counters } = this;
    counters.files++;
    counters.skippedFiles++;
    this.skip(this.record.size);
    return COPY_RESULT.HAVE;
  }

  /** rsync's quick check: the same kind, size and time of change to the nanosecond. */
  private isThere(): boolean | number {
    const { record, stat } = this;
    const result = this.tree.stat(record.path, stat);
    if (result < 0) return result;
    return (
      stat.kind === "file" &&
      stat.size === record.size &&
      stat.mtimeSeconds === record.mtimeSeconds &&
      stat.mtimeNanoseconds === record.mtimeNanoseconds &&
      stat.mode === record.mode &&
      (!this.tree.keepsOwners || (stat.uid === record.uid && stat.gid === record.gid))
    );
  }

  private putFile(memory: Memory): number {
    const { record } = this;
    const { dataOffset, dataLength } = record;
    const end = dataOffset + dataLength;
    if (record.size !== dataLength || decodeExtra(record.extra) === null) {
      return this.failed(ERRNO.EPROTO);
    }
    if (crcOf(this.context.crc32, memory.bytes, dataOffset, end) !== record.crc) {
      return this.failed(ERRNO.EILSEQ);
    }
    const result = this.tree.putFile(record.path, memory, dataOffset, dataLength, record);
    if (result === 0) this.counters.bytes += dataLength;
    return this.done(result);
  }

  private done(result: number): number {
    if (result < 0) return this.failed(-result);
    this.counters.files++;
    return COPY_RESULT.DONE;
  }

  private skip(bytes: number): void {
    this.counters.bytes += bytes;
    this.counters.skippedBytes += bytes;
  }

  private failed(errno: number): number {
    this.counters.failures++;
    this.owner.failed(this.record.path, errno);
    return COPY_RESULT.FAILED | errno;
  }

  // ----------------------------------------------------------------------------------- large files

  private openFile(header: CopyHeader, request: ServerRequest): void {
    const errno = this.tryOpen(header, request);
    if (errno !== 0) {
      request.complete(errno);
      return;
    }
    const file = this.files[header.slot] as SinkFile;
    const { view } = request.memory;
    view.setUint32(request.memoryOffset, file.leftBytes >>> 0, true);
    view.setUint32(request.memoryOffset + 4, Math.floor(file.leftBytes / 0x1_0000_0000), true);
    request.complete(0, 8);
  }

  private tryOpen(header: CopyHeader, request: ServerRequest): number {
    const { path, slot, offset: size } = header;
    if (slot >= FILES_MAX || !request.isRead || request.dataLength < 8) return ERRNO.EINVAL;
    const errno = nameOf(path) === "" ? ERRNO.EINVAL : this.refusal(path);
    if (errno !== 0) return errno;
    if (SinkFile.isTooLarge(size)) return ERRNO.EFBIG;
    // Opened anew: a copy of a request that was answered, or the source begins again.
    const former = this.files[slot] ?? null;
    if (former !== null) {
      if (former.isBusy) return ERRNO.EBUSY;
      former.close();
      this.files[slot] = null;
    }
    const file = this.tree.openPart(path);
    if (typeof file === "number") return -file;
    this.files[slot] = new SinkFile(this.context, file, path, size, this.blockBytes, this.counters);
    return 0;
  }

  private finishFile(header: CopyHeader, request: ServerRequest): number {
    const { slot, byteLength } = header;
    if (request.isRead || byteLength > request.dataLength) return ERRNO.EINVAL;
    const { record } = this;
    const { memory, memoryOffset } = request;
    const end = memoryOffset + byteLength;
    if (readRecord(record, memory.bytes, memory.view, memoryOffset, end) < 0) return ERRNO.EPROTO;
    if (decodeExtra(record.extra) === null) return ERRNO.EPROTO;
    const file = this.files[slot] ?? null;
    if (file === null) return this.wasFinished(record) ? 0 : ERRNO.EBADF;
    if (file.path !== record.path || file.size !== record.size) return ERRNO.EINVAL;
    if (file.isBusy) return ERRNO.EBUSY;
    const errno = file.finish(record.crc, record);
    if (errno !== 0) {
      // EILSEQ: it comes once more.
      if (errno !== ERRNO.EILSEQ) this.failed(errno);
      // The source begins anew, and is told then what is there.
      file.close();
    } else {
      // What was there already, and holes.
      const restBytes = Math.max(0, record.size - file.countedBytes);
      this.counters.files++;
      this.counters.bytes += restBytes;
      this.counters.skippedBytes += restBytes;
    }
    this.files[slot] = null;
    return errno;
  }

  /** A FINISH that was executed and whose answer was lost comes a second time. */
  private wasFinished(record: CopyRecord): boolean {
    if (this.refusal(record.path) !== 0 || record.path === "") return false;
    return this.isThere() === true;
  }
}

// SPDX-License-Identifier: MIT
// The large files of a source: a few are open at a time, and every request that is free moves a
// block of one of them.

import { type Crc32, ERRNO, type Memory } from "../base/index.js";
import type { ClientRequest } from "../rtrs/index.js";
import { ADDED, type BatchWriter } from "./batch-writer.js";
import { BigFile } from "./big-file.js";
import { COPY_TYPE } from "./messages.js";
import { crcOf } from "./records.js";
import type { SourceLink, SourceOwner, SourceTask } from "./source-link.js";
import type { CopyIo } from "./tree.js";
import type { CopyItem } from "./walk.js";

/** Large files open at a time. */
const OPEN_MAX = 4;
/** Those that wait; the walk stops here. */
const WAITING_MAX = 16;
/** How often a file that changes is begun again. */
const ATTEMPTS_MAX = 3;

export class BigFiles {
  /** Of the sink; 0 before it has said. */
  blockBytes = 0;
  private readonly link: SourceLink;
  private readonly owner: SourceOwner;
  private readonly crc32: Crc32;
  private readonly waiting: CopyItem[] = [];
  private readonly open: BigFile[] = [];
  private readonly readers = new Map<CopyIo, ClientRequest>();

  constructor(link: SourceLink, owner: SourceOwner, crc32: Crc32) {
    this.link = link;
    this.owner = owner;
    this.crc32 = crc32;
  }

  add(item: CopyItem): void {
    this.waiting.push(item);
  }

  get isFull(): boolean {
    return this.waiting.length >= WAITING_MAX;
  }

  get isEmpty(): boolean {
    return this.waiting.length === 0 && this.open.length === 0;
  }

  /** Whether blocks are being read. */
  get isReading(): boolean {
    return this.readers.size > 0;
  }

  /** Preconditions: not `isReading`. */
  close(): void {
    for (const { file } of this.open) file.close();
    this.open.length = 0;
  }

  /** Finds something for a free request to do. @returns false when there is nothing now. */
  use(request: ClientRequest, writer: BatchWriter): boolean {
    this.dropSpoilt();
    while (this.waiting.length > 0 && this.open.length < OPEN_MAX) {
      if (this.openNext(request)) return true;
    }
    for (const file of this.open) {
      if (file.stage !== "MOVING" || file.isSpoilt) continue;
      if (this.useFor(file, request, writer)) return true;
    }
    return false;
  }

  /** Of blocks that were read. */
  onCopyIo(io: CopyIo, isClosing: boolean): void {
    const { link } = this;
    const request = this.readers.get(io) as ClientRequest;
    this.readers.delete(io);
    link.inflight--;
    const task = link.taskOf(request);
    const file = task.file as BigFile;
    const isRead = io.result === io.length;
    if (isRead && !isClosing) {
      const { bytes } = io.memory as Memory;
      const crc = crcOf(this.crc32, bytes, io.memoryOffset, io.memoryOffset + io.length);
      if (!file.isThere(task.index, crc)) {
        const words = { slot: file.slot, argument: crc, offset: task.index, write: io.length };
        link.send(request, COPY_TYPE.BLOCK, words);
        return;
      }
      this.owner.progress.bytesDone += io.length;
      this.owner.progress.bytesSkipped += io.length;
      file.movedBytes += io.length;
    } else if (io.result < 0) file.errno = -io.result;
    else file.isChanged = true;
    file.inflight--;
    link.release(request);
  }

  /** Answers to OPEN, SUMS, BLOCK and FINISH. */
  onAnswer(request: ClientRequest, task: SourceTask): void {
    const file = task.file as BigFile;
    const { errno, memoryOffset, dataLength } = request;
    const { view } = this.link.place;
    file.inflight--;
    if (errno === ERRNO.EILSEQ) {
      // Bytes that were damaged between two memories: compared block by block and sent again.
      file.isChanged = true;
    } else if (errno !== 0) {
      file.errno = errno;
      file.isRefused = true;
    } else {
      switch (task.header.type) {
        case COPY_TYPE.OPEN: {
          const low = view.getUint32(memoryOffset, true);
          file.opened(view.getUint32(memoryOffset + 4, true) * 0x1_0000_0000 + low);
          break;
        }
        case COPY_TYPE.SUMS:
          for (let i = 0; i * 4 < dataLength; i++) {
            file.takeSum(task.index + i, view.getUint32(memoryOffset + i * 4, true));
          }
          file.isAsking = false;
          break;
        case COPY_TYPE.BLOCK:
          this.owner.progress.bytesDone += dataLength;
          file.movedBytes += dataLength;
          break;
        default:
          this.finished(file);
      }
    }
    this.link.release(request);
  }

  private openNext(request: ClientRequest): boolean {
    const item = this.waiting.shift() as CopyItem;
    const file = item.tree.openFile(item.path);
    if (typeof file === "number") {
      this.owner.problem({ path: item.path, errno: -file, isRemote: false });
      return false;
    }
    const result = file.stat(item.stat);
    if (result < 0 || item.stat.kind !== "file") {
      file.close();
      this.owner.problem({ path: item.path, errno: ERRNO.EBUSY, isRemote: false });
      return false;
    }
    const used = this.open.map(({ slot }) => slot);
    const slot = Array.from({ length: OPEN_MAX }, (_, i) => i).find((i) => !used.includes(i));
    const big = new BigFile(item, file, slot as number, this.blockBytes);
    this.open.push(big);
    big.inflight++;
    this.link.taskOf(request).file = big;
    const { target: path } = item;
    this.link.send(request, COPY_TYPE.OPEN, { slot: big.slot, path, offset: big.size, read: 8 });
    return true;
  }

  private useFor(file: BigFile, request: ClientRequest, writer: BatchWriter): boolean {
    const { link } = this;
    const task = link.taskOf(request);
    const index = file.nextBlock();
    if (index >= 0) {
      task.file = file;
      task.index = index;
      this.read(file, request, task);
      return true;
    }
    if (file.isComplete) return this.finish(file, request, writer);
    const sums = file.sumsWanted;
    if (sums === null || file.isAsking) return false;
    file.isAsking = true;
    file.inflight++;
    task.file = file;
    task.index = sums.first;
    const { first: offset, count: argument } = sums;
    link.send(request, COPY_TYPE.SUMS, { slot: file.slot, argument, offset, read: argument * 4 });
    return true;
  }

  private read(file: BigFile, request: ClientRequest, { io, index }: SourceTask): void {
    io.memory = this.link.place;
    io.memoryOffset = request.memoryOffset;
    io.offset = index * this.blockBytes;
    io.length = file.lengthOf(index);
    file.inflight++;
    this.link.inflight++;
    this.readers.set(io, request);
    file.file.startRead(io);
  }

  private finish(file: BigFile, request: ClientRequest, writer: BatchWriter): boolean {
    if (!file.isUnchanged()) {
      file.isChanged = true;
      return false;
    }
    writer.begin(request.memoryOffset);
    const added = writer.addFinish(file);
    if (added !== ADDED) {
      file.errno = added;
      return false;
    }
    file.stage = "FINISHING";
    file.inflight++;
    this.link.taskOf(request).file = file;
    const words = { slot: file.slot, write: writer.byteLength };
    this.link.send(request, COPY_TYPE.FINISH, words);
    return true;
  }

  private finished(file: BigFile): void {
    this.remove(file);
    const { progress } = this.owner;
    progress.filesDone++;
    // Holes count as soon as the file is there.
    progress.bytesDone += file.size - file.movedBytes;
  }

  /** Files that changed begin again; those that can't be read or stored are told. */
  private dropSpoilt(): void {
    for (let i = this.open.length - 1; i >= 0; i--) {
      const file = this.open[i] as BigFile;
      if (!file.isSpoilt || file.inflight > 0) continue;
      this.remove(file);
      this.owner.progress.bytesDone -= file.movedBytes;
      this.again(file.item, file.errno, file.isRefused);
    }
  }

  /** An item that could not be read as it was found: again, or never. */
  again(item: CopyItem, errno: number, isRemote: boolean): void {
    item.attempts++;
    const isChanged = errno === 0 || (errno === ERRNO.EBUSY && !isRemote);
    if (isChanged && item.attempts < ATTEMPTS_MAX && item.tree.stat(item.path, item.stat) >= 0) {
      this.owner.want(item);
      return;
    }
    const path = isRemote ? item.target : item.path;
    this.owner.problem({ path, errno: errno === 0 ? ERRNO.EBUSY : errno, isRemote });
  }

  private remove(file: BigFile): void {
    this.open.splice(this.open.indexOf(file), 1);
    file.file.close();
  }
}

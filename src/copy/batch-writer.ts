// SPDX-License-Identifier: MIT
// Fills a request's memory with records.

import { type Crc32, ERRNO, type Memory } from "../base/index.js";
import { NO_EXTRA } from "./attributes.js";
import type { BigFile } from "./big-file.js";
import { writeByteText } from "./byte-text.js";
import {
  COPY_ACTION,
  type CopyAction,
  CopyRecord,
  crcOf,
  RECORD_BYTES,
  recordBytes,
  writeRecord,
} from "./records.js";
import { CopyStat, type CopyTree } from "./tree.js";
import type { CopyItem } from "./walk.js";

/** Records of a batch, and files with their contents: what the sink does without a break. */
const RECORDS_MAX = 1024;
const FILES_MAX = 128;
/** Files up to here travel in batches. */
const SMALL_BYTES_MAX = 65_536;
/** A record with the longest path may need this much: a batch with less room goes out. */
const ROOM_BYTES_MIN = 1024;

/** Added; no room, or an errno above 0 when it could not be read. */
export const ADDED = 0;
export const NO_ROOM = -1;

export class BatchWriter {
  count = 0;
  private readonly crc32: Crc32;
  private readonly memory: Memory;
  private readonly slotBytes: number;
  private readonly record = new CopyRecord();
  private readonly stat = new CopyStat();
  private start = 0;
  private at = 0;
  private fileCount = 0;

  constructor(crc32: Crc32, memory: Memory, slotBytes: number) {
    this.crc32 = crc32;
    this.memory = memory;
    this.slotBytes = slotBytes;
  }

  /** Starts a batch at `offset` of the memory. */
  begin(offset: number): void {
    this.start = offset;
    this.at = offset;
    this.count = 0;
    this.fileCount = 0;
  }

  get byteLength(): number {
    return this.at - this.start;
  }

  get isFull(): boolean {
    return this.count >= RECORDS_MAX || this.fileCount >= FILES_MAX || this.room < ROOM_BYTES_MIN;
  }

  isSmall(item: CopyItem): boolean {
    return item.stat.size <= Math.min(SMALL_BYTES_MAX, this.slotBytes >> 1);
  }

  addName(action: CopyAction, path: string): number {
    this.clear(action, path);
    return this.append(NO_EXTRA);
  }

  addCheck(item: CopyItem): number {
    this.describe(COPY_ACTION.CHECK, item.target, item.stat);
    return this.append(NO_EXTRA);
  }

  addSymlink(item: CopyItem): number {
    const target = item.tree.readLink(item.path);
    if (typeof target === "number") return -target;
    this.describe(COPY_ACTION.SYMLINK, item.target, item.stat);
    return this.append(textBytes(target));
  }

  addHardLink(item: CopyItem, first: string): number {
    this.clear(COPY_ACTION.HARDLINK, item.target);
    this.record.size = item.stat.size;
    return this.append(textBytes(first));
  }

  /** A file with its contents, which are read right into the batch. */
  addFile(item: CopyItem): number {
    const { size } = item.stat;
    if (recordBytes(item.target, size, 0) > this.room) return NO_ROOM;
    const { bytes } = this.memory;
    const data = this.at + RECORD_BYTES + item.target.length;
    const count = item.tree.readFile(item.path, this.memory, data, size);
    if (count < 0) return -count;
    this.describe(COPY_ACTION.FILE, item.target, item.stat);
    this.record.dataLength = size;
    this.record.crc = crcOf(this.crc32, bytes, data, data + size);
    this.fileCount++;
    return this.append(item.tree.extraOfLast);
  }

  /** The attributes of a directory whose contents are complete. */
  addDirectory(directory: {
    readonly tree: CopyTree;
    readonly path: string;
    readonly target: string;
  }): number {
    const { tree, path, target } = directory;
    const result = tree.stat(path, this.stat);
    if (result < 0) return -result;
    this.describe(COPY_ACTION.ATTRIBUTES, target, this.stat);
    return this.append(tree.readExtra(path));
  }

  /** The one record of a FINISH. */
  addFinish(file: BigFile): number {
    this.describe(COPY_ACTION.FILE, file.item.target, file.item.stat);
    this.record.crc = file.sums.whole(file.size);
    return this.append(file.file.readExtra());
  }

  private get room(): number {
    return this.start + this.slotBytes - this.at;
  }

  private clear(action: CopyAction, path: string): void {
    const { record } = this;
    record.action = action;
    record.path = path;
    record.mode = 0;
    record.uid = 0;
    record.gid = 0;
    record.mtimeSeconds = 0;
    record.mtimeNanoseconds = 0;
    record.size = 0;
    record.dataLength = 0;
    record.crc = 0;
  }

  private describe(action: CopyAction, path: string, stat: CopyStat): void {
    this.clear(action, path);
    const { record } = this;
    record.mode = stat.mode;
    record.uid = stat.uid;
    record.gid = stat.gid;
    record.mtimeSeconds = stat.mtimeSeconds;
    record.mtimeNanoseconds = stat.mtimeNanoseconds;
    record.size = stat.size;
  }

  private append(extra: Uint8Array): number {
    const { record } = this;
    record.extra = extra;
    if (recordBytes(record.path, record.dataLength, extra.length) > this.room) {
      // Not even alone: attributes larger than a request.
      return this.count === 0 ? ERRNO.EMSGSIZE : NO_ROOM;
    }
    this.at = writeRecord(record, this.memory.bytes, this.memory.view, this.at);
    this.count++;
    return ADDED;
  }
}

function textBytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  writeByteText(text, bytes, 0);
  return bytes;
}

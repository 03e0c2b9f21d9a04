// SPDX-License-Identifier: MIT
// Operations on a file that may block, on libuv's threads. Reading, writing and syncing go through
// node:fs, which costs the event loop less than a foreign call on a thread (measured: 5 against 20
// us an operation with sixteen of 4 KiB in flight, equal with one); what node:fs doesn't have are
// foreign calls, and EOPNOTSUPP without them.

import { fdatasync, read, write } from "node:fs";
import { ERRNO, type Memory } from "../base/index.js";
import { FILE_OPERATION, type FileIo } from "../block/index.js";
import { loadNative } from "./native.js";

const FALLOC_KEEP_SIZE = 1;
const FALLOC_PUNCH_HOLE = 2;
const FALLOC_ZERO_RANGE = 0x10;
const POSIX_FADV_WILLNEED = 3;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/** Runs that one EXTENTS brings; the caller asks again from where they end. */
const EXTENT_COUNT_MAX = 256;
/** Foreign calls on threads at once: koffi keeps memory ready for this many. */
const FOREIGN_COUNT_MAX = 8;

/**
 * Foreign calls that wait for one to end; shared by all files, since the limit is the library's.
 */
const foreignQueue: (() => void)[] = [];
let foreignCount = 0;

type Done = (result: number) => void;

/**
 * Starts a foreign call when one may; `call` hands its result, or -1 with errno set, to its
 * callback.
 */
function runForeign(
  call: (callback: (error: unknown, result: number) => void) => void,
  done: Done,
): void {
  const start = (): void => {
    foreignCount++;
    call((_error, result) => {
      const outcome = result === -1 ? -loadNative().errno() : result;
      foreignCount--;
      foreignQueue.shift()?.();
      done(outcome);
    });
  };
  if (foreignCount < FOREIGN_COUNT_MAX) start();
  else foreignQueue.push(start);
}

/**
 * Runs `io` on `descriptor`; `done` gets what `FileIo.result` is to be. Never calls back at once.
 */
export function runFileIo(io: FileIo, descriptor: number, isNative: boolean, done: Done): void {
  switch (io.operation) {
    case FILE_OPERATION.READ:
      moveAll(read, descriptor, io, done);
      return;
    case FILE_OPERATION.WRITE:
      moveAll(write, descriptor, io, done);
      return;
    case FILE_OPERATION.SYNC:
      fdatasync(descriptor, (error) => done(error === null ? 0 : -errnoOf(error)));
      return;
    default:
  }
  if (!isNative) {
    runWithoutForeign(io, done);
    return;
  }
  switch (io.operation) {
    case FILE_OPERATION.PUNCH:
      allocate(descriptor, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, io, done);
      return;
    case FILE_OPERATION.ZERO:
      zero(descriptor, io, done);
      return;
    case FILE_OPERATION.CACHE:
      runForeign(
        (callback) =>
          loadNative().libcAsync.posix_fadvise(
            descriptor,
            io.offset,
            io.length,
            POSIX_FADV_WILLNEED,
            callback,
          ),
        // posix_fadvise returns its error instead of setting errno. It is advice: a file that can't
        // take it is not worse for it.
        () => done(0),
      );
      return;
    default:
      new ExtentWalk(io, descriptor, done).step();
  }
}

function runWithoutForeign(io: FileIo, done: Done): void {
  let result = 0;
  if (io.operation === FILE_OPERATION.EXTENTS) io.extents = [[io.length, false]];
  else if (io.operation !== FILE_OPERATION.CACHE) result = -ERRNO.EOPNOTSUPP;
  setImmediate(() => done(result));
}

function allocate(descriptor: number, mode: number, io: FileIo, done: Done): void {
  const { offset, length } = io;
  runForeign(
    (callback) => loadNative().libcAsync.fallocate(descriptor, mode, offset, length, callback),
    done,
  );
}

/** ZERO_RANGE; where a file system has none (tmpfs), a hole that is filled with space again. */
function zero(descriptor: number, io: FileIo, done: Done): void {
  allocate(descriptor, FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE, io, (result) => {
    if (result !== -ERRNO.EOPNOTSUPP) {
      done(result);
      return;
    }
    allocate(descriptor, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE, io, (punched) => {
      if (punched < 0) done(punched);
      else allocate(descriptor, FALLOC_KEEP_SIZE, io, done);
    });
  });
}

type MoveCall = (
  descriptor: number,
  bytes: Uint8Array,
  offset: number,
  length: number,
  position: number,
  callback: (error: NodeJS.ErrnoException | null, count: number) => void,
) => void;

/**
 * Reads or writes until all is done, the file ends, or an error comes, which counts for nothing
 * moved.
 */
function moveAll(call: MoveCall, descriptor: number, io: FileIo, done: Done): void {
  const { offset, length, memoryOffset } = io;
  const memory = io.memory as Memory;
  let moved = 0;
  const step = (): void => {
    call(
      descriptor,
      memory.bytes,
      memoryOffset + moved,
      length - moved,
      offset + moved,
      (error, count) => {
        if (error !== null) {
          done(moved > 0 && call === read ? moved : -errnoOf(error));
          return;
        }
        moved += count;
        if (count === 0 || moved === length) done(moved);
        else step();
      },
    );
  };
  step();
}

function errnoOf(error: NodeJS.ErrnoException): number {
  const code = error.code ?? "EIO";
  return code in ERRNO ? ERRNO[code as keyof typeof ERRNO] : ERRNO.EIO;
}

/** Finds data and holes by turns, from the range's start to its end. */
class ExtentWalk {
  private readonly io: FileIo;
  private readonly descriptor: number;
  private readonly done: Done;
  private readonly end: number;
  private readonly extents: [length: number, hole: boolean][] = [];
  private at: number;

  constructor(io: FileIo, descriptor: number, done: Done) {
    this.io = io;
    this.descriptor = descriptor;
    this.done = done;
    this.at = io.offset;
    this.end = io.offset + io.length;
  }

  step(): void {
    if (this.at >= this.end || this.extents.length >= EXTENT_COUNT_MAX) {
      this.finish(0);
      return;
    }
    this.seek(SEEK_DATA, (dataStart) => {
      // ENXIO: no data from here to the end of the file.
      if (dataStart === -ERRNO.ENXIO) this.add(this.end, true);
      else if (dataStart < 0) {
        this.finish(dataStart);
        return;
      } else if (dataStart > this.at) this.add(dataStart, true);
      else {
        this.seek(SEEK_HOLE, (dataEnd) => {
          if (dataEnd <= this.at) {
            // The file changes under us, or shrank: call the rest data, which is always right.
            this.add(this.end, false);
          } else this.add(dataEnd, false);
          this.step();
        });
        return;
      }
      this.step();
    });
  }

  private seek(whence: number, done: Done): void {
    const { libcAsync } = loadNative();
    runForeign((callback) => libcAsync.lseek(this.descriptor, this.at, whence, callback), done);
  }

  private add(to: number, hole: boolean): void {
    const end = Math.min(to, this.end);
    this.extents.push([end - this.at, hole]);
    this.at = end;
  }

  private finish(result: number): void {
    // A file system without holes to find: everything is data.
    const unsupported = result === -ERRNO.EINVAL || result === -ERRNO.EOPNOTSUPP;
    if (unsupported && this.extents.length === 0) this.extents.push([this.io.length, false]);
    this.io.extents = this.extents;
    this.done(this.extents.length > 0 ? 0 : result);
  }
}

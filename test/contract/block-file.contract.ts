// SPDX-License-Identifier: MIT
// What every `BlockFile` must do, whether it is on a file system or simulated.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ERRNO, type Memory } from "../../src/base/index.js";
import {
  type BlockFile,
  FILE_OPERATION,
  FileIo,
  type FileIoOwner,
  type FileOperation,
} from "../../src/block/index.js";

/** Size of the files that `open` gives. */
export const CONTRACT_FILE_BYTES = 1 << 20;

export interface BlockFileBench {
  /** Full of zeroes, `CONTRACT_FILE_BYTES` long, writable. */
  readonly file: BlockFile;
  /** At least 256 KiB. */
  readonly memory: Memory;
  /** Lets what has been started finish. */
  settle(): Promise<void>;
  close(): void;
}

const BLOCK = 4096;

function isRetry(result: number): boolean {
  return result === -ERRNO.EAGAIN;
}

/** Starts operations and keeps what completes. */
class FileUser implements FileIoOwner {
  disk!: BlockFileBench;
  completed: FileIo[] = [];

  onFileIoComplete(io: FileIo): void {
    this.completed.push(io);
  }

  start(operation: FileOperation, offset: number, length: number, at = 0): FileIo {
    const io = new FileIo(this, 7);
    io.operation = operation;
    io.offset = offset;
    io.length = length;
    io.memory = this.disk.memory;
    io.memoryOffset = at;
    this.disk.file.start(io);
    return io;
  }

  async finish(count: number): Promise<void> {
    for (let attempt = 0; attempt < 500 && this.completed.length < count; attempt++) {
      await this.disk.settle();
      this.disk.file.poll();
    }
    expect(this.completed).toHaveLength(count);
    expect(this.disk.file.inflight).toBe(0);
  }

  async run(operation: FileOperation, offset: number, length: number): Promise<FileIo> {
    const before = this.completed.length;
    const io = this.start(operation, offset, length);
    await this.finish(before + 1);
    return io;
  }

  /** What the file holds, by way of the end of the memory. */
  async contents(offset: number, length: number): Promise<number[]> {
    const at = this.disk.memory.length - length;
    const io = this.start(FILE_OPERATION.READ, offset, length, at);
    await this.finish(this.completed.length + 1);
    expect(io.result).toBe(length);
    return [...this.disk.memory.bytes.slice(at, at + length)];
  }
}

export function blockFileContract(name: string, open: () => Promise<BlockFileBench>): void {
  describe(`BlockFile contract: ${name}`, () => {
    const user = new FileUser();
    beforeEach(async () => {
      user.completed = [];
      user.disk = await open();
    });
    afterEach(() => user.disk.close());
    completionRules(user);
    transferRules(user);
    spaceRules(user);
  });
}

/** Every started operation completes once, from poll. */
function completionRules(user: FileUser): void {
  it("opened → tells its size and blocks", () => {
    const { file } = user.disk;
    expect(file.sizeBytes).toBe(CONTRACT_FILE_BYTES);
    expect(file.refreshSize()).toBe(CONTRACT_FILE_BYTES);
    expect(file.readOnly).toBe(false);
    expect(Math.log2(file.logicalBlockBytes) % 1).toBe(0);
    expect(file.physicalBlockBytes % file.logicalBlockBytes).toBe(0);
    expect(file.inflight).toBe(0);
  });

  it("completion → from poll only, once, with the operation's user", async () => {
    const io = user.start(FILE_OPERATION.READ, 0, BLOCK);
    expect(user.disk.file.inflight).toBe(1);
    for (let i = 0; i < 3; i++) await user.disk.settle();
    expect(user.completed).toEqual([]);
    await user.finish(1);
    expect(user.completed).toEqual([io]);
    expect(user.disk.file.poll()).toBe(0);
  });

  it("many operations at once → each completes once, with its own bytes", async () => {
    const ios: FileIo[] = [];
    for (let i = 0; i < 32; i++) {
      user.disk.memory.bytes.fill(i + 1, i * BLOCK, (i + 1) * BLOCK);
      ios.push(user.start(FILE_OPERATION.WRITE, i * BLOCK, BLOCK, i * BLOCK));
    }
    expect(user.disk.file.inflight).toBe(32);
    await user.finish(32);
    expect(new Set(user.completed)).toEqual(new Set(ios));
    for (let i = 0; i < 32; i += 5) {
      expect(await user.contents(i * BLOCK, BLOCK)).toEqual(new Array(BLOCK).fill(i + 1));
    }
  });

  it("an operation started from a completion → completes from a later poll", async () => {
    let isFirst = true;
    const second = new FileIo(user, 2);
    second.operation = FILE_OPERATION.SYNC;
    const io = new FileIo(
      {
        onFileIoComplete: (done) => {
          user.completed.push(done);
          if (isFirst) user.disk.file.start(second);
          isFirst = false;
        },
      },
      1,
    );
    io.operation = FILE_OPERATION.SYNC;
    user.disk.file.start(io);
    await user.finish(2);
    expect(user.completed).toEqual([io, second]);
  });
}

/** What is written is what is read. */
function transferRules(user: FileUser): void {
  it("a started WRITE, then a started READ → the same bytes", async () => {
    user.disk.memory.bytes.fill(0xa5, 0, 3 * BLOCK);
    const write = await user.run(FILE_OPERATION.WRITE, 5 * BLOCK, 3 * BLOCK);
    expect(write.result).toBe(3 * BLOCK);
    expect(await user.contents(4 * BLOCK, 5 * BLOCK)).toEqual([
      ...new Array(BLOCK).fill(0),
      ...new Array(3 * BLOCK).fill(0xa5),
      ...new Array(BLOCK).fill(0),
    ]);
  });

  it("tryWrite and tryRead → move bytes or say EAGAIN, never anything else", async () => {
    const { file, memory } = user.disk;
    memory.bytes.fill(0x3c, 0, BLOCK);
    const written = file.tryWrite(8 * BLOCK, memory, 0, BLOCK);
    if (isRetry(written)) await user.run(FILE_OPERATION.WRITE, 8 * BLOCK, BLOCK);
    else expect(written).toBe(BLOCK);
    const count = file.tryRead(8 * BLOCK, memory, 2 * BLOCK, BLOCK);
    if (!isRetry(count)) {
      expect(count).toBe(BLOCK);
      expect([...memory.bytes.slice(2 * BLOCK, 3 * BLOCK)]).toEqual(new Array(BLOCK).fill(0x3c));
    }
    expect(await user.contents(8 * BLOCK, BLOCK)).toEqual(new Array(BLOCK).fill(0x3c));
  });

  it("a READ across the end → short; beyond it → 0", async () => {
    const across = await user.run(FILE_OPERATION.READ, CONTRACT_FILE_BYTES - BLOCK, 4 * BLOCK);
    expect(across.result).toBe(BLOCK);
    const beyond = await user.run(FILE_OPERATION.READ, CONTRACT_FILE_BYTES + BLOCK, BLOCK);
    expect(beyond.result).toBe(0);
  });
}

/** Syncing, freeing, finding holes. */
function spaceRules(user: FileUser): void {
  it("SYNC and CACHE → succeed", async () => {
    expect((await user.run(FILE_OPERATION.SYNC, 0, 0)).result).toBe(0);
    expect((await user.run(FILE_OPERATION.CACHE, 0, 16 * BLOCK)).result).toBe(0);
  });

  it("PUNCH and ZERO → zeroes in exactly that range, or EOPNOTSUPP", async () => {
    for (const operation of [FILE_OPERATION.PUNCH, FILE_OPERATION.ZERO]) {
      user.disk.memory.bytes.fill(0xff, 0, 8 * BLOCK);
      await user.run(FILE_OPERATION.WRITE, 0, 8 * BLOCK);
      const can =
        operation === FILE_OPERATION.PUNCH ? user.disk.file.canPunch : user.disk.file.canZero;
      const io = await user.run(operation, 2 * BLOCK, 3 * BLOCK);
      expect(io.result).toBe(can ? 0 : -ERRNO.EOPNOTSUPP);
      const middle = can ? 0 : 0xff;
      expect(await user.contents(0, 8 * BLOCK)).toEqual([
        ...new Array(2 * BLOCK).fill(0xff),
        ...new Array(3 * BLOCK).fill(middle),
        ...new Array(3 * BLOCK).fill(0xff),
      ]);
      expect(user.disk.file.refreshSize()).toBe(CONTRACT_FILE_BYTES);
    }
  });

  it("EXTENTS → runs from the offset on that never call written data a hole", async () => {
    user.disk.memory.bytes.fill(1, 0, 16 * BLOCK);
    await user.run(FILE_OPERATION.WRITE, 64 * BLOCK, 16 * BLOCK);
    const io = await user.run(FILE_OPERATION.EXTENTS, 32 * BLOCK, 64 * BLOCK);
    expect(io.result).toBe(0);
    let at = 32 * BLOCK;
    for (const [length, hole] of io.extents) {
      expect(length).toBeGreaterThan(0);
      const touchesData = at < 80 * BLOCK && at + length > 64 * BLOCK;
      if (touchesData) expect(hole).toBe(false);
      at += length;
    }
    expect(at).toBeGreaterThan(32 * BLOCK);
    expect(at).toBeLessThanOrEqual(96 * BLOCK);
  });
}

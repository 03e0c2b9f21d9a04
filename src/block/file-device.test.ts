// SPDX-License-Identifier: MIT
// The file device against a file that does exactly what the test says, operation by operation.

import { beforeEach, describe, expect, it } from "vitest";
import { ERRNO, HeapMemorySource } from "../base/index.js";
import {
  BLOCK_FLAG,
  BLOCK_OPERATION,
  type BlockOperation,
  BlockRequest,
  type BlockRequestOwner,
} from "./block-device.js";
import type { FileIo } from "./block-file.js";
import { FileDevice, type FileDeviceOptions } from "./file-device.js";
import { ScriptedFile } from "./scripted-file.fixture.js";

const source = new HeapMemorySource();

class Owner implements BlockRequestOwner {
  readonly done: BlockRequest[] = [];
  private nextTag = 0;

  onBlockComplete(request: BlockRequest): void {
    this.done.push(request);
  }

  request(operation: BlockOperation, offset = 0, length = 0, flags = 0): BlockRequest {
    const request = new BlockRequest(this, this.nextTag++);
    request.operation = operation;
    request.offset = offset;
    request.length = length;
    request.flags = flags;
    request.memory = memory;
    return request;
  }

  /** Errnos of what has come back since the last call, by order of coming back: "tag:errno". */
  take(): string[] {
    return this.done.splice(0).map((request) => `${request.tag}:${request.errno}`);
  }
}

const memory = source.allocate(1 << 20);
const { READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES, CACHE, STATUS } = BLOCK_OPERATION;

let file: ScriptedFile;
let owner: Owner;
let device: FileDevice;
let nowNs: number;

function open(options: Partial<FileDeviceOptions> = {}): void {
  device = new FileDevice(file, {
    name: "disk",
    memory: source,
    sizeCheckNs: Infinity,
    ...options,
  });
}

function submit(operation: BlockOperation, offset = 0, length = 0, flags = 0): BlockRequest {
  const request = owner.request(operation, offset, length, flags);
  device.submit(request);
  device.checkInvariants();
  return request;
}

/** Pumps once. @returns what came back, as "tag:errno". */
function pump(): string[] {
  device.pump(nowNs);
  device.checkInvariants();
  return owner.take();
}

beforeEach(() => {
  file = new ScriptedFile();
  owner = new Owner();
  nowNs = 0;
  open();
});

describe("file device: reads and writes", () => {
  it("served at once → completes from pump, never inside submit", () => {
    submit(READ, 4096, 8192);
    submit(WRITE, 0, 512);
    expect(file.tried).toEqual(["read 4096+8192", "write 0+512"]);
    expect(owner.done).toEqual([]);
    expect(device.inflight).toBe(2);
    expect(device.deadlineNs()).toBe(0);
    expect(pump()).toEqual(["0:0", "1:0"]);
    expect(device.inflight).toBe(0);
    expect(device.deadlineNs()).toBe(Infinity);
    expect(file.running).toEqual([]);
  });

  it.each([
    ["-EAGAIN", -ERRNO.EAGAIN],
    ["-EOPNOTSUPP", -ERRNO.EOPNOTSUPP],
    ["end", 0],
  ])("would block (%s) → all of it on another thread", (_, answer) => {
    file.tries.push(answer);
    submit(READ, 4096, 8192);
    expect(file.running).toEqual(["READ 4096+8192"]);
    expect(pump()).toEqual([]);
    file.finish();
    expect(pump()).toEqual(["0:0"]);
  });

  it("short at once and short again → the rest each time, into the right place", () => {
    file.tries.push(1000);
    const request = owner.request(WRITE, 4096, 8192);
    request.memoryOffset = 100;
    device.submit(request);
    expect(file.running).toEqual(["WRITE 5096+7192"]);
    expect(file.started[0]?.memoryOffset).toBe(1100);
    file.finish(192);
    expect(pump()).toEqual([]);
    expect(file.running).toEqual(["WRITE 5288+7000"]);
    expect(file.started[0]?.memoryOffset).toBe(1292);
    file.finish();
    expect(pump()).toEqual(["0:0"]);
  });

  it.each([ERRNO.EIO, ERRNO.ENOSPC, ERRNO.EDQUOT])(
    "errno %i at once or later → reported",
    (errno) => {
      file.tries.push(-errno, 512, -ERRNO.EAGAIN);
      submit(WRITE, 0, 1024);
      submit(WRITE, 0, 1024);
      submit(READ, 0, 1024);
      file.finish(-errno);
      file.finish(-errno);
      expect(pump()).toEqual([`0:${errno}`, `1:${errno}`, `2:${errno}`]);
    },
  );

  it("more than the queue depth on other threads → the rest waits its turn", () => {
    open({ queueDepth: 2 });
    file.tries.push(...new Array<number>(4).fill(-ERRNO.EAGAIN));
    for (let i = 0; i < 4; i++) submit(READ, i * 512, 512);
    expect(file.running).toEqual(["READ 0+512", "READ 512+512"]);
    file.finish();
    expect(pump()).toEqual(["0:0"]);
    expect(file.running).toEqual(["READ 512+512", "READ 1024+512"]);
    for (let i = 0; i < 3; i++) {
      file.finish();
      pump();
    }
    expect(device.inflight).toBe(0);
  });

  it("what an owner submits while it is told → completes at the next pump", () => {
    const again = owner.request(READ, 0, 512);
    const first = new BlockRequest({ onBlockComplete: () => device.submit(again) }, 0);
    first.length = 512;
    first.memory = memory;
    device.submit(first);
    expect(pump()).toEqual([]);
    expect(device.deadlineNs()).toBe(0);
    expect(pump()).toEqual(["0:0"]);
  });
});

describe("file device: a file that others change", () => {
  it("read beyond the end of a file that was cut → EIO, and the new size is noticed", () => {
    let resizes = 0;
    device.onResize = () => resizes++;
    file.sizeNow = 4096;
    file.tries.push(512);
    submit(READ, 3584, 1024);
    file.finish(0);
    expect(pump()).toEqual([`0:${ERRNO.EIO}`]);
    pump();
    expect(resizes).toBe(1);
    expect(device.limits.sizeBytes).toBe(4096);
  });

  it("a range that was inside once → EIO; one that never was → EINVAL", () => {
    file.sizeNow = 4096;
    device.refreshSize();
    submit(READ, 8192, 512);
    submit(WRITE, 8192, 512);
    submit(READ, 1 << 20, 512);
    expect(pump()).toEqual([`0:${ERRNO.EIO}`, `1:${ERRNO.EIO}`, `2:${ERRNO.EINVAL}`]);
    expect(file.tried).toEqual([]);
  });

  it("a grown file → found out in time, in whole blocks", () => {
    open({ sizeCheckNs: 1000 });
    let resizes = 0;
    device.onResize = () => resizes++;
    file.sizeNow = (2 << 20) + 100;
    nowNs = 999;
    pump();
    expect(resizes).toBe(0);
    nowNs = 1000;
    pump();
    expect(resizes).toBe(1);
    expect(device.limits.sizeBytes).toBe(2 << 20);
    submit(READ, 1 << 20, 512);
    expect(pump()).toEqual(["0:0"]);
  });
});

describe("file device: durability", () => {
  it("FLUSH → one sync, even though nothing was written here", () => {
    submit(FLUSH);
    expect(file.running).toEqual(["SYNC"]);
    expect(pump()).toEqual([]);
    file.finish();
    expect(pump()).toEqual(["0:0"]);
  });

  it("FLUSH while a sync runs → waits for the next one, shared by all that came meanwhile", () => {
    submit(FLUSH);
    submit(WRITE, 0, 512);
    pump();
    submit(FLUSH);
    submit(FLUSH);
    expect(file.running).toEqual(["SYNC"]);
    file.finish();
    expect(pump()).toEqual(["0:0"]);
    expect(file.running).toEqual(["SYNC"]);
    file.finish();
    expect(pump()).toEqual(["2:0", "3:0"]);
    expect(file.running).toEqual([]);
  });

  it("FUA → the write, then a sync that started after it, then completion", () => {
    submit(FLUSH);
    file.tries.push(-ERRNO.EAGAIN);
    submit(WRITE, 0, 512, BLOCK_FLAG.FUA);
    expect(file.running).toEqual(["SYNC", "WRITE 0+512"]);
    file.started.reverse();
    file.finish();
    expect(pump()).toEqual([]);
    file.finish();
    expect(pump()).toEqual(["0:0"]);
    expect(file.running).toEqual(["SYNC"]);
    file.finish();
    expect(pump()).toEqual(["1:0"]);
  });

  it("FUA of a write that fails → its error, no sync", () => {
    file.tries.push(-ERRNO.ENOSPC);
    submit(WRITE, 0, 512, BLOCK_FLAG.FUA);
    expect(pump()).toEqual([`0:${ERRNO.ENOSPC}`]);
    expect(file.running).toEqual([]);
  });

  it("FUA on a read → nothing to do", () => {
    submit(READ, 0, 512, BLOCK_FLAG.FUA);
    expect(pump()).toEqual(["0:0"]);
  });

  it("a sync that fails → reported to all it covered and to every FLUSH since", () => {
    submit(FLUSH);
    submit(FLUSH);
    file.finish(-ERRNO.EIO);
    expect(pump()).toEqual([`0:${ERRNO.EIO}`]);
    file.finish(0);
    expect(pump()).toEqual([`1:${ERRNO.EIO}`]);
    submit(FLUSH);
    expect(file.running).toEqual([]);
    expect(pump()).toEqual([`2:${ERRNO.EIO}`]);
    expect(device.syncErrno).toBe(ERRNO.EIO);
  });

  it("FUA after a failed sync → answered by its own sync", () => {
    submit(FLUSH);
    file.finish(-ERRNO.EIO);
    pump();
    submit(WRITE, 0, 512, BLOCK_FLAG.FUA);
    file.finish(0);
    expect(pump()).toEqual(["1:0"]);
    submit(WRITE, 0, 512, BLOCK_FLAG.FUA);
    file.finish(-ERRNO.ENOSPC);
    expect(pump()).toEqual([`2:${ERRNO.ENOSPC}`]);
  });

  it("FLUSH of a read-only device → done", () => {
    open({ readOnly: true });
    submit(FLUSH);
    expect(pump()).toEqual(["0:0"]);
    expect(file.running).toEqual([]);
  });
});

describe("file device: discard and zeroes", () => {
  it("DISCARD → punch; with FUA, then a sync", () => {
    submit(DISCARD, 0, 65_536, BLOCK_FLAG.FUA);
    expect(file.running).toEqual(["PUNCH 0+65536"]);
    file.finish();
    expect(pump()).toEqual([]);
    file.finish();
    expect(pump()).toEqual(["0:0"]);
  });

  it("DISCARD where the file can't punch → EOPNOTSUPP, told in the limits", () => {
    file.canPunch = false;
    open();
    expect(device.limits.discardBytesMax).toBe(0);
    submit(DISCARD, 0, 65_536);
    expect(pump()).toEqual([`0:${ERRNO.EOPNOTSUPP}`]);
  });

  it.each([
    ["may unmap", 0, "PUNCH 0+4096"],
    ["NO_UNMAP", BLOCK_FLAG.NO_UNMAP, "ZERO 0+4096"],
  ])("WRITE_ZEROES that %s → %s", (_, flags, running) => {
    submit(WRITE_ZEROES, 0, 4096, flags | BLOCK_FLAG.FAST_ONLY);
    expect(file.running).toEqual([running]);
    file.finish();
    expect(pump()).toEqual(["0:0"]);
  });

  it("the file system refuses punch and zero range → writes zeroes, piece by piece", () => {
    memory.bytes.fill(0xaa);
    submit(WRITE_ZEROES, 4096, 600 << 10);
    file.finish(-ERRNO.EOPNOTSUPP);
    pump();
    expect(file.running).toEqual([`ZERO 4096+${600 << 10}`]);
    file.finish(-ERRNO.EOPNOTSUPP);
    pump();
    const pieces: string[] = [];
    for (let left = 600 << 10; left > 0; ) {
      pieces.push(...file.running);
      const io = file.finish();
      left -= io.length;
      const zeroes = io.memory?.bytes.subarray(io.memoryOffset, io.memoryOffset + io.length);
      expect(zeroes?.every((byte) => byte === 0)).toBe(true);
      expect(pump()).toEqual(left > 0 ? [] : ["0:0"]);
    }
    expect(pieces).toEqual([
      `WRITE 4096+${256 << 10}`,
      `WRITE ${4096 + (256 << 10)}+${256 << 10}`,
      `WRITE ${4096 + (512 << 10)}+${88 << 10}`,
    ]);
  });

  it("FAST_ONLY where zeroes must be written → EOPNOTSUPP, at once the second time", () => {
    submit(WRITE_ZEROES, 0, 4096, BLOCK_FLAG.FAST_ONLY);
    file.finish(-ERRNO.EOPNOTSUPP);
    pump();
    file.finish(-ERRNO.EOPNOTSUPP);
    expect(pump()).toEqual([`0:${ERRNO.EOPNOTSUPP}`]);
    submit(WRITE_ZEROES, 0, 4096, BLOCK_FLAG.FAST_ONLY);
    expect(file.running).toEqual([]);
    expect(pump()).toEqual([`1:${ERRNO.EOPNOTSUPP}`]);
  });

  it.each([ERRNO.EIO, ERRNO.ENOSPC])("errno %i of a punch or zero range → reported", (errno) => {
    submit(WRITE_ZEROES, 0, 4096);
    submit(WRITE_ZEROES, 0, 4096, BLOCK_FLAG.NO_UNMAP);
    submit(DISCARD, 0, 4096);
    for (let i = 0; i < 3; i++) file.finish(-errno);
    expect(pump()).toEqual([`0:${errno}`, `1:${errno}`, `2:${errno}`]);
  });
});

describe("file device: status and cache", () => {
  it("STATUS → runs in whole blocks, clipped to the range", () => {
    const request = submit(STATUS, 4096, 8192);
    const io = file.started[0] as FileIo;
    io.extents = [
      [100, true],
      [3000, true],
      [1000, false],
      [1 << 20, true],
    ];
    file.finish();
    expect(pump()).toEqual(["0:0"]);
    // 4096 .. 7196 is hole: whole blocks up to 7168. Data to 8196, so up to 8704; then hole.
    expect(request.extents).toEqual([
      { length: 3072, hole: true, zero: true },
      { length: 1536, hole: false, zero: false },
      { length: 3584, hole: true, zero: true },
    ]);
  });

  it("STATUS of a file that can't tell → all data; other errors are errors", () => {
    const request = submit(STATUS, 0, 8192);
    submit(STATUS, 0, 8192);
    file.finish(-ERRNO.EINVAL);
    file.finish(-ERRNO.EIO);
    expect(pump()).toEqual(["0:0", `1:${ERRNO.EIO}`]);
    expect(request.extents).toEqual([{ length: 8192, hole: false, zero: false }]);
  });

  it("CACHE → asked of the file", () => {
    submit(CACHE, 0, 8192);
    expect(file.running).toEqual(["CACHE 0+8192"]);
    file.finish();
    expect(pump()).toEqual(["0:0"]);
  });
});

describe("file device: requests that can't be valid", () => {
  it.each([
    ["unaligned offset", WRITE, 100, 512, ERRNO.EINVAL],
    ["unaligned length", READ, 0, 100, ERRNO.EINVAL],
    ["no length", READ, 0, 0, ERRNO.EINVAL],
    ["negative offset", READ, -512, 512, ERRNO.EINVAL],
    ["not a number", READ, Number.NaN, 512, ERRNO.EINVAL],
    ["beyond the end", READ, (1 << 20) - 512, 1024, ERRNO.EINVAL],
    ["far beyond the end", WRITE, Number.MAX_SAFE_INTEGER - 511, 512, ERRNO.EINVAL],
    ["discard beyond the end", DISCARD, 1 << 20, 512, ERRNO.EINVAL],
    ["unknown operation", 99 as BlockOperation, 0, 512, ERRNO.EOPNOTSUPP],
  ])("%s → refused, the file untouched", (_, operation, offset, length, errno) => {
    submit(operation, offset, length);
    expect(owner.done).toEqual([]);
    expect(pump()).toEqual([`0:${errno}`]);
    expect(file.tried).toEqual([]);
    expect(file.running).toEqual([]);
  });

  it("longer than a transfer may be, or than the memory is → EINVAL", () => {
    open({ transferBytesMax: 65_536 });
    submit(READ, 0, 66_048);
    const request = owner.request(READ, 0, 512);
    request.memoryOffset = memory.length - 511;
    device.submit(request);
    const none = owner.request(WRITE, 0, 512);
    none.memory = null;
    device.submit(none);
    expect(pump()).toEqual([`0:${ERRNO.EINVAL}`, `1:${ERRNO.EINVAL}`, `2:${ERRNO.EINVAL}`]);
  });

  it.each([WRITE, DISCARD, WRITE_ZEROES])(
    "change %i of a read-only device → EROFS",
    (operation) => {
      open({ readOnly: true });
      submit(operation, 0, 512);
      submit(READ, 0, 512);
      expect(pump()).toEqual([`0:${ERRNO.EROFS}`, "1:0"]);
    },
  );
});

describe("file device: its end", () => {
  it("close → closes the file; with a request in flight, a bug", () => {
    submit(READ, 0, 512);
    expect(() => device.close()).toThrow("in flight");
    pump();
    device.close();
    expect(file.closed).toBe(true);
  });
});

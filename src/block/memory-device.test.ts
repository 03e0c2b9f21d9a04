// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { ERRNO, HeapMemorySource } from "../base/index.js";
import { BLOCK_FLAG, BLOCK_OPERATION, type BlockOperation, BlockRequest } from "./block-device.js";
import { MemoryDevice } from "./memory-device.js";

const PAGE = 65_536;
const { READ, WRITE, FLUSH, DISCARD, WRITE_ZEROES, CACHE, STATUS } = BLOCK_OPERATION;
const memory = new HeapMemorySource().allocate(8 * PAGE);

function run(
  device: MemoryDevice,
  operation: BlockOperation,
  offset = 0,
  length = 0,
  flags = 0,
): BlockRequest {
  let done = 0;
  const request = new BlockRequest({ onBlockComplete: () => done++ }, 0);
  request.operation = operation;
  request.offset = offset;
  request.length = length;
  request.flags = flags;
  request.memory = memory;
  device.submit(request);
  expect(done).toBe(0);
  expect(device.deadlineNs()).toBe(0);
  device.pump(0);
  device.checkInvariants();
  expect(done).toBe(1);
  return request;
}

function fill(device: MemoryDevice, offset: number, length: number, byte: number): number {
  memory.bytes.fill(byte, 0, length);
  return run(device, WRITE, offset, length).errno;
}

/** The only value in a range, or -1 where there are several. */
function soleByte(device: MemoryDevice, offset: number, length: number): number {
  memory.bytes.fill(0xee);
  expect(run(device, READ, offset, length).errno).toBe(0);
  const bytes = memory.bytes.subarray(0, length);
  return bytes.every((byte) => byte === bytes[0]) ? (bytes[0] as number) : -1;
}

describe("memory device", () => {
  it("unwritten → zeroes, and no memory", () => {
    const device = new MemoryDevice({ name: "ram", sizeBytes: 2 ** 40 });
    expect(soleByte(device, 2 ** 40 - 1024, 1024)).toBe(0);
    expect(device.residentBytes).toBe(0);
  });

  it("written across pages → reads back, the neighbours untouched", () => {
    const device = new MemoryDevice({ name: "ram", sizeBytes: 4 * PAGE });
    fill(device, PAGE - 512, PAGE + 1024, 7);
    expect(soleByte(device, PAGE - 512, PAGE + 1024)).toBe(7);
    expect(soleByte(device, 0, PAGE - 512)).toBe(0);
    expect(soleByte(device, 2 * PAGE + 512, PAGE)).toBe(0);
    expect(device.residentBytes).toBe(3 * PAGE);
  });

  it("discarded → zeroes; whole pages give their memory back", () => {
    const device = new MemoryDevice({ name: "ram", sizeBytes: 4 * PAGE });
    fill(device, 0, 3 * PAGE, 7);
    run(device, DISCARD, 512, 2 * PAGE);
    expect(soleByte(device, 512, 2 * PAGE)).toBe(0);
    expect(soleByte(device, 0, 512)).toBe(7);
    expect(soleByte(device, 2 * PAGE + 512, 512)).toBe(7);
    expect(device.residentBytes).toBe(2 * PAGE);
  });

  it("WRITE_ZEROES with NO_UNMAP → zeroes, the memory stays", () => {
    const device = new MemoryDevice({ name: "ram", sizeBytes: 2 * PAGE });
    fill(device, 0, 2 * PAGE, 7);
    run(device, WRITE_ZEROES, 0, PAGE, BLOCK_FLAG.NO_UNMAP);
    expect(device.residentBytes).toBe(2 * PAGE);
    run(device, WRITE_ZEROES, PAGE, PAGE);
    expect(device.residentBytes).toBe(PAGE);
    expect(soleByte(device, 0, 2 * PAGE)).toBe(0);
  });

  it("no memory left → ENOSPC", () => {
    const device = new MemoryDevice({ name: "ram", sizeBytes: 4 * PAGE, residentBytesMax: PAGE });
    expect(fill(device, 0, PAGE, 1)).toBe(0);
    expect(fill(device, PAGE, 512, 1)).toBe(ERRNO.ENOSPC);
    run(device, DISCARD, 0, PAGE);
    expect(fill(device, PAGE, 512, 1)).toBe(0);
  });

  it("STATUS → data where pages are, holes elsewhere", () => {
    const device = new MemoryDevice({ name: "ram", sizeBytes: 6 * PAGE });
    fill(device, PAGE, 2 * PAGE, 1);
    expect(run(device, STATUS, 512, 5 * PAGE).extents).toEqual([
      { length: PAGE - 512, hole: true, zero: true },
      { length: 2 * PAGE, hole: false, zero: false },
      { length: 2 * PAGE + 512, hole: true, zero: true },
    ]);
  });

  it("not sparse → all memory from the start, kept on discard", () => {
    const device = new MemoryDevice({ name: "ram", sizeBytes: 2 * PAGE, sparse: false });
    expect(device.residentBytes).toBe(2 * PAGE);
    run(device, DISCARD, 0, 2 * PAGE);
    expect(device.residentBytes).toBe(2 * PAGE);
    const options = { name: "ram", sizeBytes: 2 * PAGE, sparse: false, residentBytesMax: PAGE };
    expect(() => new MemoryDevice(options)).toThrow(expect.objectContaining({ code: "ENOMEM" }));
  });

  it("resized → onResize from pump; what was cut off does not come back", () => {
    const device = new MemoryDevice({ name: "ram", sizeBytes: 2 * PAGE });
    let resizes = 0;
    device.onResize = () => resizes++;
    fill(device, 0, 2 * PAGE, 7);
    device.resize(1024);
    expect(resizes).toBe(0);
    expect(device.limits.sizeBytes).toBe(1024);
    device.resize(3 * PAGE);
    device.pump(0);
    expect(resizes).toBe(1);
    device.checkInvariants();
    expect(soleByte(device, 0, 1024)).toBe(7);
    expect(soleByte(device, 1024, 3 * PAGE - 1024)).toBe(0);
  });

  it("FLUSH and CACHE → done; changes of a read-only one → EROFS", () => {
    const device = new MemoryDevice({ name: "ram", sizeBytes: PAGE, readOnly: true });
    expect(run(device, FLUSH).errno).toBe(0);
    expect(run(device, CACHE, 0, PAGE).errno).toBe(0);
    expect(run(device, WRITE, 0, 512).errno).toBe(ERRNO.EROFS);
  });

  it("sizes that can't be → EINVAL when made", () => {
    const einval = expect.objectContaining({ code: "EINVAL" });
    expect(() => new MemoryDevice({ name: "ram", sizeBytes: 513 })).toThrow(einval);
    expect(() => new MemoryDevice({ name: "ram", sizeBytes: -512 })).toThrow(einval);
    const odd = { name: "ram", sizeBytes: 3000, logicalBlockBytes: 1000 };
    expect(() => new MemoryDevice(odd)).toThrow(einval);
  });
});

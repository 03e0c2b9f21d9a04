// SPDX-License-Identifier: MIT
// A workload for any block device: many requests in flight, ranges that overlap, every answer
// checked by the model. A machine like any other, so that it runs in a simulated host.

import {
  assert,
  errnoName,
  type Machine,
  type Memory,
  type Random,
  randomBelow,
} from "../../src/base/index.js";
import {
  BLOCK_FLAG,
  BLOCK_OPERATION,
  type BlockDevice,
  type BlockOperation,
  BlockRequest,
  type BlockRequestOwner,
} from "../../src/block/index.js";
import { DiskModel, fillSector, ModelViolation, SECTOR_BYTES } from "./disk-model.js";

export interface WorkloadOptions {
  readonly random: Random;
  /** Requests to make in all. */
  readonly requestCount: number;
  /** Requests in flight at once, at most. */
  readonly depth: number;
  /** Longest transfer. */
  readonly lengthMax: number;
  /** Longest pause between two requests. */
  readonly thinkNsMax: number;
  /** Errors that are no surprise (a faulty disk); none by default. */
  readonly expectedErrnos?: readonly number[];
  /** The same for everything but reads (a machine that crashes and loses what it had taken). */
  readonly expectedChangeErrnos?: readonly number[];
  /**
   * Only the way of requests is checked, not their outcome: any error and any data will do
   * (somebody tampers with the packets). Default false.
   */
  readonly isLenient?: boolean;
  /** Memory of `depth * lengthMax` bytes that the device can use. */
  readonly memory: Memory;
}

/** What the workload is in the middle of, by request slot. */
interface Slot {
  readonly request: BlockRequest;
  /** The model's number of it. */
  id: number;
  isBusy: boolean;
}

/** Share of each operation in a hundred. */
const SHARES: readonly (readonly [operation: BlockOperation, share: number])[] = [
  [BLOCK_OPERATION.WRITE, 45],
  [BLOCK_OPERATION.READ, 40],
  [BLOCK_OPERATION.FLUSH, 6],
  [BLOCK_OPERATION.WRITE_ZEROES, 5],
  [BLOCK_OPERATION.DISCARD, 4],
];

const GUARD = 0x5a;

export class DiskWorkload implements Machine, BlockRequestOwner {
  readonly model: DiskModel;
  /** Requests made, completed, failed with an expected errno. */
  madeCount = 0;
  completedCount = 0;
  failedCount = 0;
  /** Set while nothing new is to be made. */
  isPaused = false;

  private readonly device: BlockDevice;
  private readonly options: WorkloadOptions;
  private readonly slots: Slot[];
  /** What is in a slot's memory where no read has written. */
  private readonly guard: Uint8Array;
  private nextNs = 0;
  /** The next sector that the final check reads; -1 before it begins. */
  private checkSector = -1;
  private nextFlushId = 1;

  constructor(device: BlockDevice, options: WorkloadOptions) {
    const { depth, lengthMax, memory } = options;
    assert(memory.length >= depth * lengthMax, "memory for every slot");
    assert(lengthMax % SECTOR_BYTES === 0, "whole sectors");
    this.device = device;
    this.options = options;
    this.model = new DiskModel(device.limits.sizeBytes / SECTOR_BYTES);
    this.guard = new Uint8Array(lengthMax).fill(GUARD);
    this.slots = Array.from({ length: depth }, (_, tag) => ({
      request: new BlockRequest(this, tag),
      id: 0,
      isBusy: false,
    }));
  }

  get inflight(): number {
    return this.madeCount - this.completedCount;
  }

  /** Whether every request is made and answered. */
  get isDone(): boolean {
    return this.madeCount >= this.options.requestCount && this.inflight === 0;
  }

  /** Whether the final check has read everything. */
  get isChecked(): boolean {
    return this.checkSector >= this.model.sectorCount && this.inflight === 0;
  }

  /** Begins the final check: the whole disk is read once. Preconditions: `isDone`. */
  startCheck(): void {
    assert(this.isDone, "the workload is done");
    this.checkSector = 0;
  }

  pump(nowNs: number): void {
    while (this.wantsMore() && nowNs >= this.nextNs) {
      const slot = this.slots.find((candidate) => !candidate.isBusy);
      if (slot === undefined) return;
      if (this.checkSector >= 0) this.makeCheckRead(slot);
      else this.makeRequest(slot);
      this.madeCount++;
      slot.isBusy = true;
      this.device.submit(slot.request);
      this.drawPause(nowNs);
    }
  }

  deadlineNs(): number {
    if (!this.wantsMore() || this.inflight === this.slots.length) return Number.POSITIVE_INFINITY;
    return this.nextNs;
  }

  checkInvariants(): void {
    const busy = this.slots.filter((slot) => slot.isBusy).length;
    assert(busy === this.inflight, "every request in flight has its slot");
  }

  onBlockComplete(request: BlockRequest): void {
    const slot = this.slots[request.tag] as Slot;
    assert(slot.isBusy, "a request completes once");
    slot.isBusy = false;
    this.completedCount++;
    const { errno, operation, flags } = request;
    if (errno !== 0) this.acceptFailure(operation, errno);
    const isFua = (flags & BLOCK_FLAG.FUA) !== 0;
    switch (operation) {
      case BLOCK_OPERATION.READ:
        this.endRead(slot, errno === 0);
        break;
      case BLOCK_OPERATION.FLUSH:
        this.model.endFlush(slot.id, errno === 0);
        break;
      case BLOCK_OPERATION.DISCARD:
        this.model.endWrite(slot.id, "maybe", false);
        break;
      default:
        this.model.endWrite(slot.id, errno === 0 ? "done" : "maybe", isFua);
    }
    if (this.completedCount % 256 === 0) this.model.collect();
  }

  private acceptFailure(operation: BlockOperation, errno: number): void {
    const { expectedErrnos = [], expectedChangeErrnos = [] } = this.options;
    const isRead = operation === BLOCK_OPERATION.READ;
    this.failedCount++;
    if (this.options.isLenient) return;
    if (!expectedErrnos.includes(errno) && !(!isRead && expectedChangeErrnos.includes(errno))) {
      throw new ModelViolation(`operation ${operation} failed with ${errnoName(errno)}`);
    }
  }

  private wantsMore(): boolean {
    if (this.checkSector >= 0) return this.checkSector < this.model.sectorCount;
    return !this.isPaused && this.madeCount < this.options.requestCount;
  }

  private drawPause(nowNs: number): void {
    const { random, thinkNsMax } = this.options;
    const pauses = thinkNsMax > 0 && this.checkSector < 0 && randomBelow(random, 4) === 0;
    this.nextNs = pauses ? nowNs + randomBelow(random, thinkNsMax) : 0;
  }

  private makeRequest(slot: Slot): void {
    const { random } = this.options;
    const { request } = slot;
    request.operation = this.drawOperation();
    request.flags = 0;
    this.drawRange(request);
    const first = request.offset / SECTOR_BYTES;
    const count = request.length / SECTOR_BYTES;
    switch (request.operation) {
      case BLOCK_OPERATION.READ:
        this.startRead(slot, first, count);
        break;
      case BLOCK_OPERATION.FLUSH:
        slot.id = this.nextFlushId++;
        request.offset = 0;
        request.length = 0;
        this.model.startFlush(slot.id);
        break;
      case BLOCK_OPERATION.WRITE:
        if (randomBelow(random, 8) === 0) request.flags = BLOCK_FLAG.FUA;
        this.startWrite(slot, first, count);
        break;
      default:
        slot.id = this.model.startWrite(first, count, true);
    }
  }

  private makeCheckRead(slot: Slot): void {
    const perRequest = this.options.lengthMax / SECTOR_BYTES;
    const count = Math.min(perRequest, this.model.sectorCount - this.checkSector);
    slot.request.operation = BLOCK_OPERATION.READ;
    slot.request.flags = 0;
    slot.request.offset = this.checkSector * SECTOR_BYTES;
    slot.request.length = count * SECTOR_BYTES;
    this.startRead(slot, this.checkSector, count);
    this.checkSector += count;
  }

  private startRead(slot: Slot, first: number, count: number): void {
    const { memory, lengthMax } = this.options;
    const { request } = slot;
    request.memory = memory;
    request.memoryOffset = request.tag * lengthMax;
    // Bytes that no write ever makes: a read that completes without data is found.
    memory.bytes.fill(GUARD, request.memoryOffset, request.memoryOffset + lengthMax);
    slot.id = this.madeCount + 1;
    this.model.startRead(slot.id, first, count);
  }

  private endRead(slot: Slot, isDone: boolean): void {
    const { memory, lengthMax } = this.options;
    const { memoryOffset, length } = slot.request;
    const isComparable = isDone && !this.options.isLenient;
    const bytes = isComparable ? memory.bytes.slice(memoryOffset, memoryOffset + length) : null;
    this.model.endRead(slot.id, bytes);
    if (!isComparable) return;
    const rest = memory.bytes.subarray(memoryOffset + length, memoryOffset + lengthMax);
    const isWhole = Buffer.compare(rest, this.guard.subarray(length)) === 0;
    if (!isWhole) throw new ModelViolation("a read wrote past its end");
  }

  private startWrite(slot: Slot, first: number, count: number): void {
    const { memory, lengthMax } = this.options;
    const { request } = slot;
    request.memory = memory;
    request.memoryOffset = request.tag * lengthMax;
    slot.id = this.model.startWrite(first, count, false);
    for (let i = 0; i < count; i++) {
      const offset = request.memoryOffset + i * SECTOR_BYTES;
      fillSector(memory.bytes, offset, first + i, slot.id);
    }
  }

  private drawOperation(): BlockOperation {
    let left = randomBelow(this.options.random, 100);
    for (const [operation, share] of SHARES) {
      if (left < share) return this.isOffered(operation) ? operation : BLOCK_OPERATION.READ;
      left -= share;
    }
    return BLOCK_OPERATION.READ;
  }

  private isOffered(operation: BlockOperation): boolean {
    const { discardBytesMax, writeZeroesBytesMax } = this.device.limits;
    if (operation === BLOCK_OPERATION.DISCARD) return discardBytesMax > 0;
    if (operation === BLOCK_OPERATION.WRITE_ZEROES) return writeZeroesBytesMax > 0;
    return true;
  }

  /** Mostly short ranges, half of them in a narrow part of the disk, so that requests collide. */
  private drawRange(request: BlockRequest): void {
    const { random, lengthMax } = this.options;
    const { sectorCount } = this.model;
    const longest = Math.min(lengthMax / SECTOR_BYTES, sectorCount);
    const bound = randomBelow(random, 4) === 0 ? longest : Math.min(8, longest);
    const count = 1 + randomBelow(random, bound);
    const isHot = randomBelow(random, 2) === 0;
    const room = Math.min(isHot ? 64 + count : sectorCount, sectorCount) - count;
    request.offset = randomBelow(random, room + 1) * SECTOR_BYTES;
    request.length = count * SECTOR_BYTES;
  }
}

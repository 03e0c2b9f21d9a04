// SPDX-License-Identifier: MIT
// The hot half of the client: a request becomes one RDMA WRITE with immediate (facts page, section
// 7). Nothing is allocated here.

import { assert, carryOf, highOf, lowOf, type Memory } from "../../base/index.js";
import { ACCESS, type MemoryRegion, SendWorkRequest, WR_OPCODE } from "../../verbs/index.js";
import {
  RTRS_DESCRIPTOR_BYTES,
  RTRS_READ_HEADER_BYTES,
  RTRS_WRITE_HEADER_BYTES,
  rtrsRequestImmediate,
  writeRtrsDescriptor,
  writeRtrsReadHeader,
  writeRtrsWriteHeader,
} from "../../wire/index.js";
import type { Connection } from "../connection.js";
import type { Slab } from "../slab.js";
import type { ChunkTable } from "./chunk-table.js";
import type { RegisteredMemories } from "./client-memory.js";
import type { ClientRequest } from "./client-request.js";
import type { ClientSlot } from "./client-slot.js";
import type { DataPiece, ReadStaging } from "./scatter.js";

/** Room behind a user message for the largest RTRS header. */
export const HEADER_ROOM_BYTES = RTRS_READ_HEADER_BYTES + RTRS_DESCRIPTOR_BYTES;

export class ClientSender {
  /** Where READs with several pieces land. */
  readonly staging: ReadStaging;
  private readonly messages: Slab;
  private readonly memories: RegisteredMemories;
  private readonly readFlags: number;
  private readonly wr = new SendWorkRequest();
  private readonly wiping = new SendWorkRequest();

  /**
   * @param messages slots of user message and header, and zeroes, as many as a header has bytes.
   * @param zeroesOffset where they are.
   * @param memories where the data of requests is.
   * @param staging where that of READs with several pieces comes to.
   * @param readFlags flags of READs whose key is their own.
   */
  constructor(
    messages: Slab,
    zeroesOffset: number,
    memories: RegisteredMemories,
    staging: ReadStaging,
    readFlags: number,
  ) {
    this.staging = staging;
    this.messages = messages;
    this.memories = memories;
    this.readFlags = readFlags;
    this.wr.opcode = WR_OPCODE.RDMA_WRITE_WITH_IMM;
    this.wiping.opcode = WR_OPCODE.RDMA_WRITE;
    this.wiping.sgeCount = 1;
    const zeroes = this.wiping.sges[0] as (typeof this.wiping.sges)[number];
    zeroes.address = messages.memory.address + zeroesOffset;
    zeroes.length = RTRS_WRITE_HEADER_BYTES;
    zeroes.lkey = messages.region.lkey;
  }

  /**
   * Sends the request of `slot`. Preconditions: `connection.hasRoom(1)`.
   * @returns false when the connection does not take it: it is dead, and its path will hear of it.
   */
  issue(slot: ClientSlot, connection: Connection, chunks: ChunkTable): boolean {
    const { isRead, dataLength, userLength } = slot.request;
    const { permit } = slot;
    const { wr } = this;
    if (isRead) this.prepareRead(slot);
    else this.prepareWrite(slot);
    // A READ leaves the part of the chunk that the server will fill (facts page, section 7.2).
    const low = chunks.addressLows[permit] as number;
    const skip = isRead ? dataLength : 0;
    wr.remoteAddressHigh = ((chunks.addressHighs[permit] as number) + carryOf(low, skip)) >>> 0;
    wr.remoteAddressLow = (low + skip) >>> 0;
    wr.rkey = chunks.keys[permit] as number;
    wr.immediate = rtrsRequestImmediate(permit, dataLength + userLength, chunks.shift);
    return connection.post(wr);
  }

  /**
   * Makes the header of an answered request no header any more, at the server. What is not taken
   * is not needed: the path of `connection` is lost then, too.
   * @param offset of the header within the chunk. Preconditions: `connection.hasRoom(1)`.
   */
  wipe(permit: number, offset: number, connection: Connection, chunks: ChunkTable): void {
    const { wiping } = this;
    const low = chunks.addressLows[permit] as number;
    wiping.remoteAddressHigh =
      ((chunks.addressHighs[permit] as number) + carryOf(low, offset)) >>> 0;
    wiping.remoteAddressLow = (low + offset) >>> 0;
    wiping.rkey = chunks.keys[permit] as number;
    connection.post(wiping);
  }

  private prepareWrite(slot: ClientSlot): void {
    const { memory, memoryOffset, dataLength, userLength } = slot.request;
    const { view } = this.messages.memory;
    writeRtrsWriteHeader(view, slot.messageOffset + userLength, userLength);
    const messageLength = userLength + RTRS_WRITE_HEADER_BYTES;
    if (dataLength === 0) {
      this.setSge(0, this.messages, slot.messageOffset, messageLength);
      this.wr.sgeCount = 1;
      return;
    }
    const { pieces, pieceCount } = slot.request;
    for (let i = 0; i < pieceCount; i++) {
      const piece = pieces[i] as DataPiece;
      this.setData(i, piece.memory, piece.memoryOffset, piece.length);
    }
    if (pieceCount === 0) this.setData(0, memory, memoryOffset, dataLength);
    const last = Math.max(1, pieceCount);
    this.setSge(last, this.messages, slot.messageOffset, messageLength);
    this.wr.sgeCount = last + 1;
  }

  private prepareRead(slot: ClientSlot): void {
    const { dataLength, userLength } = slot.request;
    const { view } = this.messages.memory;
    const header = slot.messageOffset + userLength;
    let messageLength = userLength + RTRS_READ_HEADER_BYTES;
    if (dataLength === 0) {
      writeRtrsReadHeader(view, header, userLength, 0, 0);
    } else {
      this.openForServer(slot, header);
      messageLength += RTRS_DESCRIPTOR_BYTES;
    }
    this.setSge(0, this.messages, slot.messageOffset, messageLength);
    this.wr.sgeCount = 1;
  }

  /** Gives the server a key to exactly the bytes of this READ, and writes its header. */
  private openForServer(slot: ClientSlot, header: number): void {
    const { request } = slot;
    const { dataLength, userLength } = request;
    const memory = this.staging.memoryOf(request);
    const memoryOffset = request.pieceCount === 0 ? request.memoryOffset : 0;
    const { view } = this.messages.memory;
    const region = this.regionOf(memory);
    const address = (memory as Memory).address + memoryOffset;
    const access = ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE;
    let key = region.rkey;
    let flags = 0;
    if (slot.region !== null) {
      key = slot.region.fastRegister(region, address, dataLength, access);
      flags = this.readFlags;
      slot.isOpen = true;
    }
    writeRtrsReadHeader(view, header, userLength, flags, 1);
    const at = header + RTRS_READ_HEADER_BYTES;
    writeRtrsDescriptor(view, at, highOf(address), lowOf(address), key, dataLength);
  }

  /** A request is over: the data of a READ goes to its pieces. */
  settle(request: ClientRequest): void {
    if (request.pieceCount > 0 && request.isRead && request.errno === 0) {
      this.staging.deal(request);
    }
  }

  /** Preconditions: no queue pair is alive. */
  free(): void {
    this.staging.free();
    this.messages.free();
  }

  private setData(index: number, memory: Memory | null, offset: number, length: number): void {
    const sge = this.wr.sges[index] as (typeof this.wr.sges)[number];
    sge.address = (memory as Memory).address + offset;
    sge.length = length;
    sge.lkey = this.regionOf(memory).lkey;
  }

  private regionOf(memory: Memory | null): MemoryRegion {
    const region = memory === null ? null : this.memories.regionOf(memory);
    assert(region !== null, "a request's memory is registered with its session");
    return region;
  }

  private setSge(index: number, slab: Slab, offset: number, length: number): void {
    const sge = this.wr.sges[index] as (typeof this.wr.sges)[number];
    sge.address = slab.memory.address + offset;
    sge.length = length;
    sge.lkey = slab.region.lkey;
  }
}

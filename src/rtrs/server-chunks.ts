// SPDX-License-Identifier: MIT
// The chunks of a server path: their memory, the keys that open them to the client, and the request
// that is in each. Memory is per path, not shared by the paths of a session as in Linux: the key of
// another path then never opens a chunk that this path is looking at (facts page, section 17).

import { assert, type Memory } from "../base/index.js";
import { ACCESS, type MemoryRegion, type ProtectionDomain } from "../verbs/index.js";
import {
  RTRS_DESCRIPTOR_BYTES,
  RTRS_FLAG_NEED_INVAL,
  RTRS_INFO_REQUEST_BYTES,
  RTRS_READ_HEADER_BYTES,
  RTRS_RKEY_RESPONSE_BYTES,
  RTRS_TYPE,
  RTRS_WRITE_HEADER_BYTES,
  rtrsDescriptorAddressHigh,
  rtrsDescriptorAddressLow,
  rtrsDescriptorKey,
  rtrsDescriptorLength,
  rtrsInfoResponseBytes,
  rtrsInfoResponseDescriptor,
  rtrsReadFlags,
  rtrsReadSegmentCount,
  rtrsType,
  rtrsUserLength,
  writeRtrsDescriptor,
  writeRtrsInfoResponse,
  writeRtrsRkeyResponse,
} from "../wire/index.js";
import type { WatchedChunks } from "./chunk-watch.js";
import type { Connection } from "./connection.js";
import type { RtrsEnvironment } from "./environment.js";
import type { ServerSettings } from "./options.js";
import { RTRS_HEADER_BYTES } from "./options.js";
import { ServerRequest, type ServerRequestOwner } from "./server-request.js";
import type { ServerSession } from "./server-session.js";
import { Slab } from "./slab.js";

/** Where a chunk is. */
export const CHUNK_STATE = {
  /** With the client. */
  FREE: 0,
  /** With the user of the server. */
  BUSY: 1,
  /** Answered by the user; the send queue had no room for the reply. */
  BLOCKED: 2,
  /** Taken, and not handed to the user while another path has a request of the same permit. */
  HELD: 3,
} as const;

/** Why a request is a violation of the protocol. */
export type RequestFault =
  | "BAD_CHUNK"
  | "BAD_OFFSET"
  | "CHUNK_IN_USE"
  | "BAD_TYPE"
  | "BAD_USER_LENGTH"
  | "BAD_DATA_LENGTH"
  | "BAD_SEGMENT_COUNT"
  | "BAD_DESCRIPTOR";

export const CHUNK_ACCESS = ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE;
const HEADER_BYTES_MAX = RTRS_READ_HEADER_BYTES + RTRS_DESCRIPTOR_BYTES;
const NOTHING = new Uint8Array(0);

/** Bytes of memory that each chunk has beside it for a copy of a short request; 0: none. */
export function copyBytesOf(settings: ServerSettings): number {
  const { alwaysInvalidate, copyBytesMax, chunkBytes } = settings;
  return alwaysInvalidate ? Math.min(copyBytesMax, chunkBytes - RTRS_HEADER_BYTES) : 0;
}

export class ServerChunks {
  readonly count: number;
  readonly chunkBytes: number;
  readonly ioBytesMax: number;
  /** All chunks, readable and writable for this host alone under this registration. */
  readonly data: Slab;
  /** INFO_REQ, INFO_RSP, and an 8-byte reply per chunk. */
  readonly messages: Slab;
  readonly infoResponseBytes: number;
  /**
   * With rotating keys: where requests of up to `copyBytesMax` bytes work, `copyBytesMax` for each
   * chunk, out of the client's reach. Null where none are copied.
   */
  readonly copies: Slab | null;
  /** Whether the request in a chunk works in `copies`; the chunk's key was not taken away then. */
  readonly isCopied: Uint8Array;
  readonly requests: ServerRequest[] = [];
  readonly states: Uint8Array;
  /** The connection that carried the request, by which the reply goes back. */
  readonly connections: (Connection | null)[];
  /**
   * What of a READ header is needed for the reply: whether there is a descriptor, and what it says.
   */
  readonly hasDescriptor: Uint8Array;
  readonly needsInvalidation: Uint8Array;
  readonly clientAddressHighs: Uint32Array;
  readonly clientAddressLows: Uint32Array;
  readonly clientKeys: Uint32Array;
  readonly clientLengths: Uint32Array;
  /** The user's answer, while BLOCKED. */
  readonly replyErrnos: Uint16Array;
  readonly replyLengths: Int32Array;
  /** With rotating keys one fast-register region per chunk; else one region for all. */
  private readonly regions: MemoryRegion[] = [];
  private readonly rotates: boolean;
  private readonly userBytesMax: number;
  private readonly copyBytesMax: number;
  /** Of each chunk the view by which its data was copied last. */
  private readonly dataViews: Uint8Array[];
  private readonly headerView: DataView;
  private readonly watch: WatchedChunks | null;
  /** The memory of `data`, where this host's own code reads it. */
  private readonly seen: Memory;
  private readonly repliesOffset: number;

  /** @throws FarpageError ENOMEM; nothing is left over then. */
  constructor(
    environment: RtrsEnvironment,
    settings: ServerSettings,
    pd: ProtectionDomain,
    owner: ServerRequestOwner,
    session: ServerSession,
  ) {
    const count = settings.queueDepth;
    this.count = count;
    this.chunkBytes = settings.chunkBytes;
    this.ioBytesMax = settings.chunkBytes - RTRS_HEADER_BYTES;
    this.rotates = settings.alwaysInvalidate;
    this.userBytesMax = settings.userBytesMax;
    this.copyBytesMax = copyBytesOf(settings);
    this.infoResponseBytes = rtrsInfoResponseBytes(this.rotates ? count : 1);
    this.repliesOffset = Math.ceil((RTRS_INFO_REQUEST_BYTES + this.infoResponseBytes) / 64) * 64;
    const { memory } = environment;
    const messageBytes = this.repliesOffset + count * RTRS_RKEY_RESPONSE_BYTES;
    const bytes = count * this.chunkBytes;
    this.data = new Slab(memory, pd, bytes, ACCESS.LOCAL_WRITE, "RTRS chunks");
    this.messages = this.orFree(
      () => new Slab(memory, pd, messageBytes, ACCESS.LOCAL_WRITE),
      () => this.data.free(),
    );
    this.copies = this.orFree(
      () => this.makeCopies(environment, pd),
      () => this.free(),
    );
    this.isCopied = new Uint8Array(count);
    this.dataViews = new Array<Uint8Array>(count).fill(NOTHING);
    this.watch = environment.watch?.open(this.data.memory, this.chunkBytes) ?? null;
    this.seen = this.watch?.memory ?? this.data.memory;
    this.states = new Uint8Array(count);
    this.connections = new Array<Connection | null>(count).fill(null);
    this.hasDescriptor = new Uint8Array(count);
    this.needsInvalidation = new Uint8Array(count);
    this.clientAddressHighs = new Uint32Array(count);
    this.clientAddressLows = new Uint32Array(count);
    this.clientKeys = new Uint32Array(count);
    this.clientLengths = new Uint32Array(count);
    this.replyErrnos = new Uint16Array(count);
    this.replyLengths = new Int32Array(count);
    this.headerView = new DataView(new ArrayBuffer(HEADER_BYTES_MAX));
    this.makeRequests(owner, session);
    this.orFree(
      () => this.makeRegions(pd),
      () => this.free(),
    );
  }

  /** Ends all registrations and gives the memory back. Preconditions: no queue pair uses it. */
  free(): void {
    for (const region of this.regions) region.deregister();
    this.copies?.free();
    this.messages.free();
    this.data.free();
  }

  private makeCopies({ memory }: RtrsEnvironment, pd: ProtectionDomain): Slab | null {
    if (this.copyBytesMax === 0) return null;
    const bytes = this.count * this.copyBytesMax;
    return new Slab(memory, pd, bytes, ACCESS.LOCAL_WRITE, "RTRS requests, copied");
  }

  private orFree<T>(make: () => T, free: () => void): T {
    try {
      return make();
    } catch (error) {
      free();
      throw error;
    }
  }

  private makeRequests(owner: ServerRequestOwner, session: ServerSession): void {
    const privateBytes = new Uint8Array(this.count * this.userBytesMax);
    for (let chunk = 0; chunk < this.count; chunk++) {
      const at = chunk * this.userBytesMax;
      const userMessage = privateBytes.subarray(at, at + this.userBytesMax);
      const memory = this.seen;
      const offset = chunk * this.chunkBytes;
      this.requests.push(new ServerRequest(owner, session, chunk, userMessage, memory, offset));
    }
  }

  private makeRegions(pd: ProtectionDomain): void {
    if (this.rotates) {
      for (let chunk = 0; chunk < this.count; chunk++) this.regions.push(pd.allocMr());
    } else {
      this.regions.push(pd.registerMr(this.data.memory, { access: CHUNK_ACCESS }));
    }
  }

  /** Opens every chunk to the client and writes the INFO_RSP that says how. */
  announce(): void {
    const { view } = this.messages.memory;
    const at = RTRS_INFO_REQUEST_BYTES;
    const chunks = this.data.memory;
    if (!this.rotates) {
      writeRtrsInfoResponse(view, at, 1);
      const key = (this.regions[0] as MemoryRegion).rkey;
      this.describe(rtrsInfoResponseDescriptor(at, 0), chunks.address, key, chunks.length);
      return;
    }
    writeRtrsInfoResponse(view, at, this.count);
    for (let chunk = 0; chunk < this.count; chunk++) {
      const address = chunks.address + chunk * this.chunkBytes;
      const key = this.open(chunk);
      this.describe(rtrsInfoResponseDescriptor(at, chunk), address, key, this.chunkBytes);
    }
  }

  private describe(at: number, address: number, key: number, length: number): void {
    const high = Math.floor(address / 0x1_0000_0000);
    writeRtrsDescriptor(this.messages.memory.view, at, high, address >>> 0, key, length);
  }

  /** Opens a chunk to the client under a fresh key. */
  private open(chunk: number): number {
    const region = this.regions[chunk] as MemoryRegion;
    const address = this.data.memory.address + chunk * this.chunkBytes;
    return region.fastRegister(this.data.region, address, this.chunkBytes, CHUNK_ACCESS);
  }

  /**
   * With rotating keys: opens a chunk again, where it was closed, and writes the RKEY_RSP that goes
   * with its reply.
   * @returns the local address of those 8 bytes.
   */
  reopen(chunk: number): number {
    const at = this.repliesOffset + chunk * RTRS_RKEY_RESPONSE_BYTES;
    const isOpen = this.isCopied[chunk] === 1;
    const key = isOpen ? (this.regions[chunk] as MemoryRegion).rkey : this.open(chunk);
    writeRtrsRkeyResponse(this.messages.memory.view, at, chunk, key);
    return this.messages.memory.address + at;
  }

  /**
   * Takes the request out of a chunk. Its header and user message are copied once, to where the
   * client can't reach them, and only the copies are looked at. With rotating keys the data is out
   * of its reach as well from here to the reply: that of a short request in a copy, else because
   * the chunk is closed to the client, whichever is cheaper (`hide.bench.ts`).
   * @returns null when `requests[chunk]` is filled in and the chunk HELD; what is wrong otherwise.
   */
  take(chunk: number, offset: number, connection: Connection): RequestFault | null {
    if (chunk >= this.count) return "BAD_CHUNK";
    if (offset + RTRS_WRITE_HEADER_BYTES > this.chunkBytes) return "BAD_OFFSET";
    if (this.states[chunk] !== CHUNK_STATE.FREE) return "CHUNK_IN_USE";
    // What lies before the header is data and message, so this is never less than the data.
    const isCopied = this.copies !== null && offset <= this.copyBytesMax;
    this.isCopied[chunk] = isCopied ? 1 : 0;
    if (this.rotates && !isCopied) (this.regions[chunk] as MemoryRegion).invalidate();
    this.watch?.handOver(chunk, !this.rotates || isCopied);
    const headerLength = this.copyHeader(chunk, offset);
    const header = this.headerView;
    const type = rtrsType(header, 0);
    if (type !== RTRS_TYPE.READ && type !== RTRS_TYPE.WRITE) return "BAD_TYPE";
    const userLength = rtrsUserLength(header, 0);
    if (userLength > offset) return "BAD_USER_LENGTH";
    const dataLength = offset - userLength;
    if (dataLength > this.ioBytesMax) return "BAD_DATA_LENGTH";
    this.hasDescriptor[chunk] = 0;
    const fault = type === RTRS_TYPE.READ ? this.takeDescriptor(chunk, headerLength) : null;
    if (fault !== null) return fault;
    const request = this.requests[chunk] as ServerRequest;
    request.isRead = type === RTRS_TYPE.READ;
    request.dataLength = dataLength;
    request.userLength = userLength;
    this.copyUserMessage(request, chunk * this.chunkBytes + dataLength);
    this.place(request, chunk);
    this.watch?.accept(chunk, request.isRead, dataLength);
    this.states[chunk] = CHUNK_STATE.HELD;
    this.connections[chunk] = connection;
    return null;
  }

  /** The request in a chunk is over, answered or not. */
  release(chunk: number): void {
    this.states[chunk] = CHUNK_STATE.FREE;
    this.connections[chunk] = null;
    this.watch?.release(chunk);
  }

  /** Forgets the requests that the user has not got. */
  releaseHeld(): void {
    for (let chunk = 0; chunk < this.count; chunk++) {
      if (this.states[chunk] === CHUNK_STATE.HELD) this.release(chunk);
    }
  }

  /** @returns how many bytes were copied: fewer than the largest header at the end of a chunk. */
  private copyHeader(chunk: number, offset: number): number {
    const { bytes } = this.seen;
    const length = Math.min(HEADER_BYTES_MAX, this.chunkBytes - offset);
    const start = chunk * this.chunkBytes + offset;
    for (let i = 0; i < length; i++) this.headerView.setUint8(i, bytes[start + i] as number);
    // A header is good for one request: an immediate that comes again finds none (BAD_TYPE).
    bytes[start] = 0;
    bytes[start + 1] = 0;
    return length;
  }

  private takeDescriptor(chunk: number, headerLength: number): RequestFault | null {
    const header = this.headerView;
    if (headerLength < RTRS_READ_HEADER_BYTES) return "BAD_OFFSET";
    const count = rtrsReadSegmentCount(header, 0);
    if (count > 1) return "BAD_SEGMENT_COUNT";
    if (count === 0) return null;
    if (headerLength < HEADER_BYTES_MAX) return "BAD_OFFSET";
    const length = rtrsDescriptorLength(header, RTRS_READ_HEADER_BYTES);
    if (length === 0 || length > this.chunkBytes) return "BAD_DESCRIPTOR";
    this.hasDescriptor[chunk] = 1;
    this.needsInvalidation[chunk] = rtrsReadFlags(header, 0) & RTRS_FLAG_NEED_INVAL;
    this.clientAddressHighs[chunk] = rtrsDescriptorAddressHigh(header, RTRS_READ_HEADER_BYTES);
    this.clientAddressLows[chunk] = rtrsDescriptorAddressLow(header, RTRS_READ_HEADER_BYTES);
    this.clientKeys[chunk] = rtrsDescriptorKey(header, RTRS_READ_HEADER_BYTES);
    this.clientLengths[chunk] = length;
    return null;
  }

  /** One longer than `userBytesMax` is not copied: the server refuses the request. */
  private copyUserMessage(request: ServerRequest, start: number): void {
    const { bytes } = this.seen;
    const { userMessage, userLength } = request;
    if (userLength > this.userBytesMax) return;
    for (let i = 0; i < userLength; i++) userMessage[i] = bytes[start + i] as number;
  }

  /** Says where the request's data is, having copied it there where that is the way. */
  private place(request: ServerRequest, chunk: number): void {
    const { copies } = this;
    if (copies === null || this.isCopied[chunk] === 0) {
      request.memory = this.seen;
      request.memoryOffset = chunk * this.chunkBytes;
      return;
    }
    request.memory = copies.memory;
    request.memoryOffset = chunk * this.copyBytesMax;
    if (request.isRead) return;
    copies.memory.bytes.set(this.dataView(chunk, request.dataLength), request.memoryOffset);
  }

  /** Most requests of a chunk are as long as the last one, and need no view of their own. */
  private dataView(chunk: number, length: number): Uint8Array {
    const kept = this.dataViews[chunk] as Uint8Array;
    if (kept.length === length && this.watch === null) return kept;
    const start = chunk * this.chunkBytes;
    const view = this.seen.bytes.subarray(start, start + length);
    this.dataViews[chunk] = view;
    return view;
  }

  /** Local address of the data that the reply of a read carries. */
  replyAddress(chunk: number): number {
    const { memoryOffset } = this.requests[chunk] as ServerRequest;
    return this.replySlab(chunk).memory.address + memoryOffset;
  }

  replyKey(chunk: number): number {
    return this.replySlab(chunk).region.lkey;
  }

  private replySlab(chunk: number): Slab {
    return this.copies !== null && this.isCopied[chunk] === 1 ? this.copies : this.data;
  }

  /** Bytes of the chunk that the reply carries: never more than the request was about. */
  replyDataLength(chunk: number): number {
    if (this.replyErrnos[chunk] !== 0 || this.hasDescriptor[chunk] === 0) return 0;
    return Math.min(this.clientLengths[chunk] as number, this.replyLengths[chunk] as number);
  }

  checkInvariants(isAnnounced: boolean): void {
    for (let chunk = 0; chunk < this.count; chunk++) {
      const isFree = this.states[chunk] === CHUNK_STATE.FREE;
      assert(isFree === (this.connections[chunk] === null), "a chunk in use has its connection");
      if (!this.rotates || !isAnnounced) continue;
      const isOpen = (this.regions[chunk] as MemoryRegion).isValid;
      const keepsKey = isFree || this.isCopied[chunk] === 1;
      assert(isOpen === keepsKey, "a chunk in use is closed, or its request is a copy");
    }
  }
}

// SPDX-License-Identifier: MIT
// A client that speaks RTRS and RNBD correctly until a test tells it otherwise: every number that
// it puts on the wire can be replaced by a lie.

import type { Machine } from "../../src/base/index.js";
import {
  ACCESS,
  type MemoryRegion,
  type SendWorkRequest,
  WC_STATUS,
  type WorkCompletion,
} from "../../src/verbs/index.js";
import {
  RNBD_CLOSE_BYTES,
  RNBD_IO_BYTES,
  RNBD_OPEN_BYTES,
  RNBD_OPEN_RSP_BYTES,
  RNBD_SESS_INFO_BYTES,
  type RnbdAccess,
  type RtrsDescriptor,
  readRnbdOpenResponse,
  rtrsChunkShift,
  rtrsReplyErrno,
  rtrsReplyMessageId,
  rtrsRequestImmediate,
  rtrsRkeyResponseKey,
  writeRnbdClose,
  writeRnbdIo,
  writeRnbdOpen,
  writeRnbdSessInfo,
  writeRtrsDescriptor,
  writeRtrsReadHeader,
  writeRtrsWriteHeader,
} from "../../src/wire/index.js";
import { RAW_DEPTH, RawClient, type RawConnection, type RawHost } from "../support/raw-peer.js";

export const CHUNK_BYTES = 16_384;
export const CHUNK_COUNT = RAW_DEPTH;
/** Where receives land in a raw peer's memory, and how far apart. */
const RECEIVES_AT = 32_768;
const RECEIVE_BYTES = 1024;
const BUFFER_BYTES = 65_536;
/** What the buffer for reads holds where the server has not written. */
export const UNTOUCHED = 0x77;

/** What of a request may be a lie; what is not named is true. */
export interface Lies {
  /** Where the bytes go, in the chunk, and what the immediate says of the header's place. */
  readonly at?: number;
  readonly headerOffset?: number;
  readonly type?: number;
  readonly userLength?: number;
  readonly segmentCount?: number;
  readonly flags?: number;
  readonly descriptor?: Partial<RtrsDescriptor>;
  /** The whole immediate. */
  readonly immediate?: number;
  readonly chunkInImmediate?: number;
  readonly change?: (wr: SendWorkRequest) => void;
}

export interface Request {
  readonly chunk?: number;
  readonly user: Uint8Array;
  /** A WRITE's data; a READ has `readBytes` instead. */
  readonly data?: Uint8Array;
  readonly readBytes?: number;
  /** As many bytes of data are claimed, and not sent. */
  readonly withheldBytes?: number;
  readonly lies?: Lies;
}

export class Attacker extends RawClient implements Machine {
  /** Replies by chunk, errno; taken away by whoever waits for one. */
  readonly replies = new Map<number, number>();
  /** Where reads are to land. */
  readonly buffer;
  readonly bufferRegion: MemoryRegion;
  /** Completions of connection 1 that have been looked at. */
  private seen = 0;

  constructor(host: RawHost, server: Pick<RawHost, "address">, tag: number) {
    super(host, server, tag);
    this.buffer = host.memory.allocate(BUFFER_BYTES);
    this.buffer.bytes.fill(UNTOUCHED);
    const access = ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE;
    this.bufferRegion = this.pd.registerMr(this.buffer, { access });
  }

  /** Whether a work request of this client was refused for its key. */
  get hasAccessError(): boolean {
    const isRefused = ({ status }: WorkCompletion) => status === WC_STATUS.REM_ACCESS_ERR;
    return this.connections.some(({ completions }) => completions.some(isRefused));
  }

  get isDisconnected(): boolean {
    return this.connections.some(({ events, completions }) => {
      const isFailed = completions.some(({ status }) => status !== WC_STATUS.SUCCESS);
      return isFailed || events.some(({ type }) => type === "DISCONNECTED");
    });
  }

  override pump(nowNs: number): void {
    super.pump(nowNs);
    const connection = this.connections[1];
    if (connection === undefined) return;
    for (; this.seen < connection.completions.length; this.seen++) {
      this.onCompletion(connection, connection.completions[this.seen] as WorkCompletion);
    }
  }

  private onCompletion(connection: RawConnection, wc: WorkCompletion): void {
    if (wc.status !== WC_STATUS.SUCCESS || wc.opcode < 128) return;
    if (wc.immediate >>> 28 > 2 || wc.immediate >>> 28 === 0) return;
    const chunk = rtrsReplyMessageId(wc.immediate);
    if (wc.byteLength === 8) {
      const key = rtrsRkeyResponseKey(this.memory.view, RECEIVES_AT + wc.wrId * RECEIVE_BYTES);
      const chunks = [...this.chunks];
      chunks[chunk] = { ...(chunks[chunk] as RtrsDescriptor), rkey: key };
      this.chunks = chunks;
    }
    this.replies.set(chunk, rtrsReplyErrno(wc.immediate));
    this.postReceives(connection, 1, wc.wrId);
  }

  /** Sends a request; the reply will be in `replies`. */
  post(o: Request): number {
    const { chunk = 0, user, data, readBytes, lies = {} } = o;
    const sent = data ?? new Uint8Array(0);
    const dataBytes = readBytes ?? sent.length + (o.withheldBytes ?? 0);
    const header = readBytes === undefined ? writeHeader(user, lies) : this.readHeader(o);
    const bytes = new Uint8Array([...sent, ...user, ...header]);
    const at = lies.at ?? dataBytes - sent.length;
    const headerOffset = lies.headerOffset ?? dataBytes + user.length;
    this.replies.delete(chunk);
    this.request(chunk, bytes, at, headerOffset, (wr) => {
      const named = lies.chunkInImmediate ?? chunk;
      wr.immediate =
        lies.immediate ?? rtrsRequestImmediate(named, headerOffset, rtrsChunkShift(RAW_DEPTH));
      lies.change?.(wr);
    });
    return chunk;
  }

  private readHeader({ user, readBytes = 0, lies = {} }: Request): Uint8Array {
    const bytes = new Uint8Array(24);
    const view = new DataView(bytes.buffer);
    const count = lies.segmentCount ?? 1;
    writeRtrsReadHeader(view, 0, lies.userLength ?? user.length, lies.flags ?? 0, count);
    if (lies.type !== undefined) view.setUint16(0, lies.type, true);
    const { address } = this.buffer;
    const truth = {
      addressHigh: Math.floor(address / 0x1_0000_0000),
      addressLow: address >>> 0,
      rkey: this.bufferRegion.rkey,
      length: Math.max(1, readBytes),
    };
    const { addressHigh, addressLow, rkey, length } = { ...truth, ...lies.descriptor };
    writeRtrsDescriptor(view, 8, addressHigh, addressLow, rkey, length);
    return bytes;
  }
}

function writeHeader(user: Uint8Array, lies: Lies): Uint8Array {
  const bytes = new Uint8Array(4);
  const view = new DataView(bytes.buffer);
  writeRtrsWriteHeader(view, 0, lies.userLength ?? user.length);
  if (lies.type !== undefined) view.setUint16(0, lies.type, true);
  return bytes;
}

function message(length: number, write: (view: DataView) => void): Uint8Array {
  const bytes = new Uint8Array(length);
  write(new DataView(bytes.buffer));
  return bytes;
}

/** RNBD messages, as bytes to lie in. */
export const rnbd = {
  sessInfo: () => message(RNBD_SESS_INFO_BYTES, (view) => writeRnbdSessInfo(view, 0, 2)),
  open: (name: string, access: number) =>
    message(RNBD_OPEN_BYTES, (view) => writeRnbdOpen(view, 0, access as RnbdAccess, name)),
  close: (id: number) => message(RNBD_CLOSE_BYTES, (view) => writeRnbdClose(view, 0, id)),
  io: (id: number, operation: number, sectorLow: number, bytes: number, sectorHigh = 0) =>
    message(RNBD_IO_BYTES, (view) =>
      writeRnbdIo(view, 0, id, sectorHigh, sectorLow, operation, bytes),
    ),
  openResponseBytes: RNBD_OPEN_RSP_BYTES,
  openId: (attacker: Attacker) => {
    const response = readRnbdOpenResponse(attacker.buffer.view, 0);
    if (response === null) throw new Error("the server has sent an OPEN_RSP");
    return response.deviceId;
  },
};

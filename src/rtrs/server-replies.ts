// SPDX-License-Identifier: MIT
// How a server path answers (facts page, section 7.5): the data of a read, the invalidation that
// the client asked for, the reply itself. A reply that finds no room in the send queue waits.

import { IntRing } from "../base/index.js";
import { SendWorkRequest, WR_OPCODE } from "../verbs/index.js";
import { RTRS_IMMEDIATE, RTRS_RKEY_RESPONSE_BYTES, rtrsReplyImmediate } from "../wire/index.js";
import type { Connection } from "./connection.js";
import { CHUNK_STATE, type ServerChunks } from "./server-chunks.js";

/** Most sends of one reply: data, SEND with invalidate, reply. */
const REPLY_SENDS_MAX = 3;

export class ServerReplies {
  private readonly chunks: ServerChunks;
  private readonly rotates: boolean;
  /** Chunks in state BLOCKED, oldest first. */
  private readonly blocked: IntRing;
  private readonly dataWr = new SendWorkRequest();
  private readonly invalidateWr = new SendWorkRequest();
  private readonly rotatingReplyWr = new SendWorkRequest();
  private readonly fixedReplyWr = new SendWorkRequest();

  constructor(chunks: ServerChunks, rotates: boolean) {
    this.chunks = chunks;
    this.rotates = rotates;
    this.blocked = new IntRing(chunks.count);
    this.dataWr.opcode = WR_OPCODE.RDMA_WRITE;
    this.invalidateWr.opcode = WR_OPCODE.SEND_WITH_INV;
    this.rotatingReplyWr.opcode = WR_OPCODE.SEND_WITH_IMM;
    this.fixedReplyWr.opcode = WR_OPCODE.RDMA_WRITE_WITH_IMM;
  }

  /**
   * Sends the reply that stands in the chunk's fields, now or when there is room.
   * @returns false when the connection takes no more: it is in ERR.
   */
  send(chunk: number): boolean {
    const { chunks } = this;
    const connection = chunks.connections[chunk] as Connection;
    if (!connection.hasRoom(REPLY_SENDS_MAX)) {
      chunks.states[chunk] = CHUNK_STATE.BLOCKED;
      this.blocked.push(chunk);
      return true;
    }
    // From the reply on the chunk is the client's, which may use it before this call returns.
    chunks.release(chunk);
    return (
      this.sendData(chunk, connection) &&
      this.sendInvalidation(chunk, connection) &&
      this.sendFinal(chunk, connection)
    );
  }

  /** There is room again. @returns false when a connection takes no more. */
  sendBlocked(): boolean {
    let isSent = true;
    for (let count = this.blocked.count; count > 0; count--) {
      if (!this.send(this.blocked.shift())) isSent = false;
    }
    return isSent;
  }

  /** Nobody is there any more to hear what waits. */
  drop(): void {
    while (this.blocked.count > 0) this.chunks.release(this.blocked.shift());
  }

  private sendData(chunk: number, connection: Connection): boolean {
    const { chunks } = this;
    const length = chunks.replyDataLength(chunk);
    if (length === 0) return true;
    const wr = this.dataWr;
    const sge = wr.sges[0] as (typeof wr.sges)[number];
    sge.address = chunks.replyAddress(chunk);
    sge.length = length;
    sge.lkey = chunks.replyKey(chunk);
    wr.sgeCount = 1;
    wr.remoteAddressHigh = chunks.clientAddressHighs[chunk] as number;
    wr.remoteAddressLow = chunks.clientAddressLows[chunk] as number;
    wr.rkey = chunks.clientKeys[chunk] as number;
    return connection.post(wr);
  }

  private sendInvalidation(chunk: number, connection: Connection): boolean {
    if (!this.invalidatesFor(chunk)) return true;
    this.invalidateWr.invalidateKey = this.chunks.clientKeys[chunk] as number;
    return connection.post(this.invalidateWr);
  }

  private invalidatesFor(chunk: number): boolean {
    return this.chunks.hasDescriptor[chunk] !== 0 && this.chunks.needsInvalidation[chunk] !== 0;
  }

  private sendFinal(chunk: number, connection: Connection): boolean {
    const type = this.invalidatesFor(chunk)
      ? RTRS_IMMEDIATE.IO_REPLY_INVALIDATED
      : RTRS_IMMEDIATE.IO_REPLY;
    const immediate = rtrsReplyImmediate(type, this.chunks.replyErrnos[chunk] as number, chunk);
    if (!this.rotates) {
      this.fixedReplyWr.immediate = immediate;
      return connection.post(this.fixedReplyWr);
    }
    const wr = this.rotatingReplyWr;
    wr.immediate = immediate;
    const sge = wr.sges[0] as (typeof wr.sges)[number];
    sge.address = this.chunks.reopen(chunk);
    sge.length = RTRS_RKEY_RESPONSE_BYTES;
    sge.lkey = this.chunks.messages.region.lkey;
    wr.sgeCount = 1;
    return connection.post(wr);
  }
}

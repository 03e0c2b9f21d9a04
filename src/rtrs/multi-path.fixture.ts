// SPDX-License-Identifier: MIT
// A client with several paths in one session, by hand: it keeps the rules of Linux's client (facts
// page, section 11). Permits are the session's, and a request whose path is lost is sent again by
// another path under its permit.

import type { CmEvent } from "../cm/index.js";
import {
  QP_STATE,
  RecvWorkRequest,
  SEND_FLAG,
  SendWorkRequest,
  WC_STATUS,
  WR_OPCODE,
} from "../verbs/index.js";
import {
  RTRS_IMMEDIATE,
  RTRS_WRITE_HEADER_BYTES,
  type RtrsDescriptor,
  rtrsChunkShift,
  rtrsImmediateType,
  rtrsReplyErrno,
  rtrsReplyMessageId,
  rtrsRequestImmediate,
  rtrsRkeyResponseKey,
  writeRtrsWriteHeader,
} from "../wire/index.js";
import type { Pipe, TestHost } from "./pair.fixture.js";
import { RAW_DEPTH, RawClient, type RawConnection } from "./raw.fixture.js";

const SLOT_BYTES = 64;
const DATA_BYTES = 8;
const USER_BYTES = 4;

/** A reply: the permit and the errno. */
export type OnReply = (permit: number, errno: number) => void;

/** One incarnation of one path: two connections between two addresses. */
export class RawPath extends RawClient {
  isCut = false;
  /** Reports replies as they come in `pump`. */
  onReply: OnReply = () => {};
  private readonly keys: number[] = [];
  private seenCount = 0;

  /** The connection that carries requests. */
  get io(): RawConnection {
    return this.connectionAt(1);
  }

  /** Whether the transport has failed a work request of it. */
  get isBroken(): boolean {
    return this.connections.some(({ completions }) =>
      completions.some((completion) => completion.status !== WC_STATUS.SUCCESS),
    );
  }

  /** After `takeInfo`: requests may be sent. */
  begin(): void {
    this.keys.push(...this.chunks.map((chunk) => chunk.rkey));
    this.seenCount = this.io.completions.length;
  }

  /** Sends a write of 8 bytes of `value` to `block` under `permit`. */
  write(permit: number, block: number, value: number): void {
    const at = permit * SLOT_BYTES;
    const headerAt = DATA_BYTES + USER_BYTES;
    const { view } = this.memory;
    view.setUint32(at, value, true);
    view.setUint32(at + 4, ~value >>> 0, true);
    view.setUint32(at + DATA_BYTES, block, true);
    writeRtrsWriteHeader(view, at + headerAt, USER_BYTES);
    const region = this.chunks[permit] as RtrsDescriptor;
    const wr = new SendWorkRequest();
    const sge = wr.sges[0] as (typeof wr.sges)[number];
    sge.address = this.memory.address + at;
    sge.length = headerAt + RTRS_WRITE_HEADER_BYTES;
    sge.lkey = this.region.lkey;
    wr.sgeCount = 1;
    wr.opcode = WR_OPCODE.RDMA_WRITE_WITH_IMM;
    wr.sendFlags = SEND_FLAG.SIGNALED;
    wr.remoteAddressHigh = region.addressHigh;
    wr.remoteAddressLow = region.addressLow;
    wr.rkey = this.keys[permit] as number;
    wr.immediate = rtrsRequestImmediate(permit, headerAt, rtrsChunkShift(RAW_DEPTH));
    // A path that is broken takes nothing; its requests are then sent again like the others.
    this.io.qp.tryPostSend(wr);
  }

  /** The client gives the path up: nothing is sent or taken any more, and nobody is told. */
  cut(): void {
    for (const { qp } of this.connections) qp.modifyQp({ state: QP_STATE.ERR });
    this.isCut = true;
  }

  /** After `cut`: the CM says goodbye, and nothing is left of the path. */
  end(): void {
    this.channel.close();
    const { machines } = this.host;
    machines.splice(machines.indexOf(this), 1);
  }

  override pump(nowNs: number): void {
    super.pump(nowNs);
    if (this.keys.length === 0 || this.isCut) return;
    const { completions } = this.io;
    for (; this.seenCount < completions.length; this.seenCount++) {
      const completion = completions[this.seenCount];
      if (completion === undefined || completion.status !== WC_STATUS.SUCCESS) continue;
      if (completion.opcode < 128) continue;
      const at = 32_768 + completion.wrId * 1024;
      if (rtrsImmediateType(completion.immediate) === RTRS_IMMEDIATE.IO_REPLY) {
        const permit = rtrsReplyMessageId(completion.immediate);
        this.keys[permit] = rtrsRkeyResponseKey(this.memory.view, at);
        this.repost(completion.wrId);
        this.onReply(permit, rtrsReplyErrno(completion.immediate));
      }
    }
  }

  private repost(wrId: number): void {
    const wr = new RecvWorkRequest();
    const sge = wr.sges[0] as (typeof wr.sges)[number];
    sge.address = this.memory.address + 32_768 + wrId * 1024;
    sge.length = 1024;
    sge.lkey = this.region.lkey;
    wr.sgeCount = 1;
    wr.wrId = wrId;
    this.io.qp.tryPostRecv(wr);
  }
}

/** Who connects, and as what. */
export interface RawPathIdentity {
  readonly server: TestHost;
  /** Tells the UUIDs of session and path from those of others, 0 .. 255. */
  readonly session: number;
  readonly path: number;
  readonly attempt: number;
}

/**
 * Connects a path from `host`, as far as the server lets it.
 * @returns the path, ready for requests, or what the server did not like.
 */
export function connectPath(
  pipe: Pipe,
  host: TestHost,
  { server, session, path: tag, attempt }: RawPathIdentity,
): RawPath | CmEvent {
  const path = new RawPath(host, server, session);
  for (let cid = 0; cid < 2; cid++) {
    const connection = path.ask({
      connectionId: cid,
      reconnectCount: attempt,
      pathUuid: new Uint8Array(16).fill(tag),
      firstConnection: true,
    });
    pipe.until(() => connection.events.length > 0, "the server answers");
    const event = connection.events[0] as CmEvent;
    if (event.type !== "ESTABLISHED") {
      path.end();
      return event;
    }
  }
  path.askInfo();
  const hasInfo = () => path.connectionAt(0).completions.some(({ opcode }) => opcode >= 128);
  const isRefused = () => path.connectionAt(0).events.length > 1;
  pipe.until(() => hasInfo() || isRefused(), "the server answers INFO_REQ");
  if (!hasInfo()) {
    const event = path.connectionAt(0).events[1] as CmEvent;
    path.end();
    return event;
  }
  path.takeInfo();
  path.begin();
  return path;
}

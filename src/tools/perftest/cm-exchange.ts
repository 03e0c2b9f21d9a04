// SPDX-License-Identifier: MIT
// perftest's conversation with -R: SENDs on an RC connection of its own, beside the one under test.

import { FarpageError } from "../../runtime/index.js";
import {
  type ProtectionDomain,
  type QueuePair,
  RecvWorkRequest,
  SEND_FLAG,
  SendWorkRequest,
  WC_STATUS,
} from "../../verbs/index.js";
import { Area } from "../area.js";
import { CompletionReader, completionFailure } from "../completions.js";
import type { ToolEnvironment } from "../environment.js";
import { hangUp, type PerfLink, type QpMaker } from "./cm-links.js";
import { Exchange } from "./exchange.js";
import {
  decodePlaceBinary,
  encodePlaceBinary,
  PLACE_BINARY_BYTES,
  type Place,
} from "./messages.js";

/** Messages are short and answered one by one; a few receives are plenty. */
const SLOT_BYTES = 64;
const RECEIVES = 4;
/** What is said, and behind it each receive's slot. */
const AREA_BYTES = (RECEIVES + 1) * SLOT_BYTES;
const LEAVE_GRACE_MS = 1_000;

/** This side's half of a conversation: memory, queues, and the queue pair when it is wanted. */
export class CmExchangeEnd implements QpMaker {
  readonly reader: CompletionReader;
  readonly sends: CompletionReader;
  readonly area: Area;
  private readonly pd: ProtectionDomain;
  private readonly queues;

  constructor(environment: ToolEnvironment, pd: ProtectionDomain) {
    this.pd = pd;
    const sendCq = pd.context.createCq({ depth: 8 });
    const recvCq = pd.context.createCq({ depth: 2 * RECEIVES });
    this.queues = { sendCq, recvCq, maxSendWr: 4, maxRecvWr: RECEIVES };
    this.sends = new CompletionReader(environment, sendCq);
    this.reader = new CompletionReader(environment, recvCq);
    this.area = new Area(environment, pd, AREA_BYTES);
  }

  createQp(): QueuePair {
    return this.pd.createQp({ type: "RC", ...this.queues });
  }

  prepare(qp: QueuePair): void {
    for (let slot = 1; slot <= RECEIVES; slot++) this.postReceive(qp, slot);
  }

  /** All that a peer has said before its goodbye is here; acknowledgements may come a bit later. */
  onGone(): void {
    this.reader.fail(lostConnection());
    setTimeout(() => this.sends.fail(lostConnection()), LEAVE_GRACE_MS).unref();
  }

  postReceive(qp: QueuePair, slot: number): void {
    const wr = new RecvWorkRequest();
    wr.wrId = slot;
    wr.sgeCount = 1;
    const { mr } = this.area;
    const entry = { address: mr.address + slot * SLOT_BYTES, length: SLOT_BYTES };
    Object.assign(wr.sges[0] ?? {}, { ...entry, lkey: mr.lkey });
    qp.postRecv(wr);
  }
}

/** A conversation over a connection that is up. */
export class CmExchange extends Exchange {
  readonly remoteAddress: string;
  readonly lost: Promise<FarpageError>;
  protected readonly placeBytes = PLACE_BINARY_BYTES;
  private readonly link: PerfLink;
  private readonly end: CmExchangeEnd;
  private readonly wr = new SendWorkRequest();

  constructor(link: PerfLink, end: CmExchangeEnd, isClient: boolean) {
    super(isClient);
    this.link = link;
    this.end = end;
    this.remoteAddress = String(link.id.remoteAddress);
    this.lost = link.over.then(lostConnection, lostConnection);
  }

  /** Whatever this side said last has been acknowledged. */
  async finish(): Promise<void> {
    await hangUp(this.link);
  }

  async leave(): Promise<void> {
    await this.finish();
  }

  close(): void {
    this.link.destroy();
    this.end.area.free();
  }

  protected encodePlace(place: Place): Uint8Array {
    return encodePlaceBinary(place);
  }

  protected decodePlace(bytes: Uint8Array): Place {
    return decodePlaceBinary(bytes);
  }

  protected async tell(bytes: Uint8Array): Promise<void> {
    const { area, sends } = this.end;
    const { mr } = area;
    area.bytes.set(bytes, 0);
    this.wr.sendFlags = SEND_FLAG.SIGNALED;
    this.wr.sgeCount = 1;
    const entry = { address: mr.address, length: bytes.length, lkey: mr.lkey };
    Object.assign(this.wr.sges[0] ?? {}, entry);
    this.link.queues.qp.postSend(this.wr);
    const wc = await sends.next();
    if (wc.status !== WC_STATUS.SUCCESS) throw completionFailure(wc, "a message to the peer");
  }

  protected async hear(length: number, timeoutMs: number): Promise<Uint8Array> {
    const { reader, area } = this.end;
    const wc = await reader.next(Number.isFinite(timeoutMs) ? { timeoutMs } : {});
    if (wc.status === WC_STATUS.WR_FLUSH_ERR) throw lostConnection();
    if (wc.status !== WC_STATUS.SUCCESS) throw completionFailure(wc, "a message of the peer");
    const { byteLength, wrId } = wc;
    if (byteLength !== length) {
      throw new FarpageError(
        "EPROTO",
        `the peer says ${byteLength} bytes where perftest says ${length}; is it the same test?`,
      );
    }
    const bytes = area.bytes.slice(wrId * SLOT_BYTES, wrId * SLOT_BYTES + length);
    this.end.postReceive(this.link.queues.qp, wrId);
    return bytes;
  }
}

function lostConnection(): FarpageError {
  return new FarpageError("ECONNRESET", "the peer closed the connection");
}

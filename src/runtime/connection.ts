// SPDX-License-Identifier: MIT
// A reliable connection for people who like promises: thin over a queue pair, its completion queue
// and its CM id, which are all there to be used directly. The one place where completions become
// promises.

import {
  assert,
  ERRNO,
  errnoName,
  FarpageError,
  highOf,
  lowOf,
  type Machine,
} from "../base/index.js";
import { type CmId, rejReasonName } from "../cm/index.js";
import {
  type CompletionQueue,
  type MemoryRegion,
  type ProtectionDomain,
  type QueuePair,
  RecvWorkRequest,
  SEND_FLAG,
  SendWorkRequest,
  WC_FLAG,
  WC_OPCODE,
  WC_STATUS,
  WorkCompletion,
  WR_OPCODE,
  type WrOpcode,
} from "../verbs/index.js";
import {
  checkBigint,
  checkImmediate,
  checkObject,
  checkPlace,
  checkRegion,
  checkWhole,
} from "./check-options.js";

/** A range of registered local memory; the whole region by default. */
export interface LocalRange {
  readonly mr: MemoryRegion;
  /** Bytes from the region's start, default 0. */
  readonly offset?: number;
  /** Default: to the region's end. */
  readonly length?: number;
}

/**
 * A place in the peer's memory: any 64-bit address (a number below 2^53, or a bigint), and its key.
 */
export interface RemotePlace {
  readonly address: number | bigint;
  readonly rkey: number;
}

/** What a receive brought. */
export interface ReceivedMessage {
  /** Bytes of the message; they are at the start of the range given to `receive`. */
  readonly length: number;
  /** The sender's immediate, or null. */
  readonly immediate: number | null;
  /** Whether it was an RDMA WRITE with immediate: then `length` bytes were written elsewhere. */
  readonly isWrite: boolean;
}

/** Sizes of a connection's queues. */
export interface QueueSizes {
  /** Sends under way at most, default 128. */
  readonly sendDepth?: number;
  /** Receives posted at most, default 128. */
  readonly receiveDepth?: number;
}

/** What a connection asks of the host that made it. */
export interface ConnectionOwner {
  /** Something was posted. */
  wake(): void;
  /** A promise was settled. */
  onSettled(): void;
  /** The connection is over: it is no machine of the lane any more. */
  detach(connection: Connection): void;
}

interface Waiter {
  readonly resolve: (completion: WorkCompletion) => void;
  readonly reject: (error: FarpageError) => void;
}

const POLL_BATCH = 32;
const STATUS_NAMES = new Map<number, string>(
  Object.entries(WC_STATUS).map(([name, value]) => [value, name]),
);

/** Makes the queue pair of a connection and its completion queue, in `pd`. */
export function createQueues(
  pd: ProtectionDomain,
  sizes: QueueSizes,
): { readonly qp: QueuePair; readonly cq: CompletionQueue } {
  const sendDepth = sizes.sendDepth ?? 128;
  const receiveDepth = sizes.receiveDepth ?? 128;
  const cq = pd.context.createCq({ depth: sendDepth + receiveDepth });
  try {
    const qp = pd.createQp({
      type: "RC",
      sendCq: cq,
      recvCq: cq,
      maxSendWr: sendDepth,
      maxRecvWr: receiveDepth,
    });
    return { qp, cq };
  } catch (error) {
    cq.destroy();
    throw error;
  }
}

/** A connected queue pair. Made by `Host.connect` and `ConnectionRequest.accept`. */
export class Connection implements Machine, AsyncDisposable {
  /** The verbs objects beneath; posting on `qp` directly and using the calls below don't mix. */
  readonly qp: QueuePair;
  readonly id: CmId;
  /** The peer's private data of the handshake, zero padded. */
  readonly privateData: Uint8Array;
  /** Settles when the connection is over, whoever ended it. */
  readonly closed: Promise<void>;

  private readonly cq: CompletionQueue;
  private readonly owner: ConnectionOwner;
  private readonly sends = new Map<number, Waiter>();
  private readonly receives = new Map<number, Waiter>();
  private readonly sendRequest = new SendWorkRequest();
  private readonly recvRequest = new RecvWorkRequest();
  private readonly completions = Array.from({ length: POLL_BATCH }, () => new WorkCompletion());
  private nextWrId = 1;
  private over = false;
  private settleClosed: () => void = () => {};

  /** @internal */
  constructor(options: {
    readonly qp: QueuePair;
    readonly cq: CompletionQueue;
    readonly id: CmId;
    readonly privateData: Uint8Array;
    readonly owner: ConnectionOwner;
  }) {
    this.qp = options.qp;
    this.cq = options.cq;
    this.id = options.id;
    this.privateData = options.privateData;
    this.owner = options.owner;
    this.closed = new Promise((resolve) => {
      this.settleClosed = resolve;
    });
  }

  /**
   * RDMA WRITE: copies `from` into the peer's memory.
   * @returns when the peer's device has acknowledged it.
   * @throws FarpageError with a completion status as code (`"REM_ACCESS_ERR"`: the key, the range
   *   or the rights are wrong), or EINVAL, ENOMEM when it could not be posted.
   */
  async write(options: {
    readonly from: LocalRange | MemoryRegion;
    readonly to: RemotePlace;
    /** Completes a receive of the peer, who gets this number. */
    readonly immediate?: number;
  }): Promise<void> {
    checkObject("options", options);
    const { immediate } = options;
    if (immediate !== undefined) checkImmediate("immediate", immediate);
    const opcode = immediate === undefined ? WR_OPCODE.RDMA_WRITE : WR_OPCODE.RDMA_WRITE_WITH_IMM;
    this.fillRemote(opcode, options.from, options.to);
    this.sendRequest.immediate = (immediate ?? 0) >>> 0;
    await this.submit();
  }

  /** RDMA READ: copies the peer's memory into `into`. Errors as for `write`. */
  async read(options: {
    readonly into: LocalRange | MemoryRegion;
    readonly from: RemotePlace;
  }): Promise<void> {
    checkObject("options", options);
    this.fillRemote(WR_OPCODE.RDMA_READ, options.into, options.from);
    await this.submit();
  }

  /** SEND: the bytes land in the receive that the peer has posted. Errors as for `write`. */
  async send(
    from: LocalRange | MemoryRegion,
    options: { readonly immediate?: number } = {},
  ): Promise<void> {
    checkObject("options", options);
    const { immediate } = options;
    if (immediate !== undefined) checkImmediate("immediate", immediate);
    this.fillLocal(immediate === undefined ? WR_OPCODE.SEND : WR_OPCODE.SEND_WITH_IMM, from);
    this.sendRequest.immediate = (immediate ?? 0) >>> 0;
    await this.submit();
  }

  /**
   * Atomically adds to the 8-byte number at `at`, which must be 8-byte aligned. The number before
   * lands in `before`, 8 bytes of local memory, in this host's byte order.
   */
  async fetchAndAdd(options: {
    readonly at: RemotePlace;
    readonly add: bigint;
    readonly before: LocalRange | MemoryRegion;
  }): Promise<void> {
    checkObject("options", options);
    checkBigint("add", options.add);
    const add = BigInt.asUintN(64, options.add);
    this.fillRemote(WR_OPCODE.ATOMIC_FETCH_AND_ADD, options.before, options.at);
    this.sendRequest.compareAddHigh = Number(add >> 32n);
    this.sendRequest.compareAddLow = Number(add & 0xffffffffn);
    await this.submit();
  }

  /**
   * Atomically replaces the 8-byte number at `at` by `swap` where it equals `compare`. `before` as
   * for `fetchAndAdd`: it tells whether the swap took place.
   */
  async compareAndSwap(options: {
    readonly at: RemotePlace;
    readonly compare: bigint;
    readonly swap: bigint;
    readonly before: LocalRange | MemoryRegion;
  }): Promise<void> {
    checkObject("options", options);
    checkBigint("compare", options.compare);
    checkBigint("swap", options.swap);
    const compare = BigInt.asUintN(64, options.compare);
    const swap = BigInt.asUintN(64, options.swap);
    this.fillRemote(WR_OPCODE.ATOMIC_CMP_AND_SWP, options.before, options.at);
    this.sendRequest.compareAddHigh = Number(compare >> 32n);
    this.sendRequest.compareAddLow = Number(compare & 0xffffffffn);
    this.sendRequest.swapHigh = Number(swap >> 32n);
    this.sendRequest.swapLow = Number(swap & 0xffffffffn);
    await this.submit();
  }

  /**
   * Posts a receive at once; several may wait, and messages fill them in the order of the calls.
   * @returns when a message of the peer has landed in `into`. Errors as for `write`.
   */
  async receive(into: LocalRange | MemoryRegion): Promise<ReceivedMessage> {
    this.assertOpen();
    const wr = this.recvRequest;
    wr.wrId = this.nextWrId++;
    wr.sgeCount = 1;
    fillEntry(wr.sges[0], into);
    this.qp.postRecv(wr);
    const wc = await this.waitFor(this.receives, wr.wrId);
    return {
      length: wc.byteLength,
      immediate: (wc.flags & WC_FLAG.WITH_IMM) !== 0 ? wc.immediate : null,
      isWrite: wc.opcode === WC_OPCODE.RECV_RDMA_WITH_IMM,
    };
  }

  /** Ends the connection and frees its queue pair; what was under way fails with WR_FLUSH_ERR. */
  async close(): Promise<void> {
    if (!this.over) {
      this.id.disconnect();
      this.owner.wake();
    }
    await this.closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** @internal The CM said that it is over, or nobody is there any more to say so. */
  end(): void {
    if (this.over) return;
    this.over = true;
    this.pump();
    this.owner.detach(this);
    this.id.destroy();
    this.qp.destroy();
    this.cq.destroy();
    const flushed = new FarpageError("WR_FLUSH_ERR", "the connection is closed");
    for (const waiters of [this.sends, this.receives]) {
      for (const waiter of waiters.values()) waiter.reject(flushed);
      waiters.clear();
    }
    this.settleClosed();
    this.owner.onSettled();
  }

  pump(): void {
    // Its uverbs file was closed, as when its process ended: the peer is told.
    if (!this.qp.isOpen) this.end();
    for (;;) {
      const count = this.cq.pollCq(this.completions);
      for (let i = 0; i < count; i++) this.settle(this.completions[i] as WorkCompletion);
      if (count < POLL_BATCH) return;
    }
  }

  /** Completions also come while the device sends, after this machine has had its turn. */
  deadlineNs(): number {
    return this.cq.count > 0 ? 0 : Number.POSITIVE_INFINITY;
  }

  checkInvariants(): void {
    assert(!this.over || this.sends.size + this.receives.size === 0, "no waiter outlives it");
  }

  private settle(wc: WorkCompletion): void {
    const waiters = this.sends.has(wc.wrId) ? this.sends : this.receives;
    const waiter = waiters.get(wc.wrId);
    if (waiter === undefined) return;
    waiters.delete(wc.wrId);
    this.owner.onSettled();
    if (wc.status === WC_STATUS.SUCCESS) waiter.resolve(Object.assign(new WorkCompletion(), wc));
    else {
      waiter.reject(completionError(wc));
      // The queue pair is in its error state now: the connection is over, tell the peer.
      this.id.disconnect();
    }
  }

  private assertOpen(): void {
    if (this.over) throw new FarpageError("ENOTCONN", "the connection is closed");
  }

  private fillLocal(opcode: WrOpcode, local: LocalRange | MemoryRegion): void {
    this.assertOpen();
    const wr = this.sendRequest;
    wr.opcode = opcode;
    wr.sendFlags = SEND_FLAG.SIGNALED;
    wr.sgeCount = 1;
    fillEntry(wr.sges[0], local);
  }

  private fillRemote(
    opcode: WrOpcode,
    local: LocalRange | MemoryRegion,
    remote: RemotePlace,
  ): void {
    checkPlace("remote", remote);
    this.fillLocal(opcode, local);
    const wr = this.sendRequest;
    if (typeof remote.address === "bigint") {
      const address = BigInt.asUintN(64, remote.address);
      wr.remoteAddressHigh = Number(address >> 32n);
      wr.remoteAddressLow = Number(address & 0xffffffffn);
    } else {
      wr.remoteAddressHigh = highOf(remote.address);
      wr.remoteAddressLow = lowOf(remote.address);
    }
    wr.rkey = remote.rkey;
  }

  private submit(): Promise<WorkCompletion> {
    const wr = this.sendRequest;
    wr.wrId = this.nextWrId++;
    this.qp.postSend(wr);
    return this.waitFor(this.sends, wr.wrId);
  }

  private waitFor(waiters: Map<number, Waiter>, wrId: number): Promise<WorkCompletion> {
    return new Promise((resolve, reject) => {
      waiters.set(wrId, { resolve, reject });
      this.owner.wake();
    });
  }
}

function fillEntry(
  entry: { address: number; length: number; lkey: number } | undefined,
  local: LocalRange | MemoryRegion,
): void {
  assert(entry !== undefined, "a work request has room for one entry");
  checkObject("local", local);
  const range: LocalRange = "mr" in local ? local : { mr: local };
  checkRegion("local.mr", range.mr);
  const offset = range.offset ?? 0;
  checkWhole("local.offset", offset, 0, Number.MAX_SAFE_INTEGER);
  const length = range.length ?? range.mr.length - offset;
  if (range.length !== undefined) {
    checkWhole("local.length", length, 0, Number.MAX_SAFE_INTEGER);
  }
  if (length < 0 || offset + length > range.mr.length) {
    throw new FarpageError(
      "EINVAL",
      `bytes ${offset} to ${offset + length} are not inside a region of ${range.mr.length} bytes`,
    );
  }
  entry.address = range.mr.address + offset;
  entry.length = length;
  entry.lkey = range.mr.lkey;
}

function completionError(wc: WorkCompletion): FarpageError {
  const name = STATUS_NAMES.get(wc.status) ?? `status ${wc.status}`;
  return new FarpageError(name, `the work request failed: ${name}`);
}

/** REJ reasons that a user meets. */
const REJ_MEANINGS: Readonly<Record<number, string>> = {
  8: "nobody listens on that port",
  28: "the program there refuses it",
};

/**
 * The error for a CM event that ended an attempt to connect.
 * @param type the event's: REJECTED, UNREACHABLE, CONNECT_ERROR or DISCONNECTED.
 * @param peer the peer's address and port, for the message.
 */
export function connectError(type: string, status: number, peer: string): FarpageError {
  if (type === "REJECTED") {
    const reason = REJ_MEANINGS[status] ?? rejReasonName(status);
    return new FarpageError("ECONNREFUSED", `${peer} rejected the connection: ${reason}`);
  }
  if (type === "UNREACHABLE") {
    return new FarpageError("ETIMEDOUT", `${peer} does not answer; is a server running there?`);
  }
  const name = errnoName(status === 0 ? ERRNO.EIO : status);
  return new FarpageError(name, `connecting to ${peer} failed: ${name}`);
}

// SPDX-License-Identifier: MIT
// A tool's registered memory, and the work requests that move it.

import type { Memory } from "../runtime/index.js";
import {
  ACCESS,
  type Destination,
  type MemoryRegion,
  type ProtectionDomain,
  type QueuePair,
  RecvWorkRequest,
  SEND_FLAG,
  SendWorkRequest,
  WR_OPCODE,
} from "../verbs/index.js";
import type { ToolEnvironment } from "./environment.js";

/** Registered memory that can be given back. Where nothing is said, peers have no rights to it. */
export class Area implements Disposable {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly mr: MemoryRegion;
  private readonly environment: ToolEnvironment;
  private readonly memory: Memory;

  constructor(
    environment: ToolEnvironment,
    pd: ProtectionDomain,
    length: number,
    access: number = ACCESS.LOCAL_WRITE,
  ) {
    this.environment = environment;
    // A message may have no bytes, memory can't.
    this.memory = environment.host.map({ length: Math.max(1, length) });
    this.bytes = this.memory.bytes;
    this.view = this.memory.view;
    try {
      this.mr = pd.registerMr(this.memory, { access });
    } catch (error) {
      this.environment.host.stack.memory.free(this.memory);
      throw error;
    }
  }

  /** Deregisters and frees it. Preconditions: no request names it any more. */
  free(): void {
    if (!this.mr.isOpen) return;
    this.mr.deregister();
    this.environment.host.stack.memory.free(this.memory);
  }

  [Symbol.dispose](): void {
    this.free();
  }
}

/** A range of an area, and what the completion will say. */
export interface Piece {
  readonly area: Area;
  /** Default 0. */
  readonly offset?: number;
  readonly length: number;
  readonly wrId: number;
}

/** Where an RDMA READ or WRITE goes: an address in two halves, and its key. */
export interface Place {
  readonly addressHigh: number;
  readonly addressLow: number;
  readonly rkey: number;
}

/** Who gets a datagram. */
export interface Recipient {
  readonly destination: Destination;
  readonly qpn: number;
  readonly qkey: number;
}

/** Posts on one queue pair, with requests that it keeps and reuses. Everything is signalled. */
export class Poster {
  private readonly qp: QueuePair;
  private readonly sendRequest = new SendWorkRequest();
  private readonly recvRequest = new RecvWorkRequest();

  constructor(qp: QueuePair) {
    this.qp = qp;
  }

  /** @throws FarpageError ENOMEM when the queue is full, EINVAL. */
  receive(piece: Piece): void {
    fill(this.recvRequest, piece);
    this.qp.postRecv(this.recvRequest);
  }

  /**
   * SEND, with an immediate where there is one; `to` for datagrams.
   * @throws FarpageError ENOMEM, EINVAL.
   */
  send(piece: Piece, options: { readonly immediate?: number; readonly to?: Recipient } = {}): void {
    const { immediate, to } = options;
    const wr = this.sendRequest;
    fill(wr, piece);
    wr.opcode = immediate === undefined ? WR_OPCODE.SEND : WR_OPCODE.SEND_WITH_IMM;
    wr.immediate = (immediate ?? 0) >>> 0;
    wr.destination = to?.destination ?? null;
    wr.remoteQpn = to?.qpn ?? 0;
    wr.remoteQkey = to?.qkey ?? 0;
    this.postSend();
  }

  /** RDMA READ of `from` into the piece. @throws FarpageError ENOMEM, EINVAL. */
  read(piece: Piece, from: Place): void {
    this.remote(WR_OPCODE.RDMA_READ, piece, from);
  }

  /** RDMA WRITE of the piece to `to`. @throws FarpageError ENOMEM, EINVAL. */
  write(piece: Piece, to: Place): void {
    this.remote(WR_OPCODE.RDMA_WRITE, piece, to);
  }

  private remote(
    opcode: typeof WR_OPCODE.RDMA_READ | typeof WR_OPCODE.RDMA_WRITE,
    piece: Piece,
    place: Place,
  ): void {
    const wr = this.sendRequest;
    fill(wr, piece);
    wr.opcode = opcode;
    wr.remoteAddressHigh = place.addressHigh;
    wr.remoteAddressLow = place.addressLow;
    wr.rkey = place.rkey;
    this.postSend();
  }

  private postSend(): void {
    this.sendRequest.sendFlags = SEND_FLAG.SIGNALED;
    this.qp.postSend(this.sendRequest);
  }
}

function fill(wr: SendWorkRequest | RecvWorkRequest, piece: Piece): void {
  const { mr } = piece.area;
  wr.wrId = piece.wrId;
  wr.sgeCount = 1;
  const [entry] = wr.sges;
  if (entry === undefined) return;
  entry.address = mr.address + (piece.offset ?? 0);
  entry.length = piece.length;
  entry.lkey = mr.lkey;
}

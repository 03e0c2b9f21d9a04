// SPDX-License-Identifier: MIT
// The door of this room as types alone, for the rooms above to build on until the classes are in.

import type { IpAddress, Machine, MemorySource, Random } from "../base/index.js";
import type { Context, PathMtu, QueuePair } from "../verbs/index.js";
import type { CmEvent, PortSpace } from "./event.js";

export interface ConnectionManagerOptions {
  readonly context: Context;
  /** For the buffers of QP1. */
  readonly memory: MemorySource;
  readonly random: Random;
}

/** One per device: it owns QP1. `pump` it before its users. */
export declare class ConnectionManager implements Machine, Disposable {
  constructor(options: ConnectionManagerOptions);
  createChannel(): EventChannel;
  pump(nowNs: number): void;
  deadlineNs(): number;
  checkInvariants(): void;
  /** Ids, listeners, answered connections in timewait: 0 when everything is gone. */
  readonly liveCount: number;
  /** Destroys every channel. Goodbyes are posted; the device must be pumped once more to send them. */
  close(): void;
  [Symbol.dispose](): void;
}

export interface ListenOptions {
  /** null: every address of the host. */
  readonly address: IpAddress | null;
  readonly port: number;
  readonly portSpace?: PortSpace;
  /** Requests that may wait for an answer. */
  readonly backlog?: number;
}

export declare class EventChannel implements Disposable {
  /** The next event, oldest first, or null. */
  poll(): CmEvent | null;
  /** @throws FarpageError EADDRINUSE, EADDRNOTAVAIL, EINVAL */
  listen(options: ListenOptions): Listener;
  createId(portSpace?: PortSpace): CmId;
  close(): void;
  [Symbol.dispose](): void;
}

export declare class Listener implements Disposable {
  readonly address: IpAddress | null;
  readonly port: number;
  readonly portSpace: PortSpace;
  /** The user's. */
  context: unknown;
  close(): void;
  [Symbol.dispose](): void;
}

export interface ConnectOptions {
  /** At most 56 bytes (UDP port space: 180). */
  readonly privateData?: Uint8Array;
  /** READs and atomics of the peer that we serve; 0 .. 255; default the device's limit. */
  readonly responderResources?: number;
  /** Own READs and atomics outstanding. */
  readonly initiatorDepth?: number;
  readonly retryCount?: number;
  readonly rnrRetryCount?: number;
  readonly flowControl?: boolean;
  readonly pathMtu?: PathMtu;
  /** Coded local ACK timeout, 4.096 us * 2^t. */
  readonly ackTimeout?: number;
  /** Gives up (UNREACHABLE) after so long without an answer. */
  readonly timeoutNs?: number;
}

export interface AcceptOptions {
  /** At most 196 bytes (UDP port space: 136). */
  readonly privateData?: Uint8Array;
  readonly responderResources?: number;
  readonly initiatorDepth?: number;
  readonly rnrRetryCount?: number;
  readonly flowControl?: boolean;
  readonly ackTimeout?: number;
}

export declare class CmId implements Disposable {
  readonly channel: EventChannel;
  readonly portSpace: PortSpace;
  readonly localAddress: IpAddress | null;
  readonly localPort: number;
  readonly remoteAddress: IpAddress | null;
  readonly remotePort: number;
  /** The local port (address index) of the device, -1 before `resolve`. */
  readonly devicePort: number;
  readonly qp: QueuePair | null;
  /** The user's. */
  context: unknown;
  /** Coded RNR timer of the queue pair that is bound next; default 12 (0.64 ms). */
  minRnrTimer: number;
  resolve(options: {
    readonly source: IpAddress;
    readonly destination: IpAddress;
    readonly port: number;
    readonly sourcePort?: number;
    readonly trafficClass?: number;
  }): void;
  /** Moves `qp` RESET -> INIT (receives can be posted from then on); UD: to RTS. */
  bindQp(qp: QueuePair): void;
  connect(options?: ConnectOptions): void;
  accept(options?: AcceptOptions): void;
  reject(privateData?: Uint8Array): void;
  /** Moves the queue pair to ERR, sends DREQ (or DREP). No-op when already disconnected. */
  disconnect(): void;
  /** In any state, once; sends what fits. The queue pair stays its owner's (moved to ERR). */
  destroy(): void;
  [Symbol.dispose](): void;
}

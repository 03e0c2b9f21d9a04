// SPDX-License-Identifier: MIT
// The door of this room as types alone, for the rooms above to build on until the classes are in.

import type { IpAddress, Memory } from "../base/index.js";
import type {
  RecvWorkRequest,
  SendWorkRequest,
  TxFlow,
  WorkCompletion,
} from "../transport/index.js";
import type {
  DeviceAttributes,
  PortAttributes,
  QpAttributes,
  QpState,
  QpType,
} from "./attributes.js";

/** transport's Device, once it is there. */
export type Device = unknown;

export declare class Context implements Disposable {
  readonly device: Device;
  constructor(device: Device);
  allocPd(): ProtectionDomain;
  createCq(options: { readonly depth: number }): CompletionQueue;
  queryDevice(): DeviceAttributes;
  queryPort(port: number): PortAttributes;
  queryGid(port: number): IpAddress;
  /** The port whose address this is, or -1. */
  portOf(address: IpAddress): number;
  close(): void;
  [Symbol.dispose](): void;
}

export declare class ProtectionDomain implements Disposable {
  readonly context: Context;
  readonly handle: number;
  registerMr(
    memory: Memory,
    options?: { readonly offset?: number; readonly length?: number; readonly access?: number },
  ): MemoryRegion;
  /** A region for REG_MR; no memory, no valid key yet. */
  allocMr(): MemoryRegion;
  createQp(options: QueuePairOptions): QueuePair;
  createSrq(options: { readonly depth: number; readonly maxSge?: number }): SharedReceiveQueue;
  createAh(options: {
    readonly port: number;
    readonly destination: IpAddress;
    readonly trafficClass?: number;
  }): AddressHandle;
  dealloc(): void;
  [Symbol.dispose](): void;
}

export declare class MemoryRegion implements Disposable {
  readonly pd: ProtectionDomain;
  readonly handle: number;
  readonly regionIndex: number;
  /** Current keys; 0 while a fast-register region is not registered. */
  readonly lkey: number;
  readonly rkey: number;
  readonly address: number;
  readonly length: number;
  /** Fast-register regions: an unpredictable, unused key for the next REG_MR. */
  freshKey(): number;
  deregister(): void;
  [Symbol.dispose](): void;
}

export declare class CompletionQueue implements Disposable {
  readonly context: Context;
  readonly handle: number;
  readonly depth: number;
  /** Fills `into[0 ..]`; returns how many (0 .. countMax, default into.length). */
  pollCq(into: readonly WorkCompletion[], countMax?: number): number;
  /** One-shot: `listener` runs once, from inside the device; it must only note that it ran. */
  requestNotify(solicitedOnly: boolean, listener: () => void): void;
  destroy(): void;
  [Symbol.dispose](): void;
}

export interface QueuePairOptions {
  readonly type: QpType;
  readonly sendCq: CompletionQueue;
  readonly recvCq: CompletionQueue;
  readonly srq?: SharedReceiveQueue;
  readonly maxSendWr: number;
  readonly maxRecvWr: number;
  readonly maxSendSge?: number;
  readonly maxRecvSge?: number;
  /** Every send completes visibly, SIGNALED or not. */
  readonly signalAll?: boolean;
}

export declare class QueuePair implements Disposable {
  readonly context: Context;
  readonly pd: ProtectionDomain;
  readonly handle: number;
  readonly qpn: number;
  readonly type: QpType;
  readonly state: QpState;
  readonly sendCq: CompletionQueue;
  readonly recvCq: CompletionQueue;
  readonly srq: SharedReceiveQueue | null;
  modifyQp(attributes: QpAttributes): void;
  queryQp(): Readonly<Required<QpAttributes>>;
  postSend(wr: SendWorkRequest): void;
  tryPostSend(wr: SendWorkRequest): number;
  postRecv(wr: RecvWorkRequest): void;
  tryPostRecv(wr: RecvWorkRequest): number;
  destroy(): void;
  [Symbol.dispose](): void;
}

export declare class SharedReceiveQueue implements Disposable {
  readonly pd: ProtectionDomain;
  readonly handle: number;
  postRecv(wr: RecvWorkRequest): void;
  tryPostRecv(wr: RecvWorkRequest): number;
  destroy(): void;
  [Symbol.dispose](): void;
}

export declare class AddressHandle implements Disposable {
  readonly pd: ProtectionDomain;
  readonly handle: number;
  readonly port: number;
  readonly destination: IpAddress;
  readonly trafficClass: number;
  readonly flow: TxFlow;
  destroy(): void;
  [Symbol.dispose](): void;
}

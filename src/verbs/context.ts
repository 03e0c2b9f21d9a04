// SPDX-License-Identifier: MIT

import { FarpageError, type IpAddress } from "../base/index.js";
import {
  CQ_DEPTH_MAX,
  type Device,
  INLINE_BYTES_MAX,
  type PathMtu,
  SGE_COUNT_MAX,
} from "../transport/index.js";
import { type AsyncEvent, AsyncEventQueue, AsyncEventRouter } from "./async-event.js";
import { CompletionQueue, checkDepth } from "./completion-queue.js";
import type { DeviceAttributes, PortAttributes } from "./device-attributes.js";
import { MESSAGE_BYTES_MAX } from "./post-error.js";
import { ProtectionDomain } from "./protection-domain.js";
import { HandleTable } from "./verbs-object.js";

/** READs and atomics each way on one queue pair, as `QpAttributes` bounds them. */
const RD_ATOMIC_MAX = 128;
/** Coded: 67 ms. A process may have to wait for its CPU before it acknowledges. */
const LOCAL_CA_ACK_DELAY = 14;

export interface ContextOptions {
  /** Objects that this context may hold at a time; default 2^20. */
  readonly handleCountMax?: number;
}

/**
 * An open device (ibv_open_device(3)): what a uverbs file is in Linux. It holds the handles of
 * every object made through it, and closing it closes them all. Contexts of one device know nothing
 * of each other.
 */
export class Context implements Disposable {
  readonly device: Device;
  /** Internal. */
  readonly asyncEvents = new AsyncEventQueue();
  private readonly handles: HandleTable;
  private readonly router: AsyncEventRouter;
  private isClosed = false;

  constructor(device: Device, options: ContextOptions = {}) {
    this.device = device;
    this.handles = new HandleTable(options.handleCountMax ?? 1 << 20);
    this.router = AsyncEventRouter.of(device);
  }

  get isOpen(): boolean {
    return !this.isClosed;
  }

  /** Objects that are open in this context. */
  get handleCount(): number {
    return this.handles.count;
  }

  /** @throws FarpageError ENOMEM when the context is full; EBADF when closed. */
  allocPd(): ProtectionDomain {
    this.assertReady();
    return new ProtectionDomain(this.handles, this, this.device.allocatePd());
  }

  /**
   * @param options.depth completions that must fit: those of every request that can be outstanding.
   * @throws FarpageError EINVAL for a depth that is no depth; ENOMEM; EBADF.
   */
  createCq(options: { readonly depth: number }): CompletionQueue {
    this.assertReady();
    checkDepth("the depth of a completion queue", options.depth, 1, this.queryDevice().maxCqe);
    const cq = new CompletionQueue(this.handles, this, this.device.createCq(options.depth));
    this.router.enter(cq.core, cq);
    return cq;
  }

  /** Limits of the device (ibv_query_device(3)). */
  queryDevice(): DeviceAttributes {
    return {
      maxQp: this.device.qpCountMax,
      maxQpWr: this.device.wrCountMax,
      maxSge: SGE_COUNT_MAX,
      maxInlineData: INLINE_BYTES_MAX,
      maxCqe: CQ_DEPTH_MAX,
      maxMr: this.device.regions.countMax,
      maxSrqWr: this.device.wrCountMax,
      maxQpRdAtom: RD_ATOMIC_MAX,
      maxQpInitRdAtom: RD_ATOMIC_MAX,
      physicalPortCount: this.device.addresses.length,
      localCaAckDelay: LOCAL_CA_ACK_DELAY,
    };
  }

  /** @throws FarpageError EINVAL when the device has no such port. */
  queryPort(port: number): PortAttributes {
    this.assertPort(port);
    return {
      state: "ACTIVE",
      gid: this.device.addresses[port] as IpAddress,
      gidTableLength: 1,
      activeMtu: this.device.activeMtus[port] as PathMtu,
      pkeyTableLength: 1,
      maxMessageBytes: MESSAGE_BYTES_MAX,
    };
  }

  /** The address of a port, as a GID (ibv_query_gid(3)). @throws FarpageError EINVAL. */
  queryGid(port: number): IpAddress {
    this.assertPort(port);
    return this.device.addresses[port] as IpAddress;
  }

  /** The port that has this local address, or -1. */
  portOf(address: IpAddress): number {
    return this.device.addresses.findIndex((own) => own.equals(address));
  }

  /**
   * The oldest event of this context's objects that no request tells of (ibv_get_async_event(3)),
   * or null. At most 1,024 wait; further ones are lost.
   */
  pollAsyncEvent(): AsyncEvent | null {
    this.router.drain();
    return this.asyncEvents.shift();
  }

  /**
   * Closes everything that is open here, children before parents, and then the context; always
   * succeeds, and touches no other context's objects. No-op when closed already.
   */
  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.handles.closeAll();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Internal. @throws FarpageError EINVAL when the device has no such port. */
  assertPort(port: number): void {
    const count = this.device.addresses.length;
    if (Number.isInteger(port) && port >= 0 && port < count) return;
    throw new FarpageError("EINVAL", `there is no port ${port}: this device has 0 .. ${count - 1}`);
  }

  /** Asserts the rules of handles; for tests. */
  checkInvariants(): void {
    this.handles.checkInvariants();
  }

  private assertReady(): void {
    if (this.isClosed) throw new FarpageError("EBADF", "the context was closed");
    this.handles.assertRoom();
  }
}

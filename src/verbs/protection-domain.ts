// SPDX-License-Identifier: MIT

import { FarpageError, type Memory } from "../base/index.js";
import { QP_TYPE } from "../transport/index.js";
import { AddressHandle, type AddressHandleOptions } from "./address-handle.js";
import { checkDepth } from "./completion-queue.js";
import type { Context } from "./context.js";
import {
  type AddressRange,
  MemoryRegion,
  type RegisterOptions,
  registerBacking,
} from "./memory-region.js";
import { QueuePair, type QueuePairOptions } from "./queue-pair.js";
import { SharedReceiveQueue, type SharedReceiveQueueOptions } from "./shared-receive-queue.js";
import { type HandleTable, VerbsObject } from "./verbs-object.js";

/**
 * A protection domain (ibv_alloc_pd(3)): a queue pair reaches only the memory regions of its own,
 * and so do its peers.
 */
export class ProtectionDomain extends VerbsObject {
  readonly context: Context;
  /** Internal: its number in the device. */
  readonly pdIndex: number;
  private readonly handles: HandleTable;

  /** Internal: use `Context.allocPd`. */
  constructor(table: HandleTable, context: Context, pdIndex: number) {
    super(table, "protection domain", []);
    this.context = context;
    this.pdIndex = pdIndex;
    this.handles = table;
  }

  /**
   * Registers memory (ibv_reg_mr(3)): mapped by the host itself, which must not free it before
   * `deregister`, or addresses of a process, which stay pinned until then or come on demand.
   * @throws FarpageError EINVAL for a range outside the memory or rights that need LOCAL_WRITE;
   *   ENOMEM when the device has no region left; EBADF; of addresses of a process also what
   *   `RegionSpace.registerPages` names: EFAULT, EACCES, ENOMEM and others with their reasons.
   */
  registerMr(memory: Memory | AddressRange, options: RegisterOptions = {}): MemoryRegion {
    this.assertReady();
    const { regions } = this.context.device;
    const backing = registerBacking(regions, this.pdIndex, memory, options);
    return new MemoryRegion(this.handles, this, backing, false);
  }

  /**
   * Makes a fast-register region (ib_alloc_mr): it gets memory, rights and a key by a REG_MR work
   * request, and loses them by LOCAL_INV or a peer's SEND with invalidate, as often as one likes.
   * @throws FarpageError ENOMEM when the device has no region left; EBADF.
   */
  allocMr(): MemoryRegion {
    this.assertReady();
    const regionIndex = this.context.device.regions.allocateFast(this.pdIndex);
    const backing = { regionIndex, pages: null, memory: null, offset: 0, length: 0 };
    return new MemoryRegion(this.handles, this, backing, true);
  }

  /**
   * Makes a queue pair, in RESET (ibv_create_qp(3)).
   * @throws FarpageError EINVAL for sizes beyond the device's limits or objects that do not belong
   *   together; ENOMEM when the device has no queue pair left; EBADF.
   */
  createQp(options: QueuePairOptions): QueuePair {
    if (options.type !== "RC" && options.type !== "UD") {
      throw new FarpageError("EINVAL", `there is no queue pair type "${String(options.type)}"`);
    }
    return this.makeQp(options.type, options, options.type === "RC" ? QP_TYPE.RC : QP_TYPE.UD, -1);
  }

  /**
   * Makes queue pair 1 of `port`, through which management datagrams come and go. One at a time per
   * port of the device; the connection manager has it.
   * @throws FarpageError EBUSY when somebody has it; EINVAL, ENOMEM, EBADF as `createQp`.
   */
  createGsiQp(port: number, options: Omit<QueuePairOptions, "type" | "srq">): QueuePair {
    this.context.assertPort(port);
    return this.makeQp("GSI", options, QP_TYPE.GSI, port);
  }

  /** @throws FarpageError EINVAL, ENOMEM, EBADF. */
  createSrq(options: SharedReceiveQueueOptions): SharedReceiveQueue {
    this.assertReady();
    const limits = this.context.queryDevice();
    const maxSge = options.maxSge ?? 1;
    checkDepth("the depth of a shared receive queue", options.depth, 1, limits.maxSrqWr);
    checkDepth("maxSge", maxSge, 0, limits.maxSge);
    const core = this.context.device.createSrq(this.pdIndex, options.depth, maxSge);
    return new SharedReceiveQueue(this.handles, this, core);
  }

  /**
   * Makes an address handle (ibv_create_ah(3)).
   * @throws FarpageError EINVAL for a port that the device does not have, a traffic class that is
   *   no byte, or a destination of another address family than the port's; ENOMEM, EBADF.
   */
  createAh(options: AddressHandleOptions): AddressHandle {
    this.assertReady();
    const { port, destination } = options;
    const trafficClass = options.trafficClass ?? 0;
    const source = this.context.queryGid(port);
    if (source.family !== destination.family) {
      throw new FarpageError(
        "EINVAL",
        `port ${port} has the address ${source} and can't send to ${destination}: ` +
          "not of one family",
      );
    }
    checkDepth("trafficClass", trafficClass, 0, 255);
    const flow = this.context.device.flow(port, destination, trafficClass);
    return new AddressHandle(this.handles, this, flow);
  }

  /** @throws FarpageError EBUSY while anything of it exists. No-op when gone already. */
  dealloc(): void {
    this.closeHandle();
  }

  protected override release(): void {
    this.context.device.freePd(this.pdIndex);
  }

  private makeQp(
    type: "RC" | "UD" | "GSI",
    options: Omit<QueuePairOptions, "type">,
    coreType: (typeof QP_TYPE)[keyof typeof QP_TYPE],
    port: number,
  ): QueuePair {
    this.assertReady();
    this.checkQpOptions(options);
    const { sendCq, recvCq, srq } = options;
    const core = this.context.device.createQp({
      type: coreType,
      pdIndex: this.pdIndex,
      sendCq: sendCq.core,
      recvCq: recvCq.core,
      srq: srq?.core ?? null,
      maxSendWr: options.maxSendWr,
      maxRecvWr: srq === undefined ? options.maxRecvWr : 0,
      maxSendSge: options.maxSendSge ?? 1,
      maxRecvSge: options.maxRecvSge ?? 1,
      maxInlineData: options.maxInlineData ?? 0,
      signalAll: options.signalAll ?? false,
      ...(port < 0 ? {} : { port }),
    });
    return new QueuePair(this.handles, this, type, core, options);
  }

  private checkQpOptions(options: Omit<QueuePairOptions, "type">): void {
    const { sendCq, recvCq, srq } = options;
    for (const object of srq === undefined ? [sendCq, recvCq] : [sendCq, recvCq, srq]) {
      object.assertOpen();
      if (!this.isOfSameContext(object)) {
        throw new FarpageError("EINVAL", `${object.name()} belongs to another context`);
      }
    }
    if (srq !== undefined && srq.pd !== this) {
      throw new FarpageError("EINVAL", `${srq.name()} belongs to ${srq.pd.name()}`);
    }
    const limits = this.context.queryDevice();
    checkDepth("maxSendWr", options.maxSendWr, 0, limits.maxQpWr);
    checkDepth("maxRecvWr", options.maxRecvWr, 0, limits.maxQpWr);
    checkDepth("maxSendSge", options.maxSendSge ?? 1, 0, limits.maxSge);
    checkDepth("maxRecvSge", options.maxRecvSge ?? 1, 0, limits.maxSge);
    checkDepth("maxInlineData", options.maxInlineData ?? 0, 0, limits.maxInlineData);
  }

  private assertReady(): void {
    this.assertOpen();
    this.handles.assertRoom();
  }
}

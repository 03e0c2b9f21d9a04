// SPDX-License-Identifier: MIT
// What the tests of this room stand on: a device without a network, its errors as values.

import { HeapMemorySource, IpAddress, SeededRandom } from "../base/index.js";
import { Device, type DeviceOptions, QP_STATE, TxBatch } from "../transport/index.js";
import { Context } from "./context.js";
import type { QueuePair, QueuePairOptions } from "./queue-pair.js";

export const OWN = IpAddress.parse("192.0.2.1");
export const OWN_V6 = IpAddress.parse("2001:db8::1");
export const PEER = IpAddress.parse("192.0.2.2");

export function makeDevice(options: Partial<DeviceOptions> = {}): Device {
  return new Device({
    addresses: [OWN, OWN_V6],
    linkMtus: [1500, 9000],
    random: new SeededRandom(3),
    qpCountMax: 32,
    regionCountMax: 32,
    ...options,
  });
}

/** A context with one of everything that a queue pair needs. */
export function makeBench(device = makeDevice()) {
  const context = new Context(device);
  const memories = new HeapMemorySource();
  const memory = memories.allocate(1 << 16);
  const pd = context.allocPd();
  const cq = context.createCq({ depth: 64 });
  const mr = pd.registerMr(memory, { access: 15 });
  const createQp = (options: Partial<QueuePairOptions> = {}): QueuePair =>
    pd.createQp({
      type: "RC",
      sendCq: cq,
      recvCq: cq,
      maxSendWr: 4,
      maxRecvWr: 4,
      maxSendSge: 2,
      ...options,
    });
  const pump = () => device.pump(0, new TxBatch(new Uint8Array(1 << 16)));
  return { device, context, memories, memory, pd, cq, mr, createQp, pump };
}

/** Moves a queue pair up to RTS by the shortest way. */
export function toRts(qp: QueuePair, destinationQpn = 99, maxRdAtomic = 1): void {
  if (qp.type === "UD") {
    qp.modifyQp({ state: QP_STATE.INIT, pkeyIndex: 0, port: 0, qkey: 0x1111 });
    qp.modifyQp({ state: QP_STATE.RTR });
    qp.modifyQp({ state: QP_STATE.RTS, sqPsn: 0 });
    return;
  }
  qp.modifyQp({ state: QP_STATE.INIT, pkeyIndex: 0, port: 0, accessFlags: 15 & ~1 });
  qp.modifyQp({
    state: QP_STATE.RTR,
    addressVector: qp.pd.createAh({ port: 0, destination: PEER }),
    pathMtu: 1024,
    destinationQpn,
    rqPsn: 0,
    maxDestRdAtomic: 1,
    minRnrTimer: 12,
  });
  const timing = { timeout: 14, retryCount: 7, rnrRetry: 7 };
  qp.modifyQp({ state: QP_STATE.RTS, ...timing, sqPsn: 0, maxRdAtomic });
}

/** `"CODE: message"` of what `run` throws, "" when it throws nothing. */
export function errorOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    return `${code}: ${message}`;
  }
  return "";
}

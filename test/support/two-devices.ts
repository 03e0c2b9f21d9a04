// SPDX-License-Identifier: MIT
// Two devices with a connected queue pair each, and packets that are handed over in memory.

import { SeededRandom } from "../../src/base/index.js";
import { Device, RxBurst, TxBatch } from "../../src/transport/index.js";
import {
  Context,
  IpAddress,
  QP_STATE,
  type QueuePair,
  type ScatterGatherEntry,
  SEND_FLAG,
  SendWorkRequest,
  WC_STATUS,
  WorkCompletion,
  type WrOpcode,
} from "../../src/verbs/index.js";

const ROCE_PORT = 4791;

class Side {
  readonly address: IpAddress;
  readonly device: Device;
  readonly context: Context;
  readonly tx = new TxBatch(new Uint8Array(1 << 20));

  constructor(number: number) {
    this.address = IpAddress.parse(`192.0.2.${number + 1}`);
    this.device = new Device({
      addresses: [this.address],
      linkMtus: [9000],
      random: new SeededRandom(number + 5),
      qpCountMax: 8,
      regionCountMax: 64,
    });
    this.context = new Context(this.device);
  }
}

export class TwoDevices {
  readonly a = new Side(0);
  readonly b = new Side(1);
  readonly pdA = this.a.context.allocPd();
  readonly pdB = this.b.context.allocPd();
  nowNs = 1_000_000;
  private readonly cq = this.a.context.createCq({ depth: 64 });
  private readonly qp: QueuePair;
  private readonly betweenTurns: (nowNs: number) => void;

  /** @param betweenTurns what else has its turn: the queue that serves faults. */
  constructor(betweenTurns: (nowNs: number) => void) {
    this.betweenTurns = betweenTurns;
    const cqB = this.b.context.createCq({ depth: 64 });
    const queues = { maxSendWr: 16, maxRecvWr: 16 };
    this.qp = this.pdA.createQp({ type: "RC", sendCq: this.cq, recvCq: this.cq, ...queues });
    const qpB = this.pdB.createQp({ type: "RC", sendCq: cqB, recvCq: cqB, ...queues });
    raise(this.qp, this.b.address, qpB.qpn);
    raise(qpB, this.a.address, this.qp.qpn);
  }

  /** Posts a request of A, and runs until it has completed. @returns its status. */
  run(
    opcode: WrOpcode,
    local: ScatterGatherEntry,
    remote: { readonly address: number; readonly rkey: number },
    operand = 0,
  ): number {
    const wr = new SendWorkRequest();
    wr.opcode = opcode;
    wr.sendFlags = SEND_FLAG.SIGNALED;
    wr.sgeCount = 1;
    wr.sges[0] = local;
    wr.remoteAddressHigh = Math.floor(remote.address / 2 ** 32);
    wr.remoteAddressLow = remote.address >>> 0;
    wr.rkey = remote.rkey;
    wr.compareAddLow = operand;
    this.qp.postSend(wr);
    const wc = new WorkCompletion();
    for (let turn = 0; turn < 20_000; turn++) {
      this.step();
      if (this.cq.pollCq([wc]) > 0) return wc.status;
    }
    throw new Error("the request never completes");
  }

  /** As `run`, of one that succeeds. */
  succeed(...request: Parameters<TwoDevices["run"]>): void {
    const status = this.run(...request);
    if (status !== WC_STATUS.SUCCESS) throw new Error(`the request ends with status ${status}`);
  }

  /** 20 us: each device sends what it has, faults are served. */
  step(): void {
    this.carry(this.a, this.b);
    this.betweenTurns(this.nowNs);
    this.carry(this.b, this.a);
    this.betweenTurns(this.nowNs);
    this.nowNs += 20_000;
  }

  private carry(from: Side, to: Side): void {
    const { tx } = from;
    from.device.pump(this.nowNs, tx);
    const burst = new RxBurst(tx.bytes);
    burst.source0 = from.address.word0;
    burst.source1 = from.address.word1;
    burst.source2 = from.address.word2;
    burst.source3 = from.address.word3;
    burst.sourcePort = ROCE_PORT;
    for (let message = 0; message < tx.messageCount; message++) {
      const start = tx.offsets[message] as number;
      const length = tx.lengths[message] as number;
      const step = tx.segmentLengths[message] as number;
      burst.length = length;
      burst.segmentLength = step;
      for (let at = 0; at < length; at += step) {
        burst.offset = start + at;
        to.device.onPacket(this.nowNs, burst, start + at, Math.min(step, length - at));
      }
    }
    tx.reset();
  }
}

function raise(qp: QueuePair, peer: IpAddress, peerQpn: number): void {
  qp.modifyQp({ state: QP_STATE.INIT, pkeyIndex: 0, port: 0, accessFlags: 14 });
  qp.modifyQp({
    state: QP_STATE.RTR,
    addressVector: qp.pd.createAh({ port: 0, destination: peer }),
    pathMtu: 1024,
    destinationQpn: peerQpn,
    rqPsn: 5,
    maxDestRdAtomic: 4,
    minRnrTimer: 12,
  });
  const timing = { timeout: 14, retryCount: 7, rnrRetry: 7 };
  qp.modifyQp({ state: QP_STATE.RTS, ...timing, sqPsn: 5, maxRdAtomic: 4 });
}

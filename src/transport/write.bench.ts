// SPDX-License-Identifier: MIT
// One operation from posting to completion, both devices in this process, packets handed over in
// memory: what the transport itself costs per packet. The CRC is left out of one row and the
// portable one in the other, so that what a native CRC would cost can be told apart from the rest.

import { bench, describe } from "vitest";
import {
  type Crc32,
  HeapMemorySource,
  IpAddress,
  SeededRandom,
  updateCrc32,
} from "../base/index.js";
import { Device } from "./device.js";
import { RxBurst, TxBatch } from "./link.js";
import { QP_STATE, QP_TYPE } from "./qp-state.js";
import { SEND_FLAG, SendWorkRequest, WorkCompletion, WR_OPCODE } from "./work-request.js";

const MEMORY_BYTES = 1 << 22;
const DEPTH = 16;

function host(number: number, crc32: Crc32) {
  const address = IpAddress.v4(0x7f000001 + number);
  const random = new SeededRandom(number + 1);
  const device = new Device({ addresses: [address], linkMtus: [9000], random, crc32 });
  const pdIndex = device.allocatePd();
  const memory = new HeapMemorySource((number + 1) * 2 ** 40).allocate(MEMORY_BYTES);
  const region = device.regions.register(pdIndex, memory, 0, MEMORY_BYTES, 15);
  const cq = device.createCq(1024);
  const queues = { sendCq: cq, recvCq: cq, maxSendWr: 64, maxRecvWr: 64 };
  const qp = device.createQp({ type: QP_TYPE.RC, pdIndex, ...queues });
  const tx = new TxBatch(new Uint8Array(1 << 21));
  const key = device.regions.keyOf(region);
  return { address, device, memory, key, cq, qp, tx };
}
type BenchHost = ReturnType<typeof host>;

function connect(local: BenchHost, remote: BenchHost): void {
  local.qp.modify({ state: QP_STATE.INIT, pkeyIndex: 0, port: 0, accessFlags: 14 });
  local.qp.modify({
    state: QP_STATE.RTR,
    addressVector: { flow: local.device.flow(0, remote.address) },
    pathMtu: 4096,
    destinationQpn: remote.qp.qpn,
    rqPsn: 1,
    maxDestRdAtomic: 16,
    minRnrTimer: 12,
  });
  const retries = { timeout: 14, retryCount: 7, rnrRetry: 7 };
  local.qp.modify({ state: QP_STATE.RTS, sqPsn: 1, maxRdAtomic: 16, ...retries });
}

/** Posts, carries packets and polls until `count` operations are done. */
function prepare(opcode: SendWorkRequest["opcode"], length: number, crc32: Crc32) {
  const a = host(0, crc32);
  const b = host(1, crc32);
  connect(a, b);
  connect(b, a);
  const burst = new RxBurst(new Uint8Array(1 << 21));
  const wc = new WorkCompletion();
  const wr = new SendWorkRequest();
  wr.opcode = opcode;
  wr.sendFlags = SEND_FLAG.SIGNALED;
  wr.sgeCount = 1;
  wr.rkey = b.key;
  let nowNs = 0;
  let posted = 0;
  let done = 0;
  const carry = (from: BenchHost, to: BenchHost): void => {
    from.device.pump(nowNs, from.tx);
    const { tx } = from;
    for (let m = 0; m < tx.messageCount; m++) {
      const offset = tx.offsets[m] as number;
      const end = offset + (tx.lengths[m] as number);
      const step = tx.segmentLengths[m] as number;
      burst.bytes.set(tx.bytes.subarray(offset, end), offset);
      burst.offset = offset;
      burst.segmentLength = step;
      burst.source2 = from.address.word2;
      burst.source3 = from.address.word3;
      burst.sourcePort = 4791;
      for (let at = offset; at < end; at += step) {
        to.device.onPacket(nowNs, burst, at, Math.min(step, end - at));
      }
    }
    tx.reset();
  };
  return (count: number): void => {
    for (const target = done + count; done < target; nowNs += 1000) {
      for (; posted - done < DEPTH; posted++) {
        const offset = (posted * 65_536) % MEMORY_BYTES;
        wr.sges[0] = { address: a.memory.address + offset, length, lkey: a.key };
        wr.remoteAddressHigh = Math.floor((b.memory.address + offset) / 2 ** 32);
        wr.remoteAddressLow = (b.memory.address + offset) >>> 0;
        a.qp.postSend(wr);
      }
      carry(a, b);
      carry(b, a);
      while (a.cq.poll(wc)) done++;
    }
  };
}

const noCrc: Crc32 = (_bytes, _start, _end, register) => register;

for (const [name, crc32] of [
  ["without CRC", noCrc],
  ["portable CRC", updateCrc32],
] as const) {
  describe(`both ends in one thread, ${name}`, () => {
    const write64k = prepare(WR_OPCODE.RDMA_WRITE, 65_536, crc32);
    bench("64 WRITEs of 64 KiB, MTU 4096 (1,024 packets)", () => write64k(64));
    const read64k = prepare(WR_OPCODE.RDMA_READ, 65_536, crc32);
    bench("64 READs of 64 KiB, MTU 4096 (1,024 packets)", () => read64k(64));
    const write8 = prepare(WR_OPCODE.RDMA_WRITE, 8, crc32);
    bench("1,024 WRITEs of 8 bytes", () => write8(1024));
  });
}

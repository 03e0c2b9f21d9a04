// SPDX-License-Identifier: MIT
// The passive end of a benchmark: offers memory, posts receives, answers pings. Runs until its host
// closes.

import type { Machine, Memory } from "../../base/index.js";
import type { CmEvent, CmId, EventChannel } from "../../cm/index.js";
import {
  ACCESS,
  type CompletionQueue,
  type MemoryRegion,
  type ProtectionDomain,
  type QueuePair,
  RecvWorkRequest,
  SendWorkRequest,
  WC_STATUS,
  WorkCompletion,
  WR_OPCODE,
} from "../../verbs/index.js";
import type { Host } from "../host.js";
import {
  BENCH_MEMORY_BYTES,
  BENCH_PORT,
  BENCH_RECEIVE_DEPTH,
  BENCH_TEST,
  type BenchRequest,
  decodeBenchRequest,
  encodeBenchReply,
} from "./protocol.js";
import { fillRemote } from "./work.js";

/** Starts answering benchmarks on every address of `host`. */
export function startBenchResponder(host: Host): void {
  host.stack.lane.add(new BenchResponder(host));
}

/** One benchmark under way. */
interface Session {
  readonly qp: QueuePair;
  readonly cq: CompletionQueue;
  readonly request: BenchRequest;
  /** WRITE_LATENCY: the ping that was answered last. */
  answered: number;
}

class BenchResponder implements Machine {
  private readonly channel: EventChannel;
  private readonly pd: ProtectionDomain;
  private readonly memory: Memory;
  private readonly mr: MemoryRegion;
  private readonly sessions = new Map<CmId, Session>();
  private readonly completions = Array.from({ length: 64 }, () => new WorkCompletion());
  private readonly recvRequest = new RecvWorkRequest();
  private readonly sendRequest = new SendWorkRequest();

  constructor(host: Host) {
    this.channel = host.stack.cm.createChannel();
    this.channel.listen({ address: null, port: BENCH_PORT });
    this.memory = host.map({ length: BENCH_MEMORY_BYTES });
    this.pd = host.openDevice().allocPd();
    this.mr = this.pd.registerMr(this.memory, {
      access: ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE | ACCESS.REMOTE_READ,
    });
  }

  pump(): void {
    for (let event = this.channel.poll(); event !== null; event = this.channel.poll()) {
      if (event.type === "CONNECT_REQUEST") this.accept(event);
      else if (event.type !== "ESTABLISHED" && event.type !== "TIMEWAIT_EXIT") this.end(event.id);
    }
    for (const session of this.sessions.values()) this.serve(session);
  }

  deadlineNs(): number {
    return Number.POSITIVE_INFINITY;
  }

  checkInvariants(): void {}

  private accept(event: CmEvent): void {
    let request: BenchRequest;
    try {
      request = decodeBenchRequest(event.privateData);
    } catch {
      event.id.reject();
      event.id.destroy();
      return;
    }
    const cq = this.pd.context.createCq({ depth: 2 * BENCH_RECEIVE_DEPTH });
    const qp = this.pd.createQp({
      type: "RC",
      sendCq: cq,
      recvCq: cq,
      maxSendWr: 64,
      maxRecvWr: BENCH_RECEIVE_DEPTH,
    });
    event.id.bindQp(qp);
    this.sessions.set(event.id, { qp, cq, request, answered: 0 });
    this.memory.view.setUint32(0, 0);
    if (request.test === BENCH_TEST.SEND_RATE) {
      for (let i = 0; i < BENCH_RECEIVE_DEPTH; i++) this.postReceive(qp, i, request);
    }
    const reply = encodeBenchReply({ address: this.mr.address, rkey: this.mr.rkey });
    const { responderResources } = event;
    event.id.accept({ privateData: reply, responderResources });
  }

  private end(id: CmId): void {
    const session = this.sessions.get(id);
    if (session !== undefined) {
      id.disconnect();
      session.qp.destroy();
      session.cq.destroy();
      this.sessions.delete(id);
    }
    id.destroy();
  }

  private serve(session: Session): void {
    const count = session.cq.pollCq(this.completions);
    if (session.request.test === BENCH_TEST.SEND_RATE) {
      for (let i = 0; i < count; i++) {
        const wc = this.completions[i] as WorkCompletion;
        if (wc.status !== WC_STATUS.SUCCESS) return;
        this.postReceive(session.qp, wc.wrId, session.request);
      }
    } else if (session.request.test === BENCH_TEST.WRITE_LATENCY) {
      this.answer(session);
    }
  }

  private postReceive(qp: QueuePair, slot: number, request: BenchRequest): void {
    const wr = this.recvRequest;
    const entry = wr.sges[0];
    if (entry === undefined) return;
    wr.wrId = slot;
    wr.sgeCount = 1;
    // Several receives share memory where messages are large: nobody looks at the bytes.
    const slots = Math.max(1, Math.floor(BENCH_MEMORY_BYTES / Math.max(1, request.messageBytes)));
    entry.address = this.mr.address + (slot % slots) * request.messageBytes;
    entry.length = request.messageBytes;
    entry.lkey = this.mr.lkey;
    qp.tryPostRecv(wr);
  }

  /** A ping is a number, one above the last; the answer is the same number. */
  private answer(session: Session): void {
    const ping = this.memory.view.getUint32(0);
    if (ping === session.answered) return;
    const wr = this.sendRequest;
    fillRemote(wr, WR_OPCODE.RDMA_WRITE, this.mr, 0, session.request.messageBytes);
    wr.remoteAddressHigh = Math.floor(session.request.address / 0x1_0000_0000);
    wr.remoteAddressLow = session.request.address >>> 0;
    wr.rkey = session.request.rkey;
    if (session.qp.tryPostSend(wr) === 0) session.answered = ping;
  }
}

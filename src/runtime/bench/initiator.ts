// SPDX-License-Identifier: MIT
// The active end of a benchmark: keeps a number of requests under way for a time, and counts.

import { FarpageError, IpAddress, type Machine, type Memory } from "../../base/index.js";
import type { CmId, EventChannel } from "../../cm/index.js";
import { monotonicNs } from "../../os/index.js";
import {
  ACCESS,
  type CompletionQueue,
  type MemoryRegion,
  type QueuePair,
  SendWorkRequest,
  WC_STATUS,
  WorkCompletion,
  WR_OPCODE,
  type WrOpcode,
} from "../../verbs/index.js";
import { connectError } from "../connection.js";
import type { Host } from "../host.js";
import {
  BENCH_MEMORY_BYTES,
  BENCH_PORT,
  BENCH_TEST,
  type BenchReply,
  type BenchTest,
  decodeBenchReply,
  encodeBenchRequest,
} from "./protocol.js";
import { fillRemote } from "./work.js";

export interface BenchRun {
  readonly test: BenchTest;
  readonly messageBytes: number;
  /** Requests under way at once; 1 for latency. */
  readonly depth: number;
  readonly durationMs: number;
}

/** What a run counted after its warm-up. */
export interface BenchResult {
  readonly operations: number;
  readonly bytes: number;
  readonly seconds: number;
  /** Latency tests: half of each round trip, in nanoseconds, sorted. */
  readonly latenciesNs: readonly number[];
}

const NS_PER_MS = 1e6;
/** Run first and not counted: the time in which the hot paths get compiled. */
const WARM_UP_MS = 1000;
const LATENCIES_MAX = 1 << 20;

/**
 * Runs one measurement against the responder at `address`.
 * @throws FarpageError EINVAL for a message size out of range; others when it can't connect or a
 *   request fails.
 */
export function runBenchTest(host: Host, address: string, run: BenchRun): Promise<BenchResult> {
  checkSize(run);
  return new Promise((resolve, reject) => {
    const initiator = new BenchInitiator(host, run, (outcome) => {
      host.stack.lane.remove(initiator);
      if (outcome instanceof Error) reject(outcome);
      else resolve(outcome);
    });
    initiator.connect(IpAddress.parse(address));
    host.stack.lane.add(initiator);
  });
}

class BenchInitiator implements Machine {
  private readonly run: BenchRun;
  private readonly channel: EventChannel;
  private readonly id: CmId;
  private readonly cq: CompletionQueue;
  private readonly qp: QueuePair;
  private readonly memory: Memory;
  private readonly mr: MemoryRegion;
  private readonly host: Host;
  private readonly opcode: WrOpcode;
  private readonly finish: (outcome: BenchResult | Error) => void;
  private readonly wr = new SendWorkRequest();
  private readonly completions = Array.from({ length: 64 }, () => new WorkCompletion());
  private readonly latencies = new Float64Array(LATENCIES_MAX);
  private stage: "connecting" | "running" | "ending" = "connecting";
  private outcome: BenchResult | Error | null = null;
  private outstanding = 0;
  private operations = 0;
  private countFromNs = 0;
  private endNs = 0;
  private latencyCount = 0;
  /** WRITE_LATENCY: the ping under way and when it left. */
  private ping = 0;
  private pingNs = 0;

  constructor(host: Host, run: BenchRun, finish: (outcome: BenchResult | Error) => void) {
    this.host = host;
    this.run = run;
    this.finish = finish;
    this.channel = host.stack.cm.createChannel();
    this.id = this.channel.createId("TCP");
    const pd = host.openDevice().allocPd();
    this.memory = host.map({ length: BENCH_MEMORY_BYTES });
    this.mr = pd.registerMr(this.memory, { access: ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE });
    this.cq = pd.context.createCq({ depth: 2 * run.depth + 64 });
    this.qp = pd.createQp({
      type: "RC",
      sendCq: this.cq,
      recvCq: this.cq,
      maxSendWr: run.depth + 8,
      maxRecvWr: 1,
    });
    this.opcode = opcodeOf(run.test);
  }

  connect(destination: IpAddress): void {
    const source = this.host.stack.addresses.find((own) => own.family === destination.family);
    if (source === undefined) {
      throw new FarpageError("EADDRNOTAVAIL", `no local address to reach ${destination} from`);
    }
    this.id.resolve({ source, destination, port: BENCH_PORT });
    this.id.bindQp(this.qp);
    this.id.connect({
      privateData: encodeBenchRequest({
        test: this.run.test,
        messageBytes: this.run.messageBytes,
        address: this.mr.address,
        rkey: this.mr.rkey,
      }),
      // A READ beyond what the responder keeps would wait for another's end.
      initiatorDepth: this.run.depth,
      timeoutNs: 5e9,
    });
  }

  pump(nowNs: number): void {
    for (let event = this.channel.poll(); event !== null; event = this.channel.poll()) {
      if (event.type === "ESTABLISHED") this.begin(nowNs, decodeBenchReply(event.privateData));
      else if (event.type !== "TIMEWAIT_EXIT") this.onGone(event.type, event.status);
    }
    if (this.stage !== "running") return;
    if (this.run.test === BENCH_TEST.WRITE_LATENCY) this.pumpPingPong();
    else this.pumpStream(nowNs);
    if (nowNs >= this.endNs && this.stage === "running") this.end(nowNs);
  }

  deadlineNs(): number {
    return this.stage === "running" ? this.endNs : Number.POSITIVE_INFINITY;
  }

  checkInvariants(): void {}

  private begin(nowNs: number, reply: BenchReply): void {
    this.wr.remoteAddressHigh = Math.floor(reply.address / 0x1_0000_0000);
    this.wr.remoteAddressLow = reply.address >>> 0;
    this.wr.rkey = reply.rkey;
    this.stage = "running";
    this.countFromNs = nowNs + WARM_UP_MS * NS_PER_MS;
    this.endNs = this.countFromNs + this.run.durationMs * NS_PER_MS;
    if (this.run.test === BENCH_TEST.WRITE_LATENCY) this.sendPing();
  }

  private onGone(type: string, status: number): void {
    const outcome = this.outcome ?? connectError(type, status, "the responder");
    this.id.destroy();
    this.qp.destroy();
    this.cq.destroy();
    this.channel.close();
    this.mr.deregister();
    this.host.stack.memory.free(this.memory);
    this.stage = "ending";
    this.finish(outcome);
  }

  private end(nowNs: number): void {
    this.outcome ??= {
      operations: this.operations,
      bytes: this.operations * this.run.messageBytes,
      seconds: (nowNs - this.countFromNs) / 1e9,
      latenciesNs: [...this.latencies.subarray(0, this.latencyCount).sort()],
    };
    this.stage = "ending";
    this.id.disconnect();
  }

  private pumpStream(nowNs: number): void {
    for (;;) {
      const count = this.cq.pollCq(this.completions);
      this.outstanding -= count;
      if (nowNs >= this.countFromNs) this.operations += count;
      for (let i = 0; i < count; i++) this.check(this.completions[i] as WorkCompletion, nowNs);
      if (count < this.completions.length) break;
    }
    while (this.outstanding < this.run.depth && this.stage === "running") {
      fillRemote(this.wr, this.opcode, this.mr, 0, this.run.messageBytes);
      if (this.qp.tryPostSend(this.wr) !== 0) return;
      this.outstanding++;
    }
  }

  private pumpPingPong(): void {
    const count = this.cq.pollCq(this.completions);
    const nowNs = monotonicNs();
    for (let i = 0; i < count; i++) this.check(this.completions[i] as WorkCompletion, nowNs);
    if (this.memory.view.getUint32(0) !== this.ping) return;
    if (nowNs >= this.countFromNs && this.latencyCount < LATENCIES_MAX) {
      this.latencies[this.latencyCount++] = (nowNs - this.pingNs) / 2;
      this.operations++;
    }
    if (this.stage === "running") this.sendPing();
  }

  private sendPing(): void {
    this.ping++;
    // Pings leave from the second half of the memory; answers arrive at its start.
    const offset = BENCH_MEMORY_BYTES / 2;
    this.memory.view.setUint32(offset, this.ping);
    fillRemote(this.wr, WR_OPCODE.RDMA_WRITE, this.mr, offset, this.run.messageBytes);
    this.pingNs = monotonicNs();
    this.qp.postSend(this.wr);
  }

  private check(wc: WorkCompletion, nowNs: number): void {
    if (wc.status === WC_STATUS.SUCCESS || this.outcome !== null) return;
    this.outcome = new FarpageError("EIO", `a request failed with status ${wc.status}`);
    this.end(nowNs);
  }
}

/** A ping is a number, and takes one half of the memory. */
function checkSize(run: BenchRun): void {
  const isLatency = run.test === BENCH_TEST.WRITE_LATENCY;
  const min = isLatency ? 4 : 1;
  const max = isLatency ? BENCH_MEMORY_BYTES / 2 : BENCH_MEMORY_BYTES;
  if (run.messageBytes < min || run.messageBytes > max) {
    throw new FarpageError("EINVAL", `messages of this benchmark have ${min} to ${max} bytes`);
  }
}

function opcodeOf(test: BenchTest): WrOpcode {
  if (test === BENCH_TEST.READ) return WR_OPCODE.RDMA_READ;
  return test === BENCH_TEST.SEND_RATE ? WR_OPCODE.SEND : WR_OPCODE.RDMA_WRITE;
}

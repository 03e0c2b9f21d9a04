// SPDX-License-Identifier: MIT
// Rows of the table: every operation of a reliable connection, alone and in company.

import type { Memory } from "../../src/base/index.js";
import {
  ACCESS,
  type CompletionQueue,
  type MemoryRegion,
  QP_STATE,
  type QueuePair,
  RecvWorkRequest,
  SEND_FLAG,
  SendWorkRequest,
  WC_FLAG,
  WC_OPCODE,
  WC_STATUS,
  WorkCompletion,
  WR_OPCODE,
  type WrOpcode,
} from "../../src/verbs/index.js";
import type { Exchange, Scene } from "./cell.js";
import type { SecondPsns } from "./luck.js";
import { MS, type Side, type Stage } from "./stage.js";

const MTU = 1024;
const HALF_BYTES = 32 << 10;
/** 67 ms; with three retries a dead link is known after four of them. */
const ACK_TIMEOUT_CODE = 14;
const ACK_TIMEOUT_NS = 4096 * 2 ** ACK_TIMEOUT_CODE;
const RETRY_COUNT = 3;
/** A probe comes after 2 ms of silence and waits up to 4 ms for what follows it. */
const STALL_NS = 10 * MS;
const READ_DEPTH = 4;
const PSN_DISTANCE = 1_000;
/** What an application leaves where a message has been: whoever writes there again is found. */
const TAKEN = 0xee;
const ADDEND = 7;

/** One request: who posts it, what it is, bytes. */
interface Operation {
  readonly side: Side;
  readonly opcode: WrOpcode;
  readonly length: number;
  readonly fence?: boolean;
}

const { SEND, SEND_WITH_IMM, SEND_WITH_INV, RDMA_WRITE, RDMA_WRITE_WITH_IMM, RDMA_READ } =
  WR_OPCODE;
const { ATOMIC_FETCH_AND_ADD, ATOMIC_CMP_AND_SWP } = WR_OPCODE;

const isAtomic = (opcode: WrOpcode) =>
  opcode === ATOMIC_FETCH_AND_ADD || opcode === ATOMIC_CMP_AND_SWP;
const isSend = (opcode: WrOpcode) => opcode <= SEND_WITH_INV;
const takesReceive = (opcode: WrOpcode) => isSend(opcode) || opcode === RDMA_WRITE_WITH_IMM;

/** One operation of a run, on its way. */
interface Step extends Operation {
  readonly index: number;
  /** Where its bytes are, in both hosts' halves. */
  readonly offset: number;
  status: number;
  isReceived: boolean;
}

/** One host's half of the connection. */
class End {
  readonly side: Side;
  readonly stage: Stage;
  /** Own sources and landings; what the peer reads and writes. */
  readonly out: Memory;
  readonly in: Memory;
  readonly outRegion: MemoryRegion;
  readonly inRegion: MemoryRegion;
  /** What the peer's SEND_WITH_INV invalidates. */
  readonly spare: MemoryRegion;
  spareKey = 0;
  readonly cq: CompletionQueue;
  readonly qp: QueuePair;
  flushedReceives = 0;
  postedReceives = 0;
  doneReceives = 0;
  /** Something has completed. */
  isReady = false;
  private readonly pd;

  constructor(stage: Stage, side: Side) {
    const { context } = stage.stack(side);
    const memory = stage.memory(side);
    this.stage = stage;
    this.side = side;
    this.pd = context.allocPd();
    this.out = memory.allocate(HALF_BYTES);
    this.in = memory.allocate(HALF_BYTES);
    const { LOCAL_WRITE, REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC } = ACCESS;
    const access = LOCAL_WRITE | REMOTE_READ | REMOTE_WRITE | REMOTE_ATOMIC;
    this.outRegion = this.pd.registerMr(this.out, { access: LOCAL_WRITE });
    this.inRegion = this.pd.registerMr(this.in, { access });
    this.spare = this.pd.allocMr();
    this.cq = context.createCq({ depth: 256 });
    const { cq } = this;
    const depths = { maxSendWr: 64, maxRecvWr: 64, maxSendSge: 1, maxRecvSge: 1 };
    this.qp = this.pd.createQp({ type: "RC", sendCq: cq, recvCq: cq, ...depths });
    this.arm();
  }

  /** Moves the queue pair from wherever it is to RTS. */
  connect(peer: End, sendPsn: number, receivePsn: number): void {
    const { qp, stage, side } = this;
    const { REMOTE_READ, REMOTE_WRITE, REMOTE_ATOMIC } = ACCESS;
    const flow = stage.stack(side).device.flow(0, stage.address(peer.side));
    if (qp.state !== QP_STATE.RESET) qp.modifyQp({ state: QP_STATE.RESET });
    const accessFlags = REMOTE_READ | REMOTE_WRITE | REMOTE_ATOMIC;
    qp.modifyQp({ state: QP_STATE.INIT, pkeyIndex: 0, port: 0, accessFlags });
    qp.modifyQp({
      state: QP_STATE.RTR,
      addressVector: { flow },
      pathMtu: MTU,
      destinationQpn: peer.qp.qpn,
      rqPsn: receivePsn,
      maxDestRdAtomic: READ_DEPTH,
      minRnrTimer: 12,
    });
    qp.modifyQp({
      state: QP_STATE.RTS,
      timeout: ACK_TIMEOUT_CODE,
      retryCount: RETRY_COUNT,
      rnrRetry: 7,
      sqPsn: sendPsn,
      maxRdAtomic: READ_DEPTH,
    });
  }

  postReceive(wrId: number, offset: number, length: number): void {
    const wr = new RecvWorkRequest();
    wr.wrId = wrId;
    wr.sgeCount = length === 0 ? 0 : 1;
    wr.sges[0] = { address: this.in.address + offset, length, lkey: this.inRegion.lkey };
    this.qp.postRecv(wr);
    this.postedReceives++;
  }

  post(step: Step, peer: End): void {
    const { opcode, offset, length } = step;
    const wr = new SendWorkRequest();
    wr.wrId = step.index;
    wr.opcode = opcode;
    wr.sendFlags = SEND_FLAG.SIGNALED | (step.fence === true ? SEND_FLAG.FENCE : 0);
    wr.sgeCount = length === 0 ? 0 : 1;
    wr.sges[0] = { address: this.out.address + offset, length, lkey: this.outRegion.lkey };
    const remote = peer.in.address + (isAtomic(opcode) ? 0 : offset);
    wr.remoteAddressHigh = Math.floor(remote / 2 ** 32);
    wr.remoteAddressLow = remote >>> 0;
    wr.rkey = peer.inRegion.rkey;
    wr.immediate = immediateOf(step);
    wr.invalidateKey = peer.spareKey;
    wr.compareAddLow = opcode === ATOMIC_FETCH_AND_ADD ? ADDEND : 0;
    wr.swapLow = ADDEND;
    this.qp.postSend(wr);
  }

  poll(onCompletion: (wc: WorkCompletion) => void): void {
    const into = [new WorkCompletion()];
    if (!this.isReady) return;
    this.isReady = false;
    while (this.cq.pollCq(into) > 0) onCompletion(into[0] as WorkCompletion);
    this.arm();
  }

  close(): void {
    this.qp.modifyQp({ state: QP_STATE.ERR });
  }

  private arm(): void {
    this.cq.requestNotify(false, () => {
      this.isReady = true;
    });
  }

  free(): void {
    this.qp.destroy();
    this.cq.destroy();
    this.spare.deregister();
    this.inRegion.deregister();
    this.outRegion.deregister();
    this.pd.dealloc();
  }
}

function immediateOf(step: Step): number {
  return (0xabc0_0000 + step.index) >>> 0;
}

const STATUS_NAMES = new Map<number, string>(
  Object.entries(WC_STATUS).map(([name, value]) => [value, name]),
);
const PENDING = -1;

/** One row at work. */
class RcScene implements Scene {
  private readonly stage: Stage;
  private readonly operations: readonly Operation[];
  private readonly ends: readonly End[];
  private steps: Step[] = [];
  private run = 0;
  private psns = [0xff_fffa, 0x12_3456];
  /** What is wrong, found in the middle of a turn. */
  private fault: string | null = null;
  private isFreed = false;

  constructor(stage: Stage, operations: readonly Operation[]) {
    this.stage = stage;
    this.operations = operations;
    this.ends = [new End(stage, 0), new End(stage, 1)];
    for (const side of [0, 1] as const) {
      stage.addMachine(
        side,
        () => this.poll(side),
        () => this.end(side).isReady,
      );
    }
    this.connect();
    // One round trip each way is measured, as on a connection that has been in use.
    this.begin([
      { side: 0, opcode: RDMA_WRITE, length: 8 },
      { side: 1, opcode: RDMA_WRITE, length: 8 },
    ]);
    stage.world.run(1_000 * MS, () => this.isOver());
    if (this.outcome() !== "ok") throw new Error("the connection does not come up");
  }

  start(): void {
    this.begin(this.operations);
  }

  startAgain(psns: SecondPsns): void {
    const step = psns === "behind" ? PSN_DISTANCE : -PSN_DISTANCE;
    this.psns = this.psns.map((psn) => (psn + step) & 0xff_ffff);
    this.connect();
    this.begin(this.operations);
  }

  isOver(): boolean {
    return this.fault !== null || this.steps.every((step) => step.status !== PENDING);
  }

  outcome(): string {
    if (this.fault !== null) throw new Error(this.fault);
    const texts = ([0, 1] as const).map((side) => this.outcomeOf(side)).filter((t) => t !== "");
    if (!texts.every((text) => text === "ok")) return texts.join("; ");
    for (const step of this.steps) this.checkEffects(step);
    return "ok";
  }

  close(): void {
    for (const end of this.ends) end.close();
  }

  isClosed(): boolean {
    if (this.fault !== null) throw new Error(this.fault);
    const isFlushed = this.ends.every(
      (end) => end.doneReceives + end.flushedReceives === end.postedReceives,
    );
    if (isFlushed && !this.isFreed) {
      this.isFreed = true;
      for (const end of this.ends) end.free();
    }
    return isFlushed;
  }

  private end(side: number): End {
    return this.ends[side] as End;
  }

  private connect(): void {
    const [a, b] = this.psns as [number, number];
    this.end(0).connect(this.end(1), a, b);
    this.end(1).connect(this.end(0), b, a);
  }

  private begin(operations: readonly Operation[]): void {
    this.run++;
    let offset = 64;
    this.steps = operations.map((operation, index) => {
      const step = { ...operation, index, offset, status: PENDING, isReceived: false };
      offset += Math.ceil((operation.length + 32) / 64) * 64;
      return step;
    });
    for (const end of this.ends) {
      end.postedReceives = 0;
      end.doneReceives = 0;
      end.flushedReceives = 0;
      for (let i = 0; i < HALF_BYTES; i++) {
        end.out.bytes[i] = this.patternOf(end.side, 0, i);
        end.in.bytes[i] = this.patternOf(end.side, 1, i);
      }
      end.in.bytes.fill(0, 0, 16);
    }
    for (const step of this.steps) this.prepare(step);
    for (const step of this.steps) this.end(step.side).post(step, this.end(1 - step.side));
    this.stage.wake();
  }

  private prepare(step: Step): void {
    const peer = this.end(1 - step.side);
    if (takesReceive(step.opcode)) {
      const length = isSend(step.opcode) ? step.length : 0;
      peer.postReceive(step.index, step.offset, length);
    }
    if (step.opcode !== SEND_WITH_INV) return;
    peer.spare.invalidate();
    const { inRegion, spare } = peer;
    peer.spareKey = spare.fastRegister(inRegion, peer.in.address, 64, ACCESS.LOCAL_WRITE);
  }

  private patternOf(side: Side, kind: 0 | 1, i: number): number {
    return (i * (side === 0 ? 31 : 17) + (i >> 8) + kind * 101 + this.run * 7) & 0xff;
  }

  private poll(side: Side): void {
    if (this.isFreed) return;
    this.end(side).poll((wc) => {
      try {
        if (wc.opcode >= WC_OPCODE.RECV) this.onReceived(side, wc);
        else this.onSent(side, wc);
      } catch (error) {
        this.fault ??= error instanceof Error ? error.message : String(error);
      }
    });
  }

  private onSent(side: Side, wc: WorkCompletion): void {
    const step = this.steps[wc.wrId] as Step;
    if (step.side !== side) throw new Error("a completion on the wrong side");
    if (step.status !== PENDING) throw new Error(`request ${wc.wrId} completes twice`);
    const earlier = this.steps.filter((other) => other.side === side && other.index < step.index);
    if (earlier.some((other) => other.status === PENDING)) throw new Error("out of order");
    step.status = wc.status;
    if (wc.status !== WC_STATUS.SUCCESS) return;
    const peer = this.end(1 - side);
    const { opcode, offset, length } = step;
    if (opcode === RDMA_WRITE || opcode === RDMA_WRITE_WITH_IMM) {
      this.expectPattern(peer.in, side, 0, offset, length, `write ${step.index} at the peer`);
      peer.in.bytes.fill(TAKEN, offset, offset + length);
    } else if (opcode === RDMA_READ) {
      const { out } = this.end(side);
      this.expectPattern(out, peer.side, 1, offset, length, `read ${step.index}`);
      out.bytes.fill(TAKEN, offset, offset + length);
    }
  }

  private onReceived(side: Side, wc: WorkCompletion): void {
    const end = this.end(side);
    if (wc.status === WC_STATUS.WR_FLUSH_ERR) {
      end.flushedReceives++;
      return;
    }
    end.doneReceives++;
    const step = this.steps[wc.wrId] as Step;
    const { index, opcode, offset, length } = step;
    if (wc.status !== WC_STATUS.SUCCESS) throw new Error(`receive ${index}: status ${wc.status}`);
    if (step.isReceived) throw new Error(`message ${index} is received twice`);
    if (wc.byteLength !== length) throw new Error(`message ${index}: ${wc.byteLength} bytes`);
    step.isReceived = true;
    const hasImmediate = opcode === SEND_WITH_IMM || opcode === RDMA_WRITE_WITH_IMM;
    if (hasImmediate !== ((wc.flags & WC_FLAG.WITH_IMM) !== 0)) throw new Error("immediate or not");
    if (hasImmediate && wc.immediate !== immediateOf(step)) throw new Error("another immediate");
    if (opcode === SEND_WITH_INV && wc.invalidatedKey !== end.spareKey) {
      throw new Error("another key was invalidated");
    }
    if (!isSend(opcode)) return;
    this.expectPattern(end.in, step.side, 0, offset, length, `message ${index}`);
    end.in.bytes.fill(TAKEN, offset, offset + length);
  }

  private expectPattern(
    memory: Memory,
    side: Side,
    kind: 0 | 1,
    offset: number,
    length: number,
    what: string,
  ): void {
    for (let i = offset; i < offset + length; i++) {
      if (memory.bytes[i] === this.patternOf(side, kind, i)) continue;
      throw new Error(`${what}: byte ${i - offset} of ${length} is wrong`);
    }
  }

  private outcomeOf(side: Side): string {
    const own = this.steps.filter((step) => step.side === side);
    if (own.length === 0) return "";
    if (own.every((step) => step.status === WC_STATUS.SUCCESS)) return "ok";
    return own.map((step) => STATUS_NAMES.get(step.status) ?? `${step.status}`).join(",");
  }

  /** After success: each message was received, and nothing was executed again since. */
  private checkEffects(step: Step): void {
    const { index, opcode, offset, length, side } = step;
    const peer = this.end(1 - side);
    if (takesReceive(opcode) && !step.isReceived) throw new Error(`no message ${index}`);
    const taken = opcode === RDMA_READ ? this.end(side).out : peer.in;
    if (!isAtomic(opcode)) {
      for (let i = offset; i < offset + length; i++) {
        if (taken.bytes[i] !== TAKEN) throw new Error(`${index} is executed once more`);
      }
      return;
    }
    const atomics = this.steps.filter((other) => other.side === side && isAtomic(other.opcode));
    const sum = peer.in.view.getUint32(0, true);
    if (sum !== atomics.length * ADDEND) throw new Error(`${atomics.length} make ${sum}`);
    const before = atomics.filter((other) => other.index < index);
    const original = this.end(side).out.view.getUint32(offset, true);
    if (original !== before.length * ADDEND) throw new Error(`atomic ${index} saw ${original}`);
  }
}

const one = (opcode: WrOpcode, length: number): Operation[] => [{ side: 0, opcode, length }];
const several = (...list: readonly (readonly [WrOpcode, number])[]): Operation[] =>
  list.map(([opcode, length]) => ({ side: 0, opcode, length }));
const bothWays = (list: readonly Operation[]): Operation[] =>
  list.flatMap((operation) => [operation, { ...operation, side: 1 }]);

const PIPELINE = several(
  [RDMA_WRITE, 3000],
  [SEND, 100],
  [RDMA_READ, 4000],
  [ATOMIC_FETCH_AND_ADD, 8],
  [RDMA_WRITE, 10],
  [RDMA_READ, 2000],
  [SEND_WITH_IMM, 1500],
);

const ROWS: Readonly<Record<string, readonly Operation[]>> = {
  "send, 0 bytes": one(SEND, 0),
  "send, 1 packet": one(SEND, 100),
  "send, 2 packets": one(SEND, 1025),
  "send, 5 packets": one(SEND, 5000),
  "send with immediate, 3 packets": one(SEND_WITH_IMM, 3000),
  "send with invalidate, 1 packet": one(SEND_WITH_INV, 64),
  "send with invalidate, 3 packets": one(SEND_WITH_INV, 2500),
  "write, 0 bytes": one(RDMA_WRITE, 0),
  "write, 1 packet": one(RDMA_WRITE, 1024),
  "write, 4 packets": one(RDMA_WRITE, 4096),
  "write with immediate, 0 bytes": one(RDMA_WRITE_WITH_IMM, 0),
  "write with immediate, 3 packets": one(RDMA_WRITE_WITH_IMM, 2500),
  "read, 0 bytes": one(RDMA_READ, 0),
  "read, 1 packet": one(RDMA_READ, 500),
  "read, 4 packets": one(RDMA_READ, 4000),
  "fetch and add": one(ATOMIC_FETCH_AND_ADD, 8),
  "compare and swap": one(ATOMIC_CMP_AND_SWP, 8),
  "4 sends": several([SEND, 10], [SEND, 1100], [SEND, 0], [SEND, 30]),
  "3 atomics": several(
    [ATOMIC_FETCH_AND_ADD, 8],
    [ATOMIC_FETCH_AND_ADD, 8],
    [ATOMIC_FETCH_AND_ADD, 8],
  ),
  "6 reads, more than may be outstanding": several(
    ...Array.from({ length: 6 }, () => [RDMA_READ, 1500] as const),
  ),
  "read behind write behind read": several([RDMA_READ, 1500], [RDMA_WRITE, 1500], [RDMA_READ, 10]),
  "everything at once": PIPELINE,
  "everything at once, both ways": bothWays(PIPELINE),
  "fenced behind a read": [
    { side: 0, opcode: RDMA_READ, length: 2000 },
    { side: 0, opcode: RDMA_WRITE, length: 1500, fence: true },
  ],
};

/** On a dead link: what was answered is done, the oldest is given up, the rest is flushed. */
const GIVEN_UP_SIDE = "(ok|(SUCCESS,)*RETRY_EXC_ERR(,WR_FLUSH_ERR)*)";
const GIVEN_UP = new RegExp(`^${GIVEN_UP_SIDE}(; ${GIVEN_UP_SIDE})?$`);

export const RC_EXCHANGES: readonly Exchange[] = Object.entries(ROWS).map(([name, operations]) => ({
  name: `RC ${name}`,
  stallNs: STALL_NS,
  // Each answer that still came through has renewed the retries.
  deadNs: (RETRY_COUNT + 1) * ACK_TIMEOUT_NS + 100 * MS,
  deadOutcomes: GIVEN_UP,
  seconds: ["behind", "ahead"],
  build: (stage: Stage) => new RcScene(stage, operations),
}));

// SPDX-License-Identifier: MIT
// Rows of the table: what two connection managers say to each other.

import type { CmEvent, CmId, EventChannel, PortSpace } from "../../src/cm/index.js";
import type { CompletionQueue, ProtectionDomain, QueuePair } from "../../src/verbs/index.js";
import { QP_STATE } from "../../src/verbs/index.js";
import type { Exchange, Scene } from "./cell.js";
import { MS, SECOND, type Side, type Stage } from "./stage.js";

const PORT = 7471;
/** A lost message is said again after 200 ms, then 400, ... */
const STALL_NS = 450 * MS;
/** Longer than a connect or an accept waits (30 s) and everything that its end sets off. */
const DEAD_NS = 40 * SECOND;
/** What an application takes to accept, in the row where it is slow. */
const THINKING_NS = SECOND;
const CONNECT_DATA = Uint8Array.of(1, 2, 3);
const ACCEPT_DATA = Uint8Array.of(4, 5);
const REJECT_DATA = Uint8Array.of(6);

/** What a passive application does with a request. */
type Answer = "accept" | "accept late" | "reject" | "destroy";

interface Row {
  readonly name: string;
  readonly portSpace?: PortSpace;
  /** Default: accepts. */
  readonly answer?: Answer;
  /** Nobody listens there. */
  readonly isDeaf?: boolean;
  /** Connected before the exchange begins; then these sides leave. */
  readonly leaves?: readonly Side[];
  /** The active side gives up at once. */
  readonly withdraws?: boolean;
  /** What each side has heard at the end, TIMEWAIT_EXIT left out. */
  readonly heard: readonly [string, string];
  /** On a dead link, either side may also have heard this. */
  readonly dead: readonly [RegExp, RegExp];
}

/** One application: a channel, and what it has heard of its id. */
class Application {
  readonly side: Side;
  readonly stage: Stage;
  readonly channel: EventChannel;
  readonly heard: string[] = [];
  readonly answer: Answer;
  id: CmId | null = null;
  qp: QueuePair | null = null;
  fault: string | null = null;
  private readonly pd: ProtectionDomain;
  private readonly cq: CompletionQueue;
  private readonly portSpace: PortSpace;

  constructor(stage: Stage, side: Side, portSpace: PortSpace, answer: Answer) {
    const { context, cm } = stage.stack(side);
    this.side = side;
    this.stage = stage;
    this.portSpace = portSpace;
    this.answer = answer;
    this.channel = cm.createChannel();
    this.pd = context.allocPd();
    this.cq = context.createCq({ depth: 16 });
    stage.addMachine(
      side,
      () => this.poll(),
      () => false,
    );
  }

  /** The queue pair, in RESET: the same for every connection. */
  renewQp(): QueuePair {
    const { cq } = this;
    const type = this.portSpace === "TCP" ? "RC" : "UD";
    if (this.qp === null) {
      this.qp = this.pd.createQp({ type, sendCq: cq, recvCq: cq, maxSendWr: 4, maxRecvWr: 4 });
    } else {
      this.qp.modifyQp({ state: QP_STATE.RESET });
    }
    return this.qp;
  }

  free(): void {
    this.qp?.destroy();
    this.cq.destroy();
    this.pd.dealloc();
  }

  private poll(): void {
    for (let event = this.channel.poll(); event !== null; event = this.channel.poll()) {
      try {
        this.onEvent(event);
      } catch (error) {
        this.fault ??= error instanceof Error ? error.message : String(error);
      }
    }
  }

  private onEvent(event: CmEvent): void {
    const { type, id, status } = event;
    if (type === "CONNECT_REQUEST") {
      this.onRequest(event);
      return;
    }
    if (type === "TIMEWAIT_EXIT" || id !== this.id) return;
    this.heard.push(status === 0 ? type : `${type} ${status}`);
    if (type === "DISCONNECTED") id.disconnect();
    const data = this.side === 0 && type === "ESTABLISHED" ? ACCEPT_DATA : null;
    if (data !== null) this.expectData(event, data);
    if (type === "REJECTED" && status === 28 && this.answer === "reject") {
      this.expectData(event, REJECT_DATA);
    }
  }

  private onRequest(event: CmEvent): void {
    if (this.id !== null) {
      this.fault ??= "the request comes twice";
      event.id.destroy();
      return;
    }
    this.heard.push(event.type);
    this.expectData(event, CONNECT_DATA);
    const { id } = event;
    this.id = id;
    if (id.state === "CLOSED") return;
    switch (this.answer) {
      case "accept":
        id.bindQp(this.renewQp());
        id.accept({ privateData: ACCEPT_DATA });
        return;
      case "reject":
        id.reject(REJECT_DATA);
        return;
      case "destroy":
        id.destroy();
        return;
      case "accept late":
        this.stage.world.after(THINKING_NS, "the application accepts", () => {
          if (id.state !== "REQ_RCVD") return;
          id.bindQp(this.renewQp());
          id.accept();
        });
    }
  }

  private expectData(event: CmEvent, data: Uint8Array): void {
    const { privateData } = event;
    const isSame = data.every((byte, i) => privateData[i] === byte);
    const isPadded = privateData.subarray(data.length).every((byte) => byte === 0);
    if (!isSame || !isPadded) this.fault ??= `${event.type}: other private data`;
  }
}

class CmScene implements Scene {
  private readonly stage: Stage;
  private readonly row: Row;
  private readonly portSpace: PortSpace;
  private readonly active: Application;
  private readonly passive: Application;
  private isFreed = false;

  constructor(stage: Stage, row: Row) {
    this.stage = stage;
    this.row = row;
    const { portSpace = "TCP", answer = "accept" } = row;
    this.portSpace = portSpace;
    this.active = new Application(stage, 0, portSpace, answer);
    this.passive = new Application(stage, 1, portSpace, answer);
    if (row.isDeaf !== true) this.passive.channel.listen({ address: null, port: PORT, portSpace });
    if (row.leaves !== undefined) this.bringUp();
  }

  start(): void {
    const { row } = this;
    if (row.leaves === undefined) this.connect();
    for (const side of row.leaves ?? []) this.application(side).id?.disconnect();
    if (row.withdraws === true) {
      this.active.id?.destroy();
      this.stage.world.after(2 * THINKING_NS, "nothing comes any more", () => {});
    }
    this.stage.wake();
  }

  startAgain(): void {
    for (const side of [0, 1] as const) {
      const application = this.application(side);
      application.id?.destroy();
      application.id = null;
    }
    // As the specification demands: numbers are used again when timewait is over.
    this.stage.world.run(5 * SECOND);
    for (const side of [0, 1] as const) this.application(side).heard.length = 0;
    if (this.row.leaves !== undefined) this.bringUp();
    this.start();
  }

  isOver(): boolean {
    const { active, passive, row } = this;
    if (active.fault !== null || passive.fault !== null) return true;
    return this.hasEnded(active, row.heard[0]) && this.hasEnded(passive, row.heard[1]);
  }

  outcome(): string {
    const { active, passive, row } = this;
    const fault = active.fault ?? passive.fault;
    if (fault !== null) throw new Error(fault);
    const texts = [active.heard.join(), passive.heard.join()] as const;
    if (texts[0] === row.heard[0] && texts[1] === row.heard[1]) return this.checkUp();
    // What is withdrawn at once is not said again.
    if (row.withdraws === true && texts[1] === NOTHING) return "ok";
    const isAllowed = texts.every((text, side) => row.dead[side]?.test(text));
    return `${isAllowed ? "dead" : "wrong"}: ${texts.join(" | ")}`;
  }

  close(): void {
    this.active.channel.close();
    this.passive.channel.close();
  }

  isClosed(): boolean {
    if (this.isFreed) return true;
    if (this.stage.stacks.some(({ cm }) => cm.liveCount > 0)) return false;
    this.isFreed = true;
    this.active.free();
    this.passive.free();
    return true;
  }

  private application(side: Side): Application {
    return side === 0 ? this.active : this.passive;
  }

  private connect(): void {
    const { active, portSpace, stage } = this;
    const id = active.channel.createId(portSpace);
    active.id = id;
    id.resolve({ source: stage.address(0), destination: stage.address(1), port: PORT });
    id.bindQp(active.renewQp());
    id.connect({ privateData: CONNECT_DATA });
  }

  private bringUp(): void {
    this.connect();
    this.stage.wake();
    const isUp = () => this.passive.heard.includes("ESTABLISHED");
    if (!this.stage.world.run(SECOND, isUp)) throw new Error("the connection does not come up");
    // The conversation about it is over, too.
    this.stage.world.run(10 * MS);
    this.active.heard.length = 0;
    this.passive.heard.length = 0;
  }

  /** As the row says, or with whatever this side can hear on a dead link at the very last. */
  private hasEnded(application: Application, heard: string): boolean {
    if (application.heard.join() === heard) return true;
    const last = application.heard.at(-1) ?? "";
    if (/^(UNREACHABLE|REJECTED|DISCONNECTED|CONNECT_ERROR)/.test(last)) return true;
    // Nobody tells a side of what never came: neither of a REQ nor of a goodbye.
    const other = application === this.active ? this.passive : this.active;
    const isAlone = application.heard.length === 0;
    if (isAlone && this.row.withdraws === true) return this.stage.elapsedNs >= 2 * THINKING_NS;
    return isAlone && (other.heard.at(-1) ?? "").endsWith(` ${TIMEOUT}`);
  }

  /** Both believe the same: the queue pairs are in RTS and name each other, or are dead. */
  private checkUp(): string {
    const { active, passive, portSpace } = this;
    if (active.heard.at(-1) !== "ESTABLISHED" || portSpace !== "TCP") return "ok";
    const [a, b] = [active.qp as QueuePair, passive.qp as QueuePair];
    if (a.state !== QP_STATE.RTS || b.state !== QP_STATE.RTS) return "up without queue pairs";
    if (a.queryQp().destinationQpn !== b.qpn) throw new Error("connected to somebody else");
    if (a.queryQp().rqPsn !== b.queryQp().sqPsn) throw new Error("PSNs differ");
    if (b.queryQp().rqPsn !== a.queryQp().sqPsn) throw new Error("PSNs differ");
    return "ok";
  }
}

const TIMEOUT = 110;
const UNREACHABLE = `UNREACHABLE ${TIMEOUT}`;
const NOTHING = "";
const ANY_ACTIVE = new RegExp(`^(${UNREACHABLE}|ESTABLISHED(,DISCONNECTED( \\d+)?)?)$`);
const ACCEPTED = `ESTABLISHED(,DISCONNECTED( \\d+)?)?|${UNREACHABLE}|REJECTED 4`;
const ANY_PASSIVE = new RegExp(`^(CONNECT_REQUEST(,(${ACCEPTED}))?)?$`);
const LEFT = new RegExp(`^(DISCONNECTED( ${TIMEOUT})?)?$`);
const REFUSED = new RegExp(`^(${UNREACHABLE}|REJECTED \\d+)$`);
const ASKED = /^(CONNECT_REQUEST(,REJECTED 4)?)?$/;

const ROWS: readonly Row[] = [
  {
    name: "connect, accept",
    heard: ["ESTABLISHED", "CONNECT_REQUEST,ESTABLISHED"],
    dead: [ANY_ACTIVE, ANY_PASSIVE],
  },
  {
    name: "connect, reject",
    answer: "reject",
    heard: ["REJECTED 28", "CONNECT_REQUEST"],
    dead: [REFUSED, ASKED],
  },
  {
    name: "connect, nobody listens",
    isDeaf: true,
    heard: ["REJECTED 8", NOTHING],
    dead: [REFUSED, ASKED],
  },
  {
    name: "connect, destroyed unanswered",
    answer: "destroy",
    heard: ["REJECTED 28", "CONNECT_REQUEST"],
    dead: [REFUSED, ASKED],
  },
  {
    name: "connect, withdrawn at once",
    answer: "accept late",
    withdraws: true,
    heard: [NOTHING, "CONNECT_REQUEST,REJECTED 4"],
    dead: [/^$/, new RegExp(`^(CONNECT_REQUEST,(REJECTED 4|${UNREACHABLE}))?$`)],
  },
  {
    name: "disconnect by the active side",
    leaves: [0],
    heard: ["DISCONNECTED", "DISCONNECTED"],
    dead: [LEFT, LEFT],
  },
  {
    name: "disconnect by the passive side",
    leaves: [1],
    heard: ["DISCONNECTED", "DISCONNECTED"],
    dead: [LEFT, LEFT],
  },
  {
    name: "disconnect by both",
    leaves: [0, 1],
    heard: ["DISCONNECTED", "DISCONNECTED"],
    dead: [LEFT, LEFT],
  },
  {
    name: "SIDR, found",
    portSpace: "UDP",
    heard: ["ESTABLISHED", "CONNECT_REQUEST"],
    dead: [ANY_ACTIVE, ASKED],
  },
  {
    name: "SIDR, nobody listens",
    portSpace: "UDP",
    isDeaf: true,
    heard: ["UNREACHABLE 1", NOTHING],
    dead: [ANY_ACTIVE, ASKED],
  },
];

export const CM_EXCHANGES: readonly Exchange[] = ROWS.map((row) => ({
  name: `CM ${row.name}`,
  stallNs: row.withdraws === true ? 2 * THINKING_NS + MS : STALL_NS,
  deadNs: DEAD_NS,
  deadOutcomes: /^dead: /,
  seconds: ["fresh"],
  build: (stage: Stage) => new CmScene(stage, row),
}));

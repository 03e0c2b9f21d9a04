// SPDX-License-Identifier: MIT
// One exchange with one peer: the connection manager's own record, which may outlive the user's id
// (a goodbye that has to be repeated, timewait). States after IBTA vol1 §12.9.7 and librdmacm.

import { assert, type IpAddress } from "../base/index.js";
import type { PathMtu } from "../verbs/index.js";
import type { CmId } from "./cm-id.js";
import type { PortSpace } from "./event.js";
import type { Listener } from "./listener.js";
import type { Timed } from "./timer-heap.js";

/**
 * - `IDLE`: made, nothing sent.
 * - `REQ_SENT`: active, waiting for REP, REJ or MRA. Repeats its REQ.
 * - `REQ_RCVD`: passive, waiting for the application.
 * - `REP_SENT`: passive, waiting for RTU or data. Repeats its REP.
 * - `ESTABLISHED`
 * - `DREQ_SENT`: waiting for DREP. Repeats its DREQ.
 * - `DREQ_RCVD`: waiting for the application to disconnect too.
 * - `SIDR_REQ_SENT`: waiting for SIDR_REP. Repeats its SIDR_REQ.
 * - `SIDR_REQ_RCVD`: waiting for the application.
 * - `TIMEWAIT`: over; late packets may still be about.
 * - `ANSWERED`: over; the last word (`message`) is kept for a peer that asks again.
 * - `CLOSED`: forgotten; in no table.
 */
export type ConnectionState =
  | "IDLE"
  | "REQ_SENT"
  | "REQ_RCVD"
  | "REP_SENT"
  | "ESTABLISHED"
  | "DREQ_SENT"
  | "DREQ_RCVD"
  | "SIDR_REQ_SENT"
  | "SIDR_REQ_RCVD"
  | "TIMEWAIT"
  | "ANSWERED"
  | "CLOSED";

/** Every legal move; all of them go through `Connection.setState`. */
const MOVES: Readonly<Record<ConnectionState, readonly ConnectionState[]>> = {
  IDLE: ["REQ_SENT", "REQ_RCVD", "SIDR_REQ_SENT", "SIDR_REQ_RCVD", "CLOSED"],
  REQ_SENT: ["ESTABLISHED", "ANSWERED", "TIMEWAIT", "CLOSED"],
  REQ_RCVD: ["REP_SENT", "ANSWERED", "TIMEWAIT", "CLOSED"],
  REP_SENT: ["ESTABLISHED", "DREQ_RCVD", "ANSWERED", "TIMEWAIT", "CLOSED"],
  ESTABLISHED: ["DREQ_SENT", "DREQ_RCVD", "TIMEWAIT"],
  DREQ_SENT: ["TIMEWAIT"],
  DREQ_RCVD: ["TIMEWAIT"],
  SIDR_REQ_SENT: ["CLOSED"],
  SIDR_REQ_RCVD: ["ANSWERED", "CLOSED"],
  TIMEWAIT: ["ANSWERED", "CLOSED"],
  ANSWERED: ["CLOSED"],
  CLOSED: [],
};

/** What two ends agree on, as our queue pair gets it (rocev2 facts section 19, first table). */
export interface Agreement {
  /** Peer's queue pair. */
  remoteQpn: number;
  /** First PSN that we send: the peer's message named it. */
  sendPsn: number;
  /** First PSN that the peer sends: our message named it. */
  receivePsn: number;
  pathMtu: PathMtu;
  retryCount: number;
  rnrRetry: number;
  /** Coded local ACK timeout. */
  ackTimeout: number;
  /** READs and atomics of the peer served here. */
  responderResources: number;
  /** Own READs and atomics outstanding. */
  initiatorDepth: number;
}

const NO_DATA = new Uint8Array(0);

export class Connection implements Timed {
  state: ConnectionState = "IDLE";
  /** The user's id; null once the user has destroyed it. */
  id: CmId | null = null;
  /** Passive: who was asked; null after the answer. */
  listener: Listener | null = null;
  readonly portSpace: PortSpace;
  readonly isPassive: boolean;
  /** Ours, never 0, unpredictable; SIDR: the request id that we chose. */
  readonly localCommId: number;
  /** The peer's; 0 until known. SIDR passive: the request id that the peer chose. */
  remoteCommId = 0;
  /** Of the message that opened the exchange, or, from a DREQ on, of that. */
  transactionHigh = 0;
  transactionLow = 0;
  readonly devicePort: number;
  readonly localAddress: IpAddress;
  readonly remoteAddress: IpAddress;
  readonly trafficClass: number;
  remoteGuidHigh = 0;
  remoteGuidLow = 0;
  localQpn = 0;
  readonly agreement: Agreement = {
    remoteQpn: 0,
    sendPsn: 0,
    receivePsn: 0,
    pathMtu: 1024,
    retryCount: 0,
    rnrRetry: 0,
    ackTimeout: 0,
    responderResources: 0,
    initiatorDepth: 0,
  };
  /** Active: the ACK timeout is what the user chose. */
  isTimeoutChosen = false;
  /** SIDR passive: what the SIDR_REP repeats. */
  serviceIdHigh = 0;
  serviceIdLow = 0;
  /** Why the exchange ended, for a peer that asks again: a REJ reason (SIDR: `message` has it). */
  answerReason = 0;
  answerData: Uint8Array = NO_DATA;
  /** Whether the peer's REQ counts against the half-open limits. */
  isHalfOpen = false;
  /** Whether it is in the table of peers' comm ids, and in that of peers' queue pairs. */
  hasRemoteKey = false;
  hasQpnKey = false;
  /** What is repeated until answered, or (ANSWERED) whenever the peer asks again; null: nothing. */
  message: Uint8Array | null = null;
  /** Time to the next repetition, and from the start of the clock to giving up. */
  intervalNs = 0;
  budgetNs = 0;
  /** When to give up; `Infinity` while the clock has not been started. */
  giveUpNs = Number.POSITIVE_INFINITY;
  /** When MRAs stop being believed; `Infinity` while the clock has not been started. */
  mraLimitNs = Number.POSITIVE_INFINITY;
  /** The clock starts with the next pump. */
  isFresh = false;
  timerNs = Number.POSITIVE_INFINITY;
  heapIndex = -1;

  constructor(o: {
    readonly portSpace: PortSpace;
    readonly isPassive: boolean;
    readonly localCommId: number;
    readonly devicePort: number;
    readonly localAddress: IpAddress;
    readonly remoteAddress: IpAddress;
    readonly trafficClass: number;
  }) {
    this.portSpace = o.portSpace;
    this.isPassive = o.isPassive;
    this.localCommId = o.localCommId;
    this.devicePort = o.devicePort;
    this.localAddress = o.localAddress;
    this.remoteAddress = o.remoteAddress;
    this.trafficClass = o.trafficClass;
  }

  setState(state: ConnectionState): void {
    assert(
      MOVES[this.state].includes(state),
      `a connection does not go from ${this.state} to ${state}`,
    );
    this.state = state;
  }

  /** Whether the exchange is over and only its memory is left. */
  get isOver(): boolean {
    return this.state === "TIMEWAIT" || this.state === "ANSWERED" || this.state === "CLOSED";
  }
}

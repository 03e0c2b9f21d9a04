// SPDX-License-Identifier: MIT
// Queue pair states, attributes, and the one table of legal moves between states (IBTA vol1 §10.3.1
// and table 91; facts page, section 13). Only the queue pair applies what this file has approved.

import { FarpageError } from "../base/index.js";
import type { TxFlow } from "./link.js";

/** States with the values of ibv_qp_state. */
export const QP_STATE = {
  RESET: 0,
  INIT: 1,
  RTR: 2,
  RTS: 3,
  SQD: 4,
  SQE: 5,
  ERR: 6,
} as const;
export type QpState = (typeof QP_STATE)[keyof typeof QP_STATE];
export type QpStateName = keyof typeof QP_STATE;

export const QP_STATE_NAMES: readonly QpStateName[] = [
  "RESET",
  "INIT",
  "RTR",
  "RTS",
  "SQD",
  "SQE",
  "ERR",
];

/** Kinds of queue pair; GSI is the UD queue pair number 1 of a port. */
export const QP_TYPE = { RC: 0, UD: 1, GSI: 2 } as const;
export type QpType = (typeof QP_TYPE)[keyof typeof QP_TYPE];

/** A path MTU of RoCE in bytes. */
export type PathMtu = 256 | 512 | 1024 | 2048 | 4096;

/** What `QpCore.modify` takes, in the vocabulary of ibv_qp_attr; absent means unchanged. */
export interface QpAttributes {
  /** The state to move to; absent: stay. */
  state?: QpState;
  /** Refuse unless the queue pair is in this state now. */
  currentState?: QpState;
  /** 0, the only P_Key (0xFFFF). */
  pkeyIndex?: number;
  /** Index of the local address (`Link.addresses`). */
  port?: number;
  /** What the peer may do, `ACCESS` bits REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC. */
  accessFlags?: number;
  /** UD: 32 bits. */
  qkey?: number;
  /** Where the connected peer is. */
  addressVector?: { readonly flow: TxFlow };
  pathMtu?: PathMtu;
  /** 24 bits. */
  destinationQpn?: number;
  /** First PSN expected from the peer, 24 bits. */
  rqPsn?: number;
  /** First PSN sent, 24 bits. */
  sqPsn?: number;
  /** READs and atomics that this side has outstanding at most, 0 .. 128. */
  maxRdAtomic?: number;
  /** READs and atomics that the peer may have outstanding here, 0 .. 128. */
  maxDestRdAtomic?: number;
  /** RNR timer code sent in RNR NAKs, 0 .. 31 (0 is the longest: 655 ms). */
  minRnrTimer?: number;
  /** Local ACK timeout code, 0 .. 31: 4.096 us x 2^code; 0 waits for ever. */
  timeout?: number;
  /** Retries without progress, 0 .. 7. 7 is seven, as the specification has it. */
  retryCount?: number;
  /** Retries after RNR NAKs, 0 .. 6; 7 is for ever. */
  rnrRetry?: number;
  /** RTS to SQD: raise SQ_DRAINED when what was started has completed. */
  sqdNotify?: boolean;
}

export type QpAttributeName = Exclude<keyof QpAttributes, "state" | "currentState">;

interface Transition {
  readonly required: readonly QpAttributeName[];
  readonly optional: readonly QpAttributeName[];
}

const NOTHING: Transition = { required: [], optional: [] };

const RC_INIT: readonly QpAttributeName[] = ["pkeyIndex", "port", "accessFlags"];
const RC_RTS_OPTIONAL: readonly QpAttributeName[] = ["accessFlags", "minRnrTimer"];
const UD_INIT: readonly QpAttributeName[] = ["pkeyIndex", "port", "qkey"];

/** Moves of RC queue pairs but for those to RESET and ERR, keyed `from>to`. */
const RC_TRANSITIONS: Readonly<Record<string, Transition>> = {
  "RESET>INIT": { required: RC_INIT, optional: [] },
  "INIT>INIT": { required: [], optional: RC_INIT },
  "INIT>RTR": {
    required: [
      "addressVector",
      "pathMtu",
      "destinationQpn",
      "rqPsn",
      "maxDestRdAtomic",
      "minRnrTimer",
    ],
    optional: ["pkeyIndex", "accessFlags"],
  },
  "RTR>RTS": {
    required: ["timeout", "retryCount", "rnrRetry", "sqPsn", "maxRdAtomic"],
    optional: RC_RTS_OPTIONAL,
  },
  "RTS>RTS": { required: [], optional: RC_RTS_OPTIONAL },
  "RTS>SQD": { required: [], optional: ["sqdNotify"] },
  "SQD>RTS": { required: [], optional: RC_RTS_OPTIONAL },
  "SQD>SQD": {
    required: [],
    optional: [
      "accessFlags",
      "addressVector",
      "maxDestRdAtomic",
      "maxRdAtomic",
      "minRnrTimer",
      "pkeyIndex",
      "retryCount",
      "rnrRetry",
      "timeout",
    ],
  },
};

/** The same for UD and the GSI. */
const UD_TRANSITIONS: Readonly<Record<string, Transition>> = {
  "RESET>INIT": { required: UD_INIT, optional: [] },
  "INIT>INIT": { required: [], optional: UD_INIT },
  "INIT>RTR": { required: [], optional: ["pkeyIndex", "qkey"] },
  "RTR>RTS": { required: ["sqPsn"], optional: ["qkey"] },
  "RTS>RTS": { required: [], optional: ["qkey"] },
  "RTS>SQD": { required: [], optional: ["sqdNotify"] },
  "SQD>RTS": { required: [], optional: ["qkey"] },
  "SQD>SQD": { required: [], optional: ["pkeyIndex", "qkey"] },
  "SQE>RTS": { required: [], optional: ["qkey"] },
};

/** Inclusive bounds of the numeric attributes. */
const RANGES: readonly (readonly [QpAttributeName, number])[] = [
  ["pkeyIndex", 0],
  ["accessFlags", 15],
  ["qkey", 0xffff_ffff],
  ["destinationQpn", 0xff_ffff],
  ["rqPsn", 0xff_ffff],
  ["sqPsn", 0xff_ffff],
  ["maxRdAtomic", 128],
  ["maxDestRdAtomic", 128],
  ["minRnrTimer", 31],
  ["timeout", 31],
  ["retryCount", 7],
  ["rnrRetry", 7],
];

function findTransition(type: QpType, from: QpState, to: QpState): Transition | null {
  if (to === QP_STATE.RESET) return NOTHING;
  // IBTA vol1 §10.3.1: any state but RESET may be forced to Error.
  if (to === QP_STATE.ERR) return from === QP_STATE.RESET ? null : NOTHING;
  const table = type === QP_TYPE.RC ? RC_TRANSITIONS : UD_TRANSITIONS;
  return table[`${QP_STATE_NAMES[from]}>${QP_STATE_NAMES[to]}`] ?? null;
}

/**
 * Checks a move of a queue pair: is there such a transition, are its required attributes here, no
 * others, and each in range. Changes nothing.
 * @throws FarpageError EINVAL naming both states and every attribute missing, superfluous or wrong.
 */
export function checkTransition(type: QpType, from: QpState, attributes: QpAttributes): void {
  const to = attributes.state ?? from;
  const move = `${QP_STATE_NAMES[from]} to ${QP_STATE_NAMES[to] ?? `state ${to}`}`;
  if (attributes.currentState !== undefined && attributes.currentState !== from) {
    const assumed = QP_STATE_NAMES[attributes.currentState] ?? attributes.currentState;
    refuse(`the queue pair is in ${QP_STATE_NAMES[from]}, not in ${assumed}`);
  }
  const transition = findTransition(type, from, to);
  if (transition === null) refuse(`a queue pair can't go from ${move}`);

  const given = Object.entries(attributes)
    .filter(([, value]) => value !== undefined)
    .map(([name]) => name as keyof QpAttributes)
    .filter((name): name is QpAttributeName => name !== "state" && name !== "currentState");
  const missing = transition.required.filter((name) => !given.includes(name));
  const superfluous = given.filter(
    (name) => !transition.required.includes(name) && !transition.optional.includes(name),
  );
  const faults: string[] = [];
  if (missing.length > 0) faults.push(`missing ${missing.join(", ")}`);
  if (superfluous.length > 0) faults.push(`superfluous ${superfluous.join(", ")}`);
  const wrong = given.filter((name) => !isInRange(name, attributes));
  if (wrong.length > 0) faults.push(`out of range ${wrong.join(", ")}`);
  if (faults.length > 0) refuse(`${move}: ${faults.join("; ")}`);
}

function isInRange(name: QpAttributeName, attributes: QpAttributes): boolean {
  if (name === "pathMtu") {
    const mtu = attributes.pathMtu as number;
    return mtu >= 256 && mtu <= 4096 && (mtu & (mtu - 1)) === 0;
  }
  const range = RANGES.find(([ranged]) => ranged === name);
  if (range === undefined) return true;
  const value = attributes[name] as number;
  return Number.isInteger(value) && value >= 0 && value <= range[1];
}

function refuse(why: string): never {
  throw new FarpageError("EINVAL", why);
}

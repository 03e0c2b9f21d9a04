// SPDX-License-Identifier: MIT
// What a device counts. A packet that is not acted upon is dropped for exactly one `DropReason` and
// counted under that name; style: silence towards the sender, never silence towards the operator.

/**
 * Why a received packet was dropped without an answer (facts page, section 22 lists the same for
 * rxe). Values are farpage's own and index `DeviceCounters.drops`.
 */
export const DROP_REASON = {
  /** Acted upon, not dropped. */
  NONE: 0,
  /** Shorter than BTH and ICRC. */
  TOO_SHORT: 1,
  /** The ICRC does not fit, whatever the IP identification. */
  ICRC: 2,
  /** BTH transport version is not 0. */
  TRANSPORT_VERSION: 3,
  /** No such opcode, or one that this device does not implement. */
  OPCODE: 4,
  /** Shorter than its headers, pad and ICRC, or longer than an MTU. */
  LENGTH: 5,
  /** No queue pair has the destination QPN. */
  QPN: 6,
  /** The opcode belongs to another transport than the queue pair. */
  QP_TYPE: 7,
  /** The queue pair's state takes no such packet. */
  QP_STATE: 8,
  /** Not from and to exactly the connection's addresses. */
  ADDRESS: 9,
  PKEY: 10,
  /** UD: not the receiver's Q_Key. */
  QKEY: 11,
  /** UD: no receive work request posted. */
  NO_RECEIVE: 12,
  /** UD: the posted receive is too small for the datagram, or its memory is gone. */
  RECEIVE_TOO_SMALL: 13,
  /** A request after a gap whose NAK is already out, or behind a refused one. */
  OUT_OF_SEQUENCE: 14,
  /** A repeated READ or atomic whose saved state is gone or does not fit. */
  DUPLICATE_UNSAVED: 15,
  /** A response to something that was already answered. */
  RESPONSE_STALE: 16,
  /** A response to a PSN that was never sent. */
  RESPONSE_UNSENT: 17,
  /** A READ response behind a missing one. */
  RESPONSE_AHEAD: 18,
  /** A NAK that a running recovery has already dealt with. */
  NAK_REPEATED: 19,
  /** Congestion notification packets of hardware NICs. */
  CONGESTION_NOTIFICATION: 20,
  /** UD: the receive, READ and atomic responses: their place is on a page that is not there yet. */
  PAGE_ABSENT: 21,
} as const;
export type DropReason = (typeof DROP_REASON)[keyof typeof DROP_REASON];
export type DropReasonName = keyof typeof DROP_REASON;

/** Names by value, for metrics and traces. */
export const DROP_REASON_NAMES: readonly DropReasonName[] = Object.entries(DROP_REASON)
  .sort((a, b) => a[1] - b[1])
  .map(([name]) => name as DropReasonName);

/**
 * What is counted alike for a device and for each of its queue pairs, since its creation; readers
 * sample, nobody resets. Each number is an integer below 2^53. Bytes are those of UDP payloads: BTH
 * to ICRC.
 */
export class TransportCounters {
  /**
   * Packets dropped, by `DropReason`; index 0 stays 0. Of a queue pair: those that had passed every
   * check that an outsider could fail; and `ICRC`, whose packets merely claim to be for it.
   */
  readonly drops = new Float64Array(DROP_REASON_NAMES.length);
  packetsReceived = 0;
  bytesReceived = 0;
  packetsSent = 0;
  bytesSent = 0;
  /** Positive acknowledgements sent; one covers every request before it. */
  acksSent = 0;
  /** NAK 0x60 sent: one per gap. */
  sequenceNaksSent = 0;
  sequenceNaksReceived = 0;
  rnrNaksSent = 0;
  rnrNaksReceived = 0;
  /** Times that an access met a page of on-demand memory that was not there. */
  pageFaults = 0;
  /** NAKs 0x61, 0x62 and 0x63: the queue pair ends. */
  invalidRequestNaksSent = 0;
  invalidRequestNaksReceived = 0;
  accessNaksSent = 0;
  accessNaksReceived = 0;
  operationalNaksSent = 0;
  operationalNaksReceived = 0;
  /** Request packets sent again. */
  packetsRetransmitted = 0;
  /** Local ACK timeouts that led to a retransmission. */
  timeouts = 0;
  /** Oldest packets repeated early, before the ACK timeout. */
  probes = 0;
  /** Retries because a response showed that an earlier READ or atomic response was lost. */
  impliedNaks = 0;
  /** Requests received again. */
  duplicateRequests = 0;
  /** Work requests given up because retries were exhausted (transport and RNR). */
  retriesExceeded = 0;

  /** Packets dropped for any reason. */
  get dropsTotal(): number {
    let total = 0;
    for (const count of this.drops) total += count;
    return total;
  }
}

/** Everything a device counts. Its packets are all that came, whoever sent them. */
export class DeviceCounters extends TransportCounters {
  completionQueueOverflows = 0;
  /**
   * Packets per port that the ICRC condemned. Only those get so far that name a queue pair of this
   * device, in a state that takes them, and (RC) come from its peer's address.
   */
  readonly portIcrcErrors: Float64Array;

  constructor(portCount = 1) {
    super();
    this.portIcrcErrors = new Float64Array(portCount);
  }
}

/**
 * What a queue pair counts. `packetsReceived` are the packets with a right ICRC that were from its
 * peer and for it, dropped ones included.
 */
export class QpCounters extends TransportCounters {}

/** The counters of a queue pair at one moment, each by its name; drops by `DropReasonName`. */
export type QpCounterValues = {
  readonly [K in keyof Omit<TransportCounters, "drops" | "dropsTotal">]: number;
} & {
  /**
   * Requests dropped because of a gap before them, or behind a refused one: out of order, or
   * outside of the window that is expected.
   */
  readonly outOfSequence: number;
  /** Responses to what was never sent, was answered already, or stands behind a missing one. */
  readonly responsesOutOfWindow: number;
  /** A hint: the QPN and address that a packet with a wrong ICRC names may be what was spoiled. */
  readonly icrcErrors: number;
  /** Reasons that occurred. */
  readonly drops: Readonly<Partial<Record<DropReasonName, number>>>;
};

/** Copies counters out, for a reader who keeps them. */
export function counterValues(counters: QpCounters): QpCounterValues {
  const { drops, ...numbers } = counters;
  const of = (...reasons: readonly DropReason[]) =>
    reasons.reduce<number>((sum, reason) => sum + (drops[reason] as number), 0);
  return {
    ...numbers,
    outOfSequence: of(DROP_REASON.OUT_OF_SEQUENCE),
    responsesOutOfWindow: of(
      DROP_REASON.RESPONSE_STALE,
      DROP_REASON.RESPONSE_UNSENT,
      DROP_REASON.RESPONSE_AHEAD,
    ),
    icrcErrors: of(DROP_REASON.ICRC),
    drops: dropsByName(drops),
  };
}

/** Counts by their reason's name, without those that are 0. */
export function dropsByName(
  drops: Float64Array,
): Readonly<Partial<Record<DropReasonName, number>>> {
  const named: Partial<Record<DropReasonName, number>> = {};
  drops.forEach((count, reason) => {
    const name = DROP_REASON_NAMES[reason];
    if (count > 0 && name !== undefined) named[name] = count;
  });
  return named;
}

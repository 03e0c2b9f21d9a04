// SPDX-License-Identifier: MIT
// The stages of an RC requester, for the files that work on it.

/** Where a requester is. */
export const REQUESTER_STAGE = {
  /** Sends whatever it may. */
  RUN: 0,
  /** Waits for the time that an RNR NAK has named; sends nothing. */
  WAIT_RNR: 1,
  /**
   * Waits for pages of on-demand memory that the next packet is gathered from, or that the oldest
   * response goes to; sends nothing.
   */
  WAIT_PAGES: 2,
} as const;
export type RequesterStage = (typeof REQUESTER_STAGE)[keyof typeof REQUESTER_STAGE];

/** Where the early repeat of the oldest packet is (see retransmit.ts). */
export const PROBE_STAGE = {
  NONE: 0,
  /** To be sent in the next turn. */
  DUE: 1,
  /** Sent; no answer yet. */
  SENT: 2,
  /**
   * Answered, but not for everything that had been sent before it: lost, unless more answers come.
   */
  SUSPECT: 3,
} as const;
export type ProbeStage = (typeof PROBE_STAGE)[keyof typeof PROBE_STAGE];

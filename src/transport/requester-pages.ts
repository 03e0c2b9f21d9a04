// SPDX-License-Identifier: MIT
// What an RC requester does about pages of on-demand memory that are not there: its send queue
// waits in WAIT_PAGES until the fault is served, or the request fails where it can't be.

import { PAGES, type PagesResult } from "./region-pages.js";
import type { Requester } from "./requester.js";
import { REQUESTER_STAGE } from "./requester-stage.js";
import { WC_STATUS } from "./work-request.js";

/** Sends nothing until faults have been served. */
export function waitForPages(requester: Requester): void {
  requester.stage = REQUESTER_STAGE.WAIT_PAGES;
  requester.device.pageWaits.wait(requester.qp);
}

/**
 * Whether the pages that the next packet of a SEND or WRITE is gathered from are there.
 * Preconditions: the list in `slot` is paged, `length` > 0.
 */
export function hasSource(
  requester: Requester,
  slot: number,
  position: number,
  length: number,
): boolean {
  const { queue, device } = requester;
  const result = queue.sges.ready(slot, device.regions, position, length, false);
  return goesOn(requester, slot, result);
}

/**
 * Before a READ (or the piece of it up to packet `end`) or atomic is sent: whether the place of its
 * response is there. Waits for it once, no more: in a region bigger than memory all of it may never
 * be there at one time. What is missing when the response comes is asked for then (completer.ts).
 */
export function hasTarget(
  requester: Requester,
  slot: number,
  packet: number,
  end: number,
): boolean {
  if (requester.pagesAskedPsn === requester.sendPsn) return true;
  const { queue, qp, device } = requester;
  const from = packet * qp.pathMtu;
  const length = Math.min(end * qp.pathMtu, queue.lengths[slot] as number) - from;
  if (length === 0) return true;
  requester.pagesAskedPsn = requester.sendPsn;
  return goesOn(requester, slot, queue.sges.ready(slot, device.regions, from, length, true));
}

function goesOn(requester: Requester, slot: number, result: PagesResult): boolean {
  if (result === PAGES.READY) return true;
  if (result === PAGES.WAITING) waitForPages(requester);
  else requester.fail(requester.indexOfSlot(slot), WC_STATUS.LOC_PROT_ERR);
  return false;
}

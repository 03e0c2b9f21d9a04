// SPDX-License-Identifier: MIT
// Queues of requests. They are linked through the requests themselves, so a queue allocates nothing
// and can't overflow: what bounds it is that every submitter owns a bounded pool of requests.

import { assert } from "../base/index.js";
import type { BlockRequest } from "./block-device.js";

/** A first-in first-out list; a request is in at most one of them. */
export class RequestList {
  /** Requests in the list. */
  count = 0;
  private head: BlockRequest | null = null;
  private tail: BlockRequest | null = null;

  /** The oldest, left in place; null when empty. */
  get first(): BlockRequest | null {
    return this.head;
  }

  /** Preconditions: `request` is in no list. */
  push(request: BlockRequest): void {
    assert(request.next === null && request !== this.tail, "the request is in no list");
    if (this.tail === null) this.head = request;
    else this.tail.next = request;
    this.tail = request;
    this.count++;
  }

  /** Takes the oldest; null when empty. */
  shift(): BlockRequest | null {
    const request = this.head;
    if (request === null) return null;
    this.head = request.next;
    if (this.head === null) this.tail = null;
    request.next = null;
    this.count--;
    return request;
  }

  /** Moves everything that `other` holds behind what is here. */
  append(other: RequestList): void {
    if (other.head === null) return;
    if (this.tail === null) this.head = other.head;
    else this.tail.next = other.head;
    this.tail = other.tail;
    this.count += other.count;
    other.head = null;
    other.tail = null;
    other.count = 0;
  }
}

/**
 * What every device keeps of its requests: how many it has, and those that are finished and wait
 * for `pump` to hand them back.
 */
export class RequestLedger {
  /** Requests submitted and not handed back. Idle: 0. */
  inflight = 0;
  private readonly finished = new RequestList();

  /** Finished requests that `deliver` has not handed back yet. */
  get finishedCount(): number {
    return this.finished.count;
  }

  /** Takes a request in and clears the device's fields of it. */
  admit(request: BlockRequest): void {
    assert(request.next === null, "the request is not submitted already");
    request.errno = 0;
    request.position = 0;
    request.parts = 0;
    request.stage = 0;
    this.inflight++;
  }

  /** Ends a request; its owner hears of it from `deliver`. */
  finish(request: BlockRequest, errno: number): void {
    request.errno = errno;
    this.finished.push(request);
  }

  /**
   * Hands back what is finished now. What the owners submit meanwhile, even when it finishes at
   * once, waits for the next call: a busy owner can't keep the device in here.
   */
  deliver(): void {
    for (let left = this.finished.count; left > 0; left--) {
      const request = this.finished.shift() as BlockRequest;
      this.inflight--;
      request.owner.onBlockComplete(request);
    }
  }

  checkInvariants(heldCount: number): void {
    assert(this.inflight === this.finished.count + heldCount, "every request is somewhere, once");
  }
}

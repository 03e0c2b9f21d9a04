// SPDX-License-Identifier: MIT
// The link of one lane among several: shows its lane only packets that are the lane's, and hands
// the others on. Nearly always the kernel has brought each packet to its lane, and the cost is a
// look at each packet's queue pair number.

import type { IpAddress } from "../base/index.js";
import { RxBurst, type TxBatch } from "../transport/index.js";
import { EVERY_LANE, type LaneNumber, laneOf, type Steering } from "../wire/index.js";
import type { Backend, LinkCounters, OsLink, Poller } from "./door.js";
import { BellRinger, type LaneBox, LaneInbox, putBurst } from "./lane-box.js";

export interface LaneLinkOptions {
  readonly lane: LaneNumber;
  readonly steering: Steering;
  /** Of all lanes, in their order. */
  readonly boxes: readonly LaneBox[];
  readonly poller: Poller;
}

type MutableCounters = { -readonly [Key in keyof LinkCounters]: LinkCounters[Key] };

/** See the head of the file. Owns the link that it wraps. */
export class LaneLink implements OsLink {
  readonly backend: Backend;
  readonly limitation: string | null;
  readonly port: number;
  readonly counters: Readonly<LinkCounters>;
  readonly addresses: readonly IpAddress[];
  readonly linkMtus: readonly number[];
  readonly receiveBufferBytes: number;
  readonly bursts: RxBurst[] = [];
  private readonly inner: OsLink;
  private readonly index: number;
  private readonly steering: Steering;
  private readonly boxes: readonly LaneBox[];
  private readonly inbox: LaneInbox;
  private readonly ringer = new BellRinger();
  private count = 0;
  /** Parts of bursts, made when first needed. */
  private readonly parts: RxBurst[] = [];
  private partCount = 0;

  constructor(inner: OsLink, options: LaneLinkOptions) {
    this.inner = inner;
    this.index = options.lane.index;
    this.steering = options.steering;
    this.boxes = options.boxes;
    this.backend = inner.backend;
    this.limitation = inner.limitation;
    this.port = inner.port;
    this.counters = inner.counters;
    this.addresses = inner.addresses;
    this.linkMtus = inner.linkMtus;
    this.receiveBufferBytes = inner.receiveBufferBytes;
    this.inbox = new LaneInbox(options.boxes[this.index] as LaneBox, options.poller);
  }

  get readable(): boolean {
    return this.inner.readable || this.inbox.readable;
  }

  get writable(): boolean {
    return this.inner.writable;
  }

  setWantsWrite(wanted: boolean): void {
    this.inner.setWantsWrite(wanted);
  }

  receive(): number {
    this.count = 0;
    this.partCount = 0;
    const received = this.inner.readable ? this.inner.receive() : 0;
    for (let i = 0; i < received; i++) this.sort(this.inner.bursts[i] as RxBurst, true);
    if (this.inbox.readable) {
      const handed = this.inbox.take();
      for (let i = 0; i < handed; i++) this.sort(this.inbox.bursts[i] as RxBurst, false);
    }
    return this.count;
  }

  send(batch: TxBatch): number {
    return this.inner.send(batch);
  }

  close(): void {
    this.inbox.close();
    this.ringer.close();
    this.inner.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Takes what is the lane's, whole where it can. @param handsOn the rest goes to its lanes. */
  private sort(burst: RxBurst, handsOn: boolean): void {
    const { view, segmentLength } = burst;
    const end = burst.offset + burst.length;
    let isWhole = true;
    let isForOthers = false;
    for (let at = burst.offset; at < end; at += segmentLength) {
      const lane = laneOf(view, at, Math.min(segmentLength, end - at), this.steering);
      if (lane === this.index) continue;
      isForOthers = true;
      if (lane !== EVERY_LANE) isWhole = false;
    }
    if (isWhole) this.show(burst);
    else this.showParts(burst);
    if (isForOthers && handsOn) this.handOn(burst);
  }

  private show(burst: RxBurst): void {
    this.bursts[this.count++] = burst;
  }

  /** Shows the runs of packets that are this lane's. */
  private showParts(burst: RxBurst): void {
    const { view, segmentLength } = burst;
    const end = burst.offset + burst.length;
    let start = -1;
    for (let at = burst.offset; at < end; at += segmentLength) {
      const lane = laneOf(view, at, Math.min(segmentLength, end - at), this.steering);
      const isOurs = lane === this.index || lane === EVERY_LANE;
      if (isOurs && start < 0) start = at;
      if (!isOurs && start >= 0) this.showPart(burst, start, at);
      if (!isOurs) start = -1;
    }
    if (start >= 0) this.showPart(burst, start, end);
  }

  private showPart(burst: RxBurst, start: number, end: number): void {
    const part = this.partOf(burst);
    part.offset = start;
    part.length = end - start;
    part.segmentLength = Math.min(burst.segmentLength, part.length);
    part.port = burst.port;
    part.source0 = burst.source0;
    part.source1 = burst.source1;
    part.source2 = burst.source2;
    part.source3 = burst.source3;
    part.sourcePort = burst.sourcePort;
    part.trafficClass = burst.trafficClass;
    this.show(part);
  }

  /** A burst that shows the same bytes. */
  private partOf(burst: RxBurst): RxBurst {
    const known = this.parts[this.partCount];
    const part = known?.bytes === burst.bytes ? known : new RxBurst(burst.bytes);
    this.parts[this.partCount++] = part;
    return part;
  }

  /** Each other lane that has a packet in it gets the whole burst, and sorts it itself. */
  private handOn(burst: RxBurst): void {
    const { view, segmentLength } = burst;
    const { counters, boxes } = this;
    const end = burst.offset + burst.length;
    for (let lane = 0; lane < boxes.length; lane++) {
      if (lane === this.index) continue;
      let isWanted = false;
      for (let at = burst.offset; at < end && !isWanted; at += segmentLength) {
        const wanted = laneOf(view, at, Math.min(segmentLength, end - at), this.steering);
        isWanted = wanted === lane || wanted === EVERY_LANE;
      }
      if (!isWanted) continue;
      const box = boxes[lane] as LaneBox;
      const taken = putBurst(box, burst);
      this.ringer.ring(box);
      const mutable = counters as MutableCounters;
      if (taken) mutable.handedOn++;
      else mutable.handedOnLost++;
    }
  }
}

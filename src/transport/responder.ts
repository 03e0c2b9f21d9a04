// SPDX-License-Identifier: MIT
// The receiving half of an RC responder (IBTA vol1 §9.7.4, §9.7.5; facts page, section 10): checks
// each request and executes it at once. What is to be answered is noted here and sent by
// responder-replies.ts when the device is pumped, so that one ACK answers a whole burst.
//
// Checks come in the order of the facts page, and nothing is written before all have passed. A
// check returns 0 or the syndrome of the NAK that the requester gets.

import { assert, PSN_MASK, psnAdd, psnDiff } from "../base/index.js";
import {
  atomicEthAddressHigh,
  atomicEthAddressLow,
  atomicEthKey,
  IMM_DT_BYTES,
  iethKey,
  immediateOf,
  OPCODE_FLAG,
  RETH_BYTES,
  rethAddressHigh,
  rethAddressLow,
  rethKey,
  rethLength,
  SYNDROME,
} from "../wire/index.js";
import { executeAtomic } from "./atomics.js";
import { DROP_REASON, type DropReason } from "./counters.js";
import type { Device } from "./device.js";
import { DEVICE_EVENT } from "./device-event.js";
import type { RxPacket } from "./packet-io.js";
import { QP_STATE } from "./qp-state.js";
import type { QpCore } from "./queue-pair.js";
import { PAGES } from "./region-pages.js";
import { ResponderPages } from "./responder-pages.js";
import { repeatReadOrAtomic } from "./responder-replies.js";
import { RESOURCE_KIND, ResponderResources } from "./responder-resources.js";
import { MESSAGE_BYTES_MAX, SgeTable } from "./sge-table.js";
import { ACCESS, WC_FLAG, WC_OPCODE, WC_STATUS, type WcStatus } from "./work-request.js";

/** What kind of message the responder is inside of. */
const MESSAGE_STAGE = { NONE: 0, SEND: 1, WRITE: 2 } as const;
type MessageStage = (typeof MESSAGE_STAGE)[keyof typeof MESSAGE_STAGE];

const PASSED = 0;
const NO_REGION = -1;

/** The receive side of one RC queue pair. */
export class Responder {
  readonly device: Device;
  readonly qp: QpCore;
  resources: ResponderResources;
  stage: MessageStage = MESSAGE_STAGE.NONE;
  expectedPsn = 0;
  /** Messages completed, modulo 2^24. */
  msn = 0;
  /** A packet is missing and the requester knows, or one was refused for want of a receive. */
  isGapKnown = false;
  /** A NAK that ends the queue pair is on its way; nothing is executed any more. */
  isRefusing = false;
  /** The newest executed request is to be acknowledged. */
  isAckDue = false;
  /** NAK to send behind the answers that are queued, 0 for none. */
  nakSyndrome = 0;
  nakPsn = 0;

  /** The message being received: WRITE. */
  private writeRegion = NO_REGION;
  private writeGeneration = 0;
  private writeOffset = 0;
  private writeRemaining = 0;
  private writeLength = 0;
  /** The receive being filled: SEND. */
  private hasReceive = false;
  private receiveWrId = 0;
  private receivePosition = 0;
  private readonly receiveSges = new SgeTable(1);
  private readonly pages: ResponderPages;

  constructor(device: Device, qp: QpCore) {
    this.device = device;
    this.qp = qp;
    this.pages = new ResponderPages(device, qp);
    this.resources = new ResponderResources(0);
  }

  /** On the way to RTR: the first PSN to expect, and how many READs and atomics to keep. */
  begin(psn: number, depth: number): void {
    this.expectedPsn = psn;
    this.msn = 0;
    this.resources = new ResponderResources(depth);
  }

  /** Takes a request. Its shape, ICRC and addresses have been checked; nothing else has. */
  onRequest(packet: RxPacket): DropReason {
    if (this.isRefusing) return DROP_REASON.OUT_OF_SEQUENCE;
    const distance = psnDiff(packet.psn, this.expectedPsn);
    if (distance > 0) return this.onGap();
    if (distance < 0) return this.onDuplicate(packet);
    this.isGapKnown = false;
    if (!this.qp.hasHeardPeer) this.onFirstPacket();
    const syndrome = this.execute(packet);
    if (syndrome !== PASSED) {
      this.refuse(syndrome, packet.psn);
    } else {
      if (packet.ackRequest) this.isAckDue = true;
      // A refusal that has not left yet is out of date when the same packet passes now.
      if (this.nakSyndrome !== SYNDROME.NAK_PSN_SEQUENCE) this.nakSyndrome = 0;
    }
    if (this.hasReplyDue) this.device.activate(this.qp);
    return DROP_REASON.NONE;
  }

  /** Whether there is anything to send. */
  get hasReplyDue(): boolean {
    return this.isAckDue || this.nakSyndrome !== 0 || this.resources.replyHead >= 0;
  }

  /** In ERR: the receive being filled completes as flushed; everything else is forgotten. */
  flush(): void {
    if (this.hasReceive) this.completeReceive(WC_STATUS.WR_FLUSH_ERR, WC_OPCODE.RECV, 0, 0, false);
    this.reset();
  }

  reset(): void {
    this.stage = MESSAGE_STAGE.NONE;
    this.isGapKnown = false;
    this.isRefusing = false;
    this.isAckDue = false;
    this.nakSyndrome = 0;
    this.hasReceive = false;
    this.writeRegion = NO_REGION;
    this.pages.reset();
    this.resources.clearReplies();
  }

  /** Notes a NAK for request `psn`. All but RNR and sequence errors end the queue pair. */
  refuse(syndrome: number, psn: number): void {
    const isRnr = syndrome < SYNDROME.NAK_PSN_SEQUENCE;
    this.nakSyndrome = syndrome;
    this.nakPsn = psn;
    // Behind a refused packet everything is out of sequence, and the requester knows why.
    this.isGapKnown = true;
    this.isRefusing = !isRnr;
    this.device.activate(this.qp);
  }

  checkInvariants(): void {
    this.resources.checkInvariants();
    assert(this.expectedPsn === (this.expectedPsn & PSN_MASK), "a PSN has 24 bits");
    assert((this.stage === MESSAGE_STAGE.SEND) === this.hasReceive, "a SEND fills a receive");
  }

  private onGap(): DropReason {
    // One NAK per gap (IBTA vol1 §9.7.5.2.8).
    if (!this.isGapKnown) {
      this.isGapKnown = true;
      this.nakSyndrome = SYNDROME.NAK_PSN_SEQUENCE;
      this.device.activate(this.qp);
    }
    return DROP_REASON.OUT_OF_SEQUENCE;
  }

  private onDuplicate(packet: RxPacket): DropReason {
    this.device.counters.duplicateRequests++;
    this.qp.counters.duplicateRequests++;
    if ((packet.flags & (OPCODE_FLAG.READ_REQUEST | OPCODE_FLAG.ATOMIC)) !== 0) {
      return repeatReadOrAtomic(this, packet);
    }
    this.isAckDue = true;
    this.device.activate(this.qp);
    return DROP_REASON.NONE;
  }

  private onFirstPacket(): void {
    this.qp.hasHeardPeer = true;
    if (this.qp.state === QP_STATE.RTR) {
      this.device.raiseQpEvent(this.qp, DEVICE_EVENT.COMM_EST);
    }
  }

  private execute(packet: RxPacket): number {
    const { flags } = packet;
    if ((flags & OPCODE_FLAG.WRITE) !== 0) return this.executeWrite(packet);
    if ((flags & OPCODE_FLAG.SEND) !== 0) return this.executeSend(packet);
    // READs and atomics stand between messages only.
    if (this.stage !== MESSAGE_STAGE.NONE) return SYNDROME.NAK_INVALID_REQUEST;
    return (flags & OPCODE_FLAG.ATOMIC) !== 0
      ? this.executeAtomicRequest(packet)
      : this.executeRead(packet);
  }

  /** Opcode sequence and packet size, the same for SEND and WRITE (IBTA vol1 §9.7.4.1.4..6). */
  private checkPlace(packet: RxPacket, inside: MessageStage): boolean {
    const { flags, payloadLength } = packet;
    const mtu = this.qp.pathMtu;
    const starts = (flags & OPCODE_FLAG.STARTS_MESSAGE) !== 0;
    if (this.stage !== (starts ? MESSAGE_STAGE.NONE : inside)) return false;
    if ((flags & OPCODE_FLAG.ENDS_MESSAGE) === 0) return payloadLength === mtu;
    return payloadLength <= mtu && (starts || payloadLength > 0);
  }

  private executeSend(packet: RxPacket): number {
    const { flags, payloadLength } = packet;
    const { regions } = this.device;
    if (!this.checkPlace(packet, MESSAGE_STAGE.SEND)) return SYNDROME.NAK_INVALID_REQUEST;
    const starts = (flags & OPCODE_FLAG.STARTS_MESSAGE) !== 0;
    if (starts) {
      const syndrome = this.takeReceive(packet);
      if (syndrome !== PASSED) return syndrome;
    }
    const sges = this.receiveSges;
    const position = this.receivePosition;
    if (position + payloadLength > (sges.totals[0] as number)) {
      this.completeReceive(WC_STATUS.LOC_LEN_ERR, WC_OPCODE.RECV, 0, 0, false);
      return SYNDROME.NAK_INVALID_REQUEST;
    }
    const { bytes, payloadOffset } = packet;
    // Of a first packet takeReceive has asked.
    const pages =
      sges.isPaged(0) && !starts
        ? this.pages.checkReceive(sges, position, payloadLength)
        : PAGES.READY;
    if (pages === PAGES.WAITING) return this.pages.syndrome(packet.psn);
    const isRefused = pages === PAGES.REFUSED;
    if (isRefused || !sges.scatter(0, regions, position, payloadLength, bytes, payloadOffset)) {
      this.completeReceive(WC_STATUS.LOC_PROT_ERR, WC_OPCODE.RECV, 0, 0, false);
      return SYNDROME.NAK_REMOTE_OPERATIONAL;
    }
    this.receivePosition = position + payloadLength;
    this.stage = MESSAGE_STAGE.SEND;
    this.expectedPsn = psnAdd(this.expectedPsn, 1);
    return (flags & OPCODE_FLAG.ENDS_MESSAGE) === 0 ? PASSED : this.endSend(packet);
  }

  private endSend(packet: RxPacket): number {
    const { flags, view, extended } = packet;
    let wcFlags = 0;
    let value = 0;
    if ((flags & OPCODE_FLAG.HAS_IETH) !== 0) {
      value = iethKey(view, extended);
      wcFlags = WC_FLAG.WITH_INV;
      if (!this.device.regions.invalidate(this.qp.pdIndex, value)) {
        // DEVIATION: rxe acknowledges first and goes to ERR then; see the test of the same words.
        this.completeReceive(WC_STATUS.REM_INV_REQ_ERR, WC_OPCODE.RECV, 0, 0, false);
        this.expectedPsn = psnAdd(this.expectedPsn, -1);
        return SYNDROME.NAK_REMOTE_ACCESS;
      }
    } else if ((flags & OPCODE_FLAG.HAS_IMM) !== 0) {
      value = immediateOf(view, extended);
      wcFlags = WC_FLAG.WITH_IMM;
    }
    this.msn = psnAdd(this.msn, 1);
    this.completeReceive(WC_STATUS.SUCCESS, WC_OPCODE.RECV, wcFlags, value, packet.solicited);
    return PASSED;
  }

  private executeWrite(packet: RxPacket): number {
    const { flags, payloadLength } = packet;
    if (!this.checkPlace(packet, MESSAGE_STAGE.WRITE)) return SYNDROME.NAK_INVALID_REQUEST;
    if ((flags & OPCODE_FLAG.NEEDS_RECV) !== 0 && !this.qp.hasReceive) return this.rnrSyndrome();
    const starts = (flags & OPCODE_FLAG.STARTS_MESSAGE) !== 0;
    const ends = (flags & OPCODE_FLAG.ENDS_MESSAGE) !== 0;
    if (starts) {
      const syndrome = this.beginWrite(packet, ends);
      if (syndrome !== PASSED) return syndrome;
    }
    // The message must be exactly as long as its RETH says.
    const left = this.writeRemaining - payloadLength;
    if (ends ? left !== 0 : left <= 0) return SYNDROME.NAK_INVALID_REQUEST;
    if (payloadLength > 0) {
      const { regions } = this.device;
      const region = this.writeRegion;
      // The key may have been taken back in the middle of the message.
      if (!regions.isCurrent(region, this.writeGeneration)) return SYNDROME.NAK_REMOTE_ACCESS;
      const { bytes, payloadOffset } = packet;
      if (regions.isPaged(region)) {
        const ahead = this.writeRemaining;
        const syndrome = this.pages.check(
          region,
          this.writeOffset,
          payloadLength,
          ahead,
          packet.psn,
        );
        if (syndrome !== PASSED) return syndrome;
        regions.write(region, this.writeOffset, bytes, payloadOffset, payloadLength);
      } else {
        const target = regions.bytesOf(region);
        regions.viewCache.copy(target, this.writeOffset, bytes, payloadOffset, payloadLength);
      }
      this.writeOffset += payloadLength;
    }
    this.writeRemaining = left;
    this.stage = ends ? MESSAGE_STAGE.NONE : MESSAGE_STAGE.WRITE;
    this.expectedPsn = psnAdd(this.expectedPsn, 1);
    if (ends) this.endWrite(packet, starts);
    return PASSED;
  }

  private beginWrite(packet: RxPacket, isOnly: boolean): number {
    const { view, extended } = packet;
    if ((this.qp.accessFlags & ACCESS.REMOTE_WRITE) === 0) return SYNDROME.NAK_INVALID_REQUEST;
    const length = rethLength(view, extended);
    if (length > MESSAGE_BYTES_MAX) return SYNDROME.NAK_INVALID_REQUEST;
    // Length before key: which of two faults a hostile request is told does not matter, but a
    // message that lies about its length must not get as far as memory.
    if (isOnly && length !== packet.payloadLength) return SYNDROME.NAK_INVALID_REQUEST;
    this.writeLength = length;
    this.writeRemaining = length;
    this.writeRegion = NO_REGION;
    if (length === 0) return PASSED;
    const { regions } = this.device;
    const high = rethAddressHigh(view, extended);
    const low = rethAddressLow(view, extended);
    const key = rethKey(view, extended);
    const region = regions.check(key, this.qp.pdIndex, ACCESS.REMOTE_WRITE, high, low, length);
    if (region < 0) return SYNDROME.NAK_REMOTE_ACCESS;
    this.writeRegion = region;
    this.writeGeneration = regions.generationOf(region);
    this.writeOffset = regions.offsetIn(region, high, low);
    return PASSED;
  }

  private endWrite(packet: RxPacket, isOnly: boolean): void {
    this.msn = psnAdd(this.msn, 1);
    this.writeRegion = NO_REGION;
    if ((packet.flags & OPCODE_FLAG.HAS_IMM) === 0) return;
    const at = packet.extended + (isOnly ? RETH_BYTES : 0);
    assert(at + IMM_DT_BYTES <= packet.payloadOffset, "the immediate ends the headers");
    const wrId = this.qp.takeReceive(null);
    this.qp.recvCq.push(
      wrId,
      WC_STATUS.SUCCESS,
      WC_OPCODE.RECV_RDMA_WITH_IMM,
      WC_FLAG.WITH_IMM,
      this.writeLength,
      immediateOf(packet.view, at),
      this.qp.qpn,
      0,
      0,
      packet.solicited,
    );
  }

  private executeRead(packet: RxPacket): number {
    const { view, extended } = packet;
    const { qp, resources } = this;
    const { regions } = this.device;
    if ((qp.accessFlags & ACCESS.REMOTE_READ) === 0) return SYNDROME.NAK_INVALID_REQUEST;
    const length = rethLength(view, extended);
    if (length > MESSAGE_BYTES_MAX) return SYNDROME.NAK_INVALID_REQUEST;
    const high = rethAddressHigh(view, extended);
    const low = rethAddressLow(view, extended);
    const key = rethKey(view, extended);
    let region = NO_REGION;
    if (length > 0) {
      region = regions.check(key, qp.pdIndex, ACCESS.REMOTE_READ, high, low, length);
      if (region < 0) return SYNDROME.NAK_REMOTE_ACCESS;
    }
    const slot = resources.take();
    if (slot < 0) return SYNDROME.NAK_INVALID_REQUEST;
    const count = Math.max(1, Math.ceil(length / qp.pathMtu));
    this.saveRequest(slot, RESOURCE_KIND.READ, packet.psn, count, key, high, low, length);
    this.queueRead(slot, packet.psn, count, length, region, high, low, false);
    this.expectedPsn = psnAdd(this.expectedPsn, count);
    this.msn = psnAdd(this.msn, 1);
    // The response acknowledges everything before it, and the request itself.
    this.isAckDue = false;
    packet.ackRequest = false;
    return PASSED;
  }

  private executeAtomicRequest(packet: RxPacket): number {
    const { view, extended, psn } = packet;
    const { qp, resources } = this;
    const { regions } = this.device;
    if ((qp.accessFlags & ACCESS.REMOTE_ATOMIC) === 0) return SYNDROME.NAK_INVALID_REQUEST;
    const high = atomicEthAddressHigh(view, extended);
    const low = atomicEthAddressLow(view, extended);
    const key = atomicEthKey(view, extended);
    if ((low & 7) !== 0) return SYNDROME.NAK_INVALID_REQUEST;
    const region = regions.check(key, qp.pdIndex, ACCESS.REMOTE_ATOMIC, high, low, 8);
    if (region < 0) return SYNDROME.NAK_REMOTE_ACCESS;
    const position = regions.offsetIn(region, high, low);
    if (regions.isPaged(region)) {
      const syndrome = this.pages.check(region, position, 8, 8, psn);
      if (syndrome !== PASSED) return syndrome;
    }
    const slot = resources.take();
    if (slot < 0) return SYNDROME.NAK_INVALID_REQUEST;
    this.saveRequest(slot, RESOURCE_KIND.ATOMIC, psn, 1, key, high, low, 8);
    const offset = regions.placeOf(region, position);
    executeAtomic(packet, regions.viewAt(region, position), offset, resources, slot);
    this.queueRead(slot, psn, 1, 0, NO_REGION, 0, 0, false);
    this.expectedPsn = psnAdd(this.expectedPsn, 1);
    this.msn = psnAdd(this.msn, 1);
    this.isAckDue = false;
    packet.ackRequest = false;
    return PASSED;
  }

  private saveRequest(
    slot: number,
    kind: number,
    psn: number,
    packetCount: number,
    key: number,
    addressHigh: number,
    addressLow: number,
    length: number,
  ): void {
    const { resources } = this;
    resources.kinds[slot] = kind;
    resources.psns[slot] = psn;
    resources.packetCounts[slot] = packetCount;
    resources.keys[slot] = key;
    resources.addressHighs[slot] = addressHigh;
    resources.addressLows[slot] = addressLow;
    resources.lengths[slot] = length;
  }

  /** Queues the answer of a saved READ (or the part of it from `psn` on), or of an atomic. */
  queueRead(
    slot: number,
    psn: number,
    packetCount: number,
    length: number,
    region: number,
    addressHigh: number,
    addressLow: number,
    isRepeat: boolean,
  ): void {
    const { resources } = this;
    const { regions } = this.device;
    resources.replyPsns[slot] = psn;
    resources.replyPacketCounts[slot] = packetCount;
    resources.replySents[slot] = 0;
    resources.replyLengths[slot] = length;
    resources.replyRegions[slot] = region;
    if (region >= 0) {
      resources.replyGenerations[slot] = regions.generationOf(region);
      resources.replyOffsets[slot] = regions.offsetIn(region, addressHigh, addressLow);
    }
    resources.queueReply(slot, isRepeat);
  }

  /**
   * Takes the next posted receive and finds its memory; leaves it where it is when the page for the
   * packet, the first of its message, is not there yet.
   */
  private takeReceive(packet: RxPacket): number {
    const { qp, receiveSges: sges } = this;
    const { regions } = this.device;
    if (!qp.hasReceive) return this.rnrSyndrome();
    qp.peekReceive(sges);
    let isThere = sges.resolve(0, regions, qp.pdIndex, ACCESS.LOCAL_WRITE);
    const bytes = Math.min(packet.payloadLength, sges.totals[0] as number);
    if (isThere && sges.isPaged(0)) {
      const pages = this.pages.checkReceive(sges, 0, bytes);
      if (pages === PAGES.WAITING) return this.pages.syndrome(packet.psn);
      isThere = pages === PAGES.READY;
    }
    this.receiveWrId = qp.takeReceive(null);
    this.receivePosition = 0;
    this.hasReceive = true;
    if (isThere) return PASSED;
    this.completeReceive(WC_STATUS.LOC_PROT_ERR, WC_OPCODE.RECV, 0, 0, false);
    return SYNDROME.NAK_REMOTE_OPERATIONAL;
  }

  private rnrSyndrome(): number {
    return SYNDROME.RNR_NAK + this.qp.minRnrTimer;
  }

  private completeReceive(
    status: WcStatus,
    opcode: typeof WC_OPCODE.RECV,
    flags: number,
    immediateOrKey: number,
    isSolicited: boolean,
  ): void {
    const { qp } = this;
    const bytes = this.receivePosition;
    this.hasReceive = false;
    this.stage = MESSAGE_STAGE.NONE;
    const wrId = this.receiveWrId;
    const { recvCq, qpn } = qp;
    recvCq.push(wrId, status, opcode, flags, bytes, immediateOrKey, qpn, 0, 0, isSolicited);
  }
}

// SPDX-License-Identifier: MIT
// A volume of an RNBD server as a block device here.
//
// A request becomes commands of at most the session's I/O size each, in order, as permits allow. A
// command that was in flight when the session was lost is sent again when the device is open again
// (its state on the server is unknown; see overlap-guard.ts why that is safe, and rtrs/ why the
// first copy can't still be running then: a server lets a client come back only when nothing of its
// old session is in a device any more).
//
// What a flush means when the server was lost in between. The server's cache that holds
// acknowledged, unflushed writes is a page cache or a disk's cache: it survives the server process
// (a SIGKILL too), and a flush by the process that comes after covers them. It does not survive the
// server machine. A farpage server names that cache by an epoch in OPEN_RSP (see
// VolumeOptions.epoch). When the epoch changes over a reconnect while acknowledged writes are not
// flushed, those writes may be gone: then every FLUSH from here on fails with EIO, since the device
// can't tell who believes in them; attach the volume anew to go on. Where the old or new server
// tells no epoch, as Linux, the client believes that the cache has survived, as Linux's client
// does. On a device without a volatile cache (a RAM disk), a changed epoch means that its contents
// are another's: then all I/O fails.

import { assert, ERRNO, type Memory } from "../base/index.js";
import {
  BLOCK_FLAG,
  BLOCK_OPERATION,
  type BlockDevice,
  type BlockLimits,
  type BlockRequest,
  checkBlockRequest,
  isChange,
  RequestLedger,
  RequestList,
} from "../block/index.js";
import {
  RNBD_CACHE,
  RNBD_FLAG,
  RNBD_OP,
  type RnbdAccess,
  type RnbdOpenResponse,
} from "../wire/index.js";
import type { DeviceHost } from "./device-host.js";
import { limitsFrom, NO_LIMITS, partMax } from "./device-limits.js";
import { OverlapGuard } from "./overlap-guard.js";
import { FLUSH_OPERATION, type RnbdCommand } from "./rnbd-command.js";

/**
 * OPENING: not open yet, nobody has it. OPEN. REOPENING: the session was lost or the server would
 * not open it again so far; requests wait. CLOSING: the server is to be told. CLOSED: over, by
 * `close` or for good by an error.
 */
export type RnbdDeviceState = "OPENING" | "OPEN" | "REOPENING" | "CLOSING" | "CLOSED";

/** What `issueOne` did. */
export const ISSUE = { NOTHING: 0, ISSUED: 1, NO_PERMIT: 2 } as const;
export type Issue = (typeof ISSUE)[keyof typeof ISSUE];

/** `BlockRequest.stage` of a change that is done and waits for a flush to make it durable. */
const STAGE_FLUSH = 1;
/** Of a change, parts of which are acknowledged and only in the server's cache. */
const STAGE_CACHED = 2;

/** Made by `RnbdClient.open`; pumping it pumps its client. */
export class RnbdDevice implements BlockDevice {
  readonly name: string;
  readonly access: RnbdAccess;
  onResize: (() => void) | null = null;
  state: RnbdDeviceState = "OPENING";
  /** The server's name for it in the present session. */
  deviceId = 0;
  /** While REOPENING: since when. */
  suspendedNs = 0;
  /** Client: when to ask the server to open it, if it is not. */
  attemptNs = 0;
  /** Client: ask the server once more though it is open. */
  reopenWanted = false;
  private readonly host: DeviceHost;
  private currentLimits: BlockLimits;
  private readonly ledger = new RequestLedger();
  /** Not wholly sent; only the first can be sent in part. */
  private readonly waiting = new RequestList();
  private readonly guard = new OverlapGuard();
  /** Commands to be sent again, oldest first; the guard has them still. */
  private parkedFirst: RnbdCommand | null = null;
  private parkedLast: RnbdCommand | null = null;
  /** Commands with RTRS, and parked ones. */
  private commandCount = 0;
  private parkedCount = 0;
  private resized = false;
  private closed = false;
  /**
   * Non-zero: every request fails with it, until the device is open again (timeout) or for good.
   */
  private failErrno = 0;
  /** Non-zero: every flush fails with it, for good. */
  private lostErrno = 0;
  /** The cache was lost, and what was in flight then has not been sent again yet. */
  private isLosing = false;
  /**
   * Changes acknowledged that are durable only by a flush, ever; and how many of them surely are.
   */
  private changeSerial = 0;
  private durableSerial = 0;
  private epochHigh = 0;
  private epochLow = 0;
  private discardPartMax = 0;
  private zeroesPartMax = 0;
  private serverHasFua = false;
  /** A server has said that it has a volatile cache. */
  private serverCaches = false;

  constructor(host: DeviceHost, name: string, access: RnbdAccess) {
    this.host = host;
    this.name = name;
    this.access = access;
    this.currentLimits = NO_LIMITS;
  }

  get limits(): BlockLimits {
    return this.currentLimits;
  }

  get inflight(): number {
    return this.ledger.inflight;
  }

  /** Whether unflushed writes were lost with the server's cache: every FLUSH fails. */
  get hasLostWrites(): boolean {
    return this.lostErrno !== 0;
  }

  submit(request: BlockRequest): void {
    this.ledger.admit(request);
    const errno = this.failErrno || checkBlockRequest(this.currentLimits, request);
    if (errno !== 0) {
      this.ledger.finish(request, errno);
    } else if (request.operation === BLOCK_OPERATION.STATUS) {
      // RNBD can't tell holes from data.
      request.extents = [{ length: request.length, hole: false, zero: false }];
      this.ledger.finish(request, 0);
    } else if (request.operation === BLOCK_OPERATION.CACHE) {
      this.ledger.finish(request, 0);
    } else if (needsMemory(request) && !this.host.hasMemory(request.memory as Memory)) {
      this.ledger.finish(request, ERRNO.EFAULT);
    } else {
      this.waiting.push(request);
      this.host.dispatch();
    }
  }

  /**
   * Asks the server again for the size (RNBD has no message that tells of a change): `onResize`
   * follows when it has changed. Also opens a device anew that the server has closed.
   */
  reopen(): void {
    if (this.state !== "OPEN") return;
    this.reopenWanted = true;
    this.host.onReopenWanted();
  }

  pump(nowNs: number): void {
    this.host.pump(nowNs);
  }

  deadlineNs(): number {
    return this.host.deadlineNs();
  }

  close(): void {
    assert(this.ledger.inflight === 0, "no request in flight when a device closes");
    if (this.closed) return;
    this.closed = true;
    const state = this.state;
    this.state = "CLOSED";
    this.host.onDeviceClose(this, state);
  }

  checkInvariants(): void {
    this.guard.checkInvariants();
    assert(this.commandCount >= this.parkedCount, "parked commands are commands");
    assert(this.guard.count <= this.commandCount, "only commands are guarded");
    assert(this.durableSerial <= this.changeSerial, "nothing durable that was not acknowledged");
    assert(
      this.commandCount === 0 || this.ledger.inflight > 0,
      "commands belong to requests in flight",
    );
  }

  // ------------------------------------------------------------------------- the client's side

  /** Whether the server is to be asked for it, now or later. */
  get wantsOpen(): boolean {
    if (this.state === "OPENING" || this.state === "REOPENING") return true;
    return this.state === "OPEN" && this.reopenWanted;
  }

  /** Whether `deliver` has something to do. */
  get isDue(): boolean {
    return this.ledger.finishedCount > 0 || this.resized;
  }

  /** Client: hands back finished requests. */
  deliver(): void {
    if (this.resized) {
      this.resized = false;
      this.onResize?.();
    }
    this.ledger.deliver();
  }

  /** Client: sends one command where one can be sent. */
  issueOne(): Issue {
    if (this.state !== "OPEN") return ISSUE.NOTHING;
    this.isLosing = false; // RTRS has had everything back before anything new is sent.
    if (this.parkedFirst !== null) return this.issueParked();
    const request = this.waiting.first;
    if (request === null) return ISSUE.NOTHING;
    if (request.operation === BLOCK_OPERATION.FLUSH || request.stage === STAGE_FLUSH) {
      return this.issueFlush(request);
    }
    return this.issuePart(request);
  }

  /** Client: the answer to `command` has come, or it has failed for good. */
  onCommandDone(command: RnbdCommand, errno: number): void {
    const request = command.request as BlockRequest;
    if (errno === 0) this.noteDurability(command);
    this.guard.remove(command);
    this.host.commands.give(command);
    this.commandCount--;
    request.parts--;
    if (errno !== 0) this.abandonRest(request, errno);
    if (request.parts > 0 || request === this.waiting.first) return;
    if (request.errno === 0 && this.needsFlushAfter(request)) {
      request.stage = STAGE_FLUSH;
      this.waiting.push(request);
    } else {
      this.ledger.finish(request, request.errno);
    }
  }

  /** Client: `command` comes back unsent, to be sent again when the device is open. */
  park(command: RnbdCommand): void {
    command.parks = false;
    if (this.failErrno !== 0) {
      this.onCommandDone(command, this.failErrno);
      return;
    }
    command.next = null;
    if (this.parkedLast === null) this.parkedFirst = command;
    else this.parkedLast.next = command;
    this.parkedLast = command;
    this.parkedCount++;
  }

  /**
   * Client: RTRS is about to send `command` again.
   * @returns 0 to do so, an errno to fail it with; with `command.parks` set, it comes to `park`.
   */
  onReissue(command: RnbdCommand): number {
    if (this.failErrno !== 0) return this.failErrno;
    if (this.state !== "OPEN") {
      command.parks = true;
      return ERRNO.EAGAIN;
    }
    if (this.isLosing && command.request?.stage === STAGE_CACHED) return ERRNO.EIO;
    return command.isFlush ? this.lostErrno : 0;
  }

  /** Client: the session is gone, and with it the device's id. */
  suspend(nowNs: number): void {
    assert(this.state === "OPEN", "an open device is suspended");
    this.state = "REOPENING";
    this.suspendedNs = nowNs;
  }

  /**
   * Client: fails what waits, and what is submitted, with `errno` until the device is open again.
   */
  fail(errno: number): void {
    assert(errno !== 0, "a failure has an errno");
    this.failErrno = errno;
    for (let left = this.parkedCount; left > 0; left--) this.onCommandDone(this.unpark(), errno);
    for (let left = this.waiting.count; left > 0; left--) {
      const request = this.waiting.first as BlockRequest;
      this.waiting.shift();
      request.errno ||= errno;
      request.position = request.length;
      if (request.parts === 0) this.ledger.finish(request, request.errno);
    }
  }

  /** Whether `fail` was called and the device has not been open since. */
  get isFailing(): boolean {
    return this.failErrno !== 0;
  }

  /** Client: fails everything from now on. */
  failForGood(errno: number): void {
    this.state = "CLOSED";
    this.fail(errno);
  }

  /**
   * Client: the server has opened the device.
   * @returns whether the device is usable: false when the volume can't be the one it was, or none
   *   that anybody could use.
   */
  adopt(response: RnbdOpenResponse): boolean {
    const isFirst = this.state === "OPENING";
    const limits = limitsFrom(response, this.access, this.host);
    if (limits === null) return false;
    if (!isFirst && limits.logicalBlockBytes > this.currentLimits.logicalBlockBytes) return false;
    if (!isFirst && !this.acceptsEpoch(response)) return false;
    if ((response.epochHigh | response.epochLow) !== 0) {
      this.epochHigh = response.epochHigh;
      this.epochLow = response.epochLow;
    }
    this.resized = !isFirst && limits.sizeBytes !== this.currentLimits.sizeBytes;
    // Of all limits, only the size may change under the users of a device.
    this.currentLimits = isFirst ? limits : { ...this.currentLimits, sizeBytes: limits.sizeBytes };
    this.serverHasFua = (response.cachePolicy & RNBD_CACHE.FUA) !== 0;
    if ((response.cachePolicy & RNBD_CACHE.WRITE_BACK) !== 0) this.serverCaches = true;
    this.discardPartMax = partMax(response.discardSectorsMax, limits.logicalBlockBytes);
    this.zeroesPartMax = partMax(response.writeZeroesSectorsMax, limits.logicalBlockBytes);
    this.deviceId = response.deviceId;
    this.state = "OPEN";
    this.failErrno = 0;
    this.reopenWanted = false;
    return true;
  }

  // --------------------------------------------------------------------------------- commands

  private issueParked(): Issue {
    if ((this.parkedFirst as RnbdCommand).isFlush && this.lostErrno !== 0) {
      this.onCommandDone(this.unpark(), this.lostErrno);
      return ISSUE.ISSUED;
    }
    const permit = this.host.acquire();
    if (permit === null) return ISSUE.NO_PERMIT;
    this.host.send(permit, this.unpark());
    return ISSUE.ISSUED;
  }

  private unpark(): RnbdCommand {
    const command = this.parkedFirst as RnbdCommand;
    this.parkedFirst = command.next;
    if (this.parkedFirst === null) this.parkedLast = null;
    command.next = null;
    this.parkedCount--;
    return command;
  }

  private issueFlush(request: BlockRequest): Issue {
    if (this.lostErrno !== 0) {
      this.waiting.shift();
      this.ledger.finish(request, this.lostErrno);
      return ISSUE.ISSUED;
    }
    const permit = this.host.acquire();
    if (permit === null) return ISSUE.NO_PERMIT;
    this.waiting.shift();
    const command = this.commandFor(request, FLUSH_OPERATION, 0, 0);
    command.memory = null;
    command.serial = this.changeSerial;
    this.host.send(permit, command);
    return ISSUE.ISSUED;
  }

  /** The next part of a request that has a range. */
  private issuePart(request: BlockRequest): Issue {
    const offset = request.offset + request.position;
    const length = Math.min(request.length - request.position, this.partBytesMax(request));
    if (length === 0) {
      // The server could do it when the device was first opened, and can't any more.
      this.waiting.shift();
      request.errno ||= ERRNO.EOPNOTSUPP;
      request.position = request.length;
      if (request.parts === 0) this.ledger.finish(request, request.errno);
      return ISSUE.ISSUED;
    }
    const changes = isChange(request);
    // The request that overlaps one in flight is held, and everything behind it: rare, and short.
    if (changes && this.guard.overlaps(offset, length)) return ISSUE.NOTHING;
    const permit = this.host.acquire();
    if (permit === null) return ISSUE.NO_PERMIT;
    const command = this.commandFor(request, this.operationOf(request), offset, length);
    command.memory = needsMemory(request) ? request.memory : null;
    command.memoryOffset = request.memoryOffset + request.position;
    if (changes) this.guard.add(command);
    request.position += length;
    if (request.position === request.length) this.waiting.shift();
    this.host.send(permit, command);
    return ISSUE.ISSUED;
  }

  private commandFor(
    request: BlockRequest,
    operation: number,
    offset: number,
    length: number,
  ): RnbdCommand {
    const command = this.host.commands.take();
    command.owner = this;
    command.request = request;
    command.operation = operation;
    command.offset = offset;
    command.length = length;
    request.parts++;
    this.commandCount++;
    return command;
  }

  private partBytesMax(request: BlockRequest): number {
    if (request.operation === BLOCK_OPERATION.DISCARD) return this.discardPartMax;
    if (request.operation === BLOCK_OPERATION.WRITE_ZEROES) return this.zeroesPartMax;
    const block = this.currentLimits.logicalBlockBytes;
    return this.host.partBytesMax - (this.host.partBytesMax % block);
  }

  private operationOf(request: BlockRequest): number {
    switch (request.operation) {
      case BLOCK_OPERATION.READ:
        return RNBD_OP.READ | RNBD_FLAG.SYNC;
      case BLOCK_OPERATION.WRITE:
        return RNBD_OP.WRITE | RNBD_FLAG.SYNC | (this.usesServerFua(request) ? RNBD_FLAG.FUA : 0);
      case BLOCK_OPERATION.DISCARD:
        return RNBD_OP.DISCARD | RNBD_FLAG.SYNC;
      default:
        return (
          RNBD_OP.WRITE_ZEROES |
          RNBD_FLAG.SYNC |
          ((request.flags & BLOCK_FLAG.NO_UNMAP) !== 0 ? RNBD_FLAG.NOUNMAP : 0)
        );
    }
  }

  /** An error of one part fails the request: what was not sent yet is not sent. */
  private abandonRest(request: BlockRequest, errno: number): void {
    request.errno ||= errno;
    if (request === this.waiting.first) this.waiting.shift();
    request.position = request.length;
  }

  // ------------------------------------------------------------------------------- durability

  /** Linux knows FUA on writes alone; elsewhere a flush follows. */
  private usesServerFua(request: BlockRequest): boolean {
    if ((request.flags & BLOCK_FLAG.FUA) === 0) return false;
    return this.serverHasFua && request.operation === BLOCK_OPERATION.WRITE;
  }

  /**
   * Whether parts of a change with FUA went without it: what the server offers may have changed.
   */
  private needsFlushAfter(request: BlockRequest): boolean {
    if ((request.flags & BLOCK_FLAG.FUA) === 0 || !this.serverCaches) return false;
    return request.stage === STAGE_CACHED;
  }

  private noteDurability(command: RnbdCommand): void {
    if (command.isFlush) this.durableSerial = Math.max(this.durableSerial, command.serial);
    else if (!command.isRead && (command.operation & RNBD_FLAG.FUA) === 0) {
      this.changeSerial++;
      (command.request as BlockRequest).stage = STAGE_CACHED;
    }
  }

  /** @returns whether the device can go on with this server's cache. */
  private acceptsEpoch(response: RnbdOpenResponse): boolean {
    const { epochHigh, epochLow } = response;
    if ((epochHigh | epochLow) === 0 || (this.epochHigh | this.epochLow) === 0) return true;
    if (epochHigh === this.epochHigh && epochLow === this.epochLow) return true;
    if (!this.currentLimits.volatileCache) return false;
    if (this.changeSerial !== this.durableSerial) this.loseCache();
    return true;
  }

  /**
   * Acknowledged writes are gone. A request that is acknowledged in part only must not succeed with
   * the other part.
   */
  private loseCache(): void {
    this.lostErrno = ERRNO.EIO;
    this.isLosing = true;
    const first = this.waiting.first;
    if (first?.stage === STAGE_CACHED) first.errno ||= ERRNO.EIO;
    for (let command = this.parkedFirst; command !== null; command = command.next) {
      const request = command.request as BlockRequest;
      if (request.stage === STAGE_CACHED) request.errno ||= ERRNO.EIO;
    }
  }
}

function needsMemory(request: BlockRequest): boolean {
  return request.operation === BLOCK_OPERATION.READ || request.operation === BLOCK_OPERATION.WRITE;
}

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
// can't tell who believes in them; attach the volume anew to go on. `flush-ledger.ts` keeps that
// account. On a device without a volatile cache (a RAM disk), a changed epoch means that its
// contents are another's: then all I/O fails. Devices of one volume on several lanes of a client
// share account and guard, and so are one device to its users.

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
  RNBD_ACCESS,
  RNBD_CACHE,
  RNBD_FLAG,
  type RnbdAccess,
  type RnbdOpenResponse,
} from "../wire/index.js";
import type { ChangeGuard } from "./change-guard.js";
import type { DeviceHost } from "./device-host.js";
import { limitsFrom, NO_LIMITS, partMax } from "./device-limits.js";
import type { FlushLedger } from "./flush-ledger.js";
import { needsMemory, operationOf } from "./io-operation.js";
import { CommandList, FLUSH_OPERATION, type RnbdCommand } from "./rnbd-command.js";
import { joinGroup, type SessionGroup } from "./session-group.js";

/**
 * OPENING: not open yet, nobody has it. OPEN. REOPENING: the session was lost or the server would
 * not open it again so far; requests wait. CLOSING: the server is to be told. CLOSED: over, by
 * `close` or for good by an error.
 */
export type RnbdDeviceState = "OPENING" | "OPEN" | "REOPENING" | "CLOSING" | "CLOSED";

/** What `issueOne` did. */
export const ISSUE = { NOTHING: 0, ISSUED: 1, NO_PERMIT: 2 } as const;
export type Issue = (typeof ISSUE)[keyof typeof ISSUE];

/** `heldSinceNs` until the next `pump` says what time it is. */
export const HELD_NOW = -1;

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
  /** Since when a request waits for another lane; Infinity: none does. */
  heldSinceNs = Infinity;
  private readonly host: DeviceHost;
  private currentLimits = NO_LIMITS;
  private readonly requests = new RequestLedger();
  /** Not wholly sent; only the first can be sent in part. */
  private readonly waiting = new RequestList();
  private readonly guard: ChangeGuard;
  private readonly ledger: FlushLedger;
  /** Commands to be sent again, oldest first; the guard has them still. */
  private readonly parked = new CommandList();
  /** Commands with RTRS, and parked ones. */
  private commandCount = 0;
  private resized = false;
  private closed = false;
  /**
   * Non-zero: every request fails with it, until the device is open again (timeout) or for good.
   */
  private failErrno = 0;
  /** The cache was lost, and what was in flight then has not been sent again yet. */
  private isLosing = false;
  private discardPartMax = 0;
  private zeroesPartMax = 0;
  private serverHasFua = false;
  /** A server has said that it has a volatile cache. */
  private serverCaches = false;

  constructor(host: DeviceHost, name: string, access: RnbdAccess, group: SessionGroup | null) {
    this.host = host;
    this.name = name;
    this.access = access;
    const { guard, ledger } = joinGroup(access === RNBD_ACCESS.RO ? null : group, name);
    this.guard = guard;
    this.ledger = ledger;
  }

  get limits(): BlockLimits {
    return this.currentLimits;
  }

  get inflight(): number {
    return this.requests.inflight;
  }

  /** Whether unflushed writes were lost with the server's cache: every FLUSH fails. */
  get hasLostWrites(): boolean {
    return this.ledger.isLost;
  }

  /** Non-zero: every flush fails with it, for good. */
  private get lostErrno(): number {
    return this.ledger.isLost ? ERRNO.EIO : 0;
  }

  submit(request: BlockRequest): void {
    this.requests.admit(request);
    const errno = this.failErrno || checkBlockRequest(this.currentLimits, request);
    if (errno !== 0) {
      this.requests.finish(request, errno);
    } else if (request.operation === BLOCK_OPERATION.STATUS) {
      // RNBD can't tell holes from data.
      request.extents = [{ length: request.length, hole: false, zero: false }];
      this.requests.finish(request, 0);
    } else if (request.operation === BLOCK_OPERATION.CACHE) {
      this.requests.finish(request, 0);
    } else if (needsMemory(request) && !this.host.hasMemory(request.memory as Memory)) {
      this.requests.finish(request, ERRNO.EFAULT);
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
    assert(this.requests.inflight === 0, "no request in flight when a device closes");
    if (this.closed) return;
    this.closed = true;
    const state = this.state;
    this.state = "CLOSED";
    this.host.onDeviceClose(this, state);
  }

  checkInvariants(): void {
    this.guard.checkInvariants();
    assert(this.commandCount >= this.parked.count, "parked commands are commands");
    assert(this.guard.count <= this.commandCount, "only commands are guarded");
    assert(
      this.commandCount === 0 || this.requests.inflight > 0,
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
    return this.requests.finishedCount > 0 || this.resized;
  }

  /** Client: hands back finished requests. */
  deliver(): void {
    if (this.resized) {
      this.resized = false;
      this.onResize?.();
    }
    this.requests.deliver();
  }

  /** Client: sends one command where one can be sent. */
  issueOne(): Issue {
    if (this.state !== "OPEN") return ISSUE.NOTHING;
    this.isLosing = false; // RTRS has had everything back before anything new is sent.
    if (this.parked.first !== null) return this.issueParked();
    const request = this.waiting.first;
    if (request === null) return ISSUE.NOTHING;
    if (request.operation === BLOCK_OPERATION.FLUSH || request.stage === STAGE_FLUSH) {
      return this.issueFlush(request);
    }
    return this.issuePart(request);
  }

  /** Client: the answer to `command` has come, or it has failed for good. */
  onCommandDone(command: RnbdCommand, outcome: number): void {
    const request = command.request as BlockRequest;
    const errno = outcome === 0 ? this.noteDurability(command) : outcome;
    this.guard.remove(command, outcome === 0 || this.host.isSettled);
    this.host.commands.give(command);
    this.commandCount--;
    request.parts--;
    if (errno !== 0) this.abandonRest(request, errno);
    if (request.parts > 0 || request === this.waiting.first) return;
    if (request.errno === 0 && this.needsFlushAfter(request)) {
      request.stage = STAGE_FLUSH;
      this.waiting.push(request);
    } else {
      this.requests.finish(request, request.errno);
    }
  }

  /** Client: `command` comes back unsent, to be sent again when the device is open. */
  park(command: RnbdCommand): void {
    command.parks = false;
    if (this.failErrno !== 0) {
      this.onCommandDone(command, this.failErrno);
      return;
    }
    this.parked.push(command);
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
    if (!command.isFlush) return 0;
    this.numberFlush(command);
    return this.lostErrno;
  }

  /** Client: the session is gone, and with it the device's id. */
  suspend(nowNs: number): void {
    assert(this.state === "OPEN", "an open device is suspended");
    this.state = "REOPENING";
    this.suspendedNs = nowNs;
    this.endHold();
  }

  /**
   * Client: fails what waits, and what is submitted, with `errno` until the device is open again.
   */
  fail(errno: number): void {
    assert(errno !== 0, "a failure has an errno");
    this.failErrno = errno;
    for (let left = this.parked.count; left > 0; left--) {
      this.onCommandDone(this.parked.shift(), errno);
    }
    while (this.waiting.first !== null) this.failFirst(errno);
  }

  /** Client: what waits for another lane has waited for too long. */
  failHeld(errno: number): void {
    assert(this.heldSinceNs !== Infinity, "a request waits");
    this.failFirst(errno);
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
    this.ledger.setEpoch(response.epochHigh, response.epochLow);
    this.resized = !isFirst && limits.sizeBytes !== this.currentLimits.sizeBytes;
    // Of all limits, only the size may change under the users of a device.
    this.currentLimits = isFirst ? limits : { ...this.currentLimits, sizeBytes: limits.sizeBytes };
    this.serverHasFua = (response.cachePolicy & RNBD_CACHE.FUA) !== 0;
    if ((response.cachePolicy & RNBD_CACHE.WRITE_BACK) !== 0) this.serverCaches = true;
    this.discardPartMax = partMax(response.discardSectorsMax, limits.logicalBlockBytes);
    this.zeroesPartMax = partMax(response.writeZeroesSectorsMax, limits.logicalBlockBytes);
    this.deviceId = response.deviceId;
    this.state = "OPEN";
    this.guard.settle();
    this.failErrno = 0;
    this.reopenWanted = false;
    return true;
  }

  // --------------------------------------------------------------------------------- commands

  private issueParked(): Issue {
    if ((this.parked.first as RnbdCommand).isFlush && this.lostErrno !== 0) {
      this.onCommandDone(this.parked.shift(), this.lostErrno);
      return ISSUE.ISSUED;
    }
    const permit = this.host.acquire();
    if (permit === null) return ISSUE.NO_PERMIT;
    const command = this.parked.shift();
    if (command.isFlush) this.numberFlush(command);
    this.host.send(permit, command);
    return ISSUE.ISSUED;
  }

  private issueFlush(request: BlockRequest): Issue {
    if (this.lostErrno !== 0) {
      this.waiting.shift();
      this.requests.finish(request, this.lostErrno);
      return ISSUE.ISSUED;
    }
    const permit = this.host.acquire();
    if (permit === null) return ISSUE.NO_PERMIT;
    this.waiting.shift();
    const command = this.commandFor(request, FLUSH_OPERATION, 0, 0);
    command.memory = null;
    this.numberFlush(command);
    this.host.send(permit, command);
    return ISSUE.ISSUED;
  }

  /** The next part of a request that has a range. */
  private issuePart(request: BlockRequest): Issue {
    const offset = request.offset + request.position;
    const length = Math.min(request.length - request.position, this.partBytesMax(request));
    if (length === 0) {
      // The server could do it when the device was first opened, and can't any more.
      this.failFirst(ERRNO.EOPNOTSUPP);
      return ISSUE.ISSUED;
    }
    const changes = isChange(request);
    // The request that overlaps one in flight is held, and everything behind it: rare, and short.
    if (!this.mayGo(changes, offset, length)) return ISSUE.NOTHING;
    const permit = this.host.acquire();
    if (permit === null) return ISSUE.NO_PERMIT;
    const command = this.commandFor(
      request,
      operationOf(request, this.serverHasFua),
      offset,
      length,
    );
    command.memory = needsMemory(request) ? request.memory : null;
    command.memoryOffset = request.memoryOffset + request.position;
    if (changes) this.guard.add(command);
    request.position += length;
    if (request.position === request.length) this.waiting.shift();
    this.host.send(permit, command);
    return ISSUE.ISSUED;
  }

  private mayGo(changes: boolean, offset: number, length: number): boolean {
    const { guard } = this;
    const mayGo = changes ? guard.mayEnter(offset, length) : guard.mayRead(offset, length);
    if (mayGo || !guard.isHeld) this.heldSinceNs = Infinity;
    else if (this.heldSinceNs === Infinity) this.heldSinceNs = HELD_NOW;
    return mayGo;
  }

  /** What is first in line does not go on as it was. */
  private endHold(): void {
    this.guard.withdraw();
    this.heldSinceNs = Infinity;
  }

  /** What of the first request in line is not sent is not sent any more. */
  private failFirst(errno: number): void {
    const request = this.waiting.first as BlockRequest;
    this.abandonRest(request, errno);
    if (request.parts === 0) this.requests.finish(request, request.errno);
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

  /** An error of one part fails the request: what was not sent yet is not sent. */
  private abandonRest(request: BlockRequest, errno: number): void {
    request.errno ||= errno;
    request.position = request.length;
    if (request !== this.waiting.first) return;
    this.waiting.shift();
    this.endHold();
  }

  // ------------------------------------------------------------------------------- durability

  /**
   * Whether parts of a change with FUA went without it: what the server offers may have changed.
   */
  private needsFlushAfter(request: BlockRequest): boolean {
    if ((request.flags & BLOCK_FLAG.FUA) === 0 || !this.serverCaches) return false;
    return request.stage === STAGE_CACHED;
  }

  private numberFlush(command: RnbdCommand): void {
    command.serial = this.ledger.startFlush();
    const isSplit = this.ledger.isSplit();
    command.isDoomed = this.ledger.isLost || isSplit;
  }

  /** The server has done `command`. @returns 0, or the errno of a flush that is worth nothing. */
  private noteDurability(command: RnbdCommand): number {
    if (command.isFlush) {
      if (command.isDoomed) this.ledger.markLost();
      else this.ledger.endFlush(command.serial);
      return command.isDoomed ? ERRNO.EIO : 0;
    }
    if (!command.isRead && (command.operation & RNBD_FLAG.FUA) === 0) {
      this.ledger.noteChange();
      (command.request as BlockRequest).stage = STAGE_CACHED;
    }
    return 0;
  }

  /** @returns whether the device can go on with this server's cache. */
  private acceptsEpoch(response: RnbdOpenResponse): boolean {
    if (!this.ledger.isElsewhere(response.epochHigh, response.epochLow)) return true;
    if (!this.currentLimits.volatileCache) return false;
    if (this.ledger.isDirty) this.loseCache();
    return true;
  }

  /**
   * Acknowledged writes are gone. A request that is acknowledged in part only must not succeed with
   * the other part.
   */
  private loseCache(): void {
    this.ledger.markLost();
    this.isLosing = true;
    const first = this.waiting.first;
    if (first?.stage === STAGE_CACHED) first.errno ||= ERRNO.EIO;
    for (let command = this.parked.first; command !== null; command = command.next) {
      const request = command.request as BlockRequest;
      if (request.stage === STAGE_CACHED) request.errno ||= ERRNO.EIO;
    }
  }
}

// SPDX-License-Identifier: MIT
// The RNBD client: one session with a server, and the devices opened in it.
//
// When the session is up, SESS_INFO goes first, then OPEN for every device that is not open, one at
// a time on a permit kept for that; then the I/O that was in flight when the session was lost, then
// what has been waiting. Device ids end with a session, so I/O can't go on before its device is
// open again. A device that the server refuses to open again is asked for once in a while, and its
// I/O waits; other devices go on.

import {
  assert,
  ERRNO,
  FarpageError,
  type Machine,
  type Memory,
  type MemorySource,
} from "../base/index.js";
import {
  type ClientRequest,
  RtrsClient,
  type RtrsClientPath,
  type RtrsClientUser,
  type RtrsEnvironment,
} from "../rtrs/index.js";
import {
  isRnbdName,
  RNBD_SECTOR_BYTES,
  type RnbdAccess,
  readRnbdOpenResponse,
  rnbdSessInfoHasGroup,
} from "../wire/index.js";
import { type Admin, fillAdmin } from "./admin-message.js";
import type { OpenCallback, RnbdClientOptions, RtrsSession } from "./client-options.js";
import type { DeviceHost } from "./device-host.js";
import { CANCELED, changedError, isLost, openError, unusableError } from "./open-error.js";
import { CommandPool, RnbdCommand } from "./rnbd-command.js";
import { HELD_NOW, ISSUE, RnbdDevice, type RnbdDeviceState } from "./rnbd-device.js";
import type { SessionGroup } from "./session-group.js";

const TRANSFER_BYTES_MAX = 32 << 20;
const REOPEN_DELAY_NS = 1e9;
const ADMIN_BYTES = 4096;

export class RnbdClient implements RtrsClientUser, DeviceHost, Machine {
  /** The session is up, for the first time or again; it is lost, and is tried again. */
  onUp: (() => void) | null = null;
  onDown: (() => void) | null = null;
  /** A path takes requests, or takes none any more. */
  onPathUp?: (path: RtrsClientPath) => void;
  onPathDown?: (path: RtrsClientPath) => void;
  /** The session has failed for good. */
  onFailed: ((error: FarpageError) => void) | null = null;
  /** A device that was open is refused: asked for anew each second, unless it is CLOSED now. */
  onRefused: ((device: RnbdDevice, error: FarpageError) => void) | null = null;
  readonly commands = new CommandPool();
  readonly transferBytesMax: number;
  private readonly rtrs: RtrsSession;
  private readonly memorySource: MemorySource;
  private readonly adminMemory: Memory;
  private readonly memories = new Set<Memory>();
  private readonly devices: RnbdDevice[] = [];
  private readonly callbacks = new Map<RnbdDevice, OpenCallback>();
  private readonly ioTimeoutNs: number;
  private readonly reopenDelayNs: number;
  private readonly group: SessionGroup | null;
  private groupKnown = false;
  /** The device that sent last, for a fair turn. */
  private cursor = 0;
  private admin: Admin | null = null;
  /** Something for `runAdmin` has come up outside `pump`. */
  private adminDue = false;
  /** There was no permit for it: it goes on when one is given back, which is in some `pump`. */
  private adminStarves = false;
  private isUp = false;
  /** The session has been up; it is up again, so that RTRS holds I/O until `reissue`. */
  private wasUp = false;
  private isAgain = false;
  /** In this connection of the session: SESS_INFO answered; every device tried, I/O released. */
  private infoDone = false;
  private flowing = false;
  private failure: FarpageError | null = null;
  private closing = false;
  /** RTRS has been told to close; and has: the memory is given back. */
  private ended = false;
  private freed = false;
  private nowNs = 0;
  /** While down: since when. Infinity: up, or I/O in flight has been failed already. */
  private downSinceNs = Infinity;
  private pumping = false;

  /**
   * Doesn't connect yet.
   * @param createSession for tests: something else that behaves like `RtrsClient`.
   * @throws FarpageError EINVAL for options that can't be, ENOMEM.
   */
  constructor(
    environment: RtrsEnvironment,
    options: RnbdClientOptions,
    createSession: (user: RtrsClientUser) => RtrsSession = (user) =>
      new RtrsClient(environment, options, user),
  ) {
    this.transferBytesMax = options.transferBytesMax ?? TRANSFER_BYTES_MAX;
    this.ioTimeoutNs = options.ioTimeoutNs ?? Infinity;
    this.reopenDelayNs = options.reopenDelayNs ?? REOPEN_DELAY_NS;
    this.group = options.group ?? null;
    this.rtrs = createSession(this);
    this.memorySource = environment.memory;
    this.adminMemory = environment.memory.allocate(ADMIN_BYTES, "RNBD messages");
    this.rtrs.registerMemory(this.adminMemory);
  }

  /** Whether the session is connected now. */
  get isConnected(): boolean {
    return this.isUp;
  }

  /**
   * Whether the server that is connected now, or was last, has the session in its group: known once
   * a volume is open.
   */
  get isInGroup(): boolean {
    return this.groupKnown;
  }

  /** DeviceHost: nothing of the session's former life is in a device of the server. */
  get isSettled(): boolean {
    return this.infoDone && this.rtrs.unsettledCount === 0;
  }

  /** Why the last attempt to connect failed; null when it did not, or none has been made. */
  get lastError(): FarpageError | null {
    return this.rtrs.lastError;
  }

  /** Everything is given back: after `close`, or a failure for good and `close`. */
  get isClosed(): boolean {
    return this.freed;
  }

  get queueDepth(): number {
    return this.rtrs.queueDepth;
  }

  get partBytesMax(): number {
    return this.rtrs.maxIoBytes - (this.rtrs.maxIoBytes % RNBD_SECTOR_BYTES);
  }

  connect(): void {
    this.rtrs.connect();
  }

  /** Makes memory known to the session: READ and WRITE take no other. */
  registerMemory(memory: Memory): void {
    if (this.memories.has(memory)) return;
    this.rtrs.registerMemory(memory);
    this.memories.add(memory);
  }

  /** Preconditions: no request in flight names it. A session that has ended gave all back. */
  unregisterMemory(memory: Memory): void {
    if (this.memories.delete(memory) && !this.ended) this.rtrs.unregisterMemory(memory);
  }

  /**
   * Opens a volume of the server. Waits while the session is not up.
   *
   * @param callback called once, from `pump`. Errors: the server's, by errno name (ENOENT: no such
   *   volume; EPERM: somebody else has it open for writing; EROFS; EACCES), EPROTO for a device
   *   that can't be, ECANCELED when the client is closed meanwhile, the session's failure.
   * @throws FarpageError EINVAL for a name that can't travel; EEXIST when the device is open
   *   already.
   */
  open(name: string, access: RnbdAccess, callback: OpenCallback): void {
    assert(!this.closing, "a closed client opens nothing");
    if (!isRnbdName(name)) {
      throw new FarpageError("EINVAL", `"${name}" is no volume name (1 to 254 bytes)`);
    }
    if (this.devices.some((device) => device.name === name)) {
      throw new FarpageError("EEXIST", `volume "${name}" is open in this session already`);
    }
    const device = new RnbdDevice(this, name, access, this.group);
    this.devices.push(device);
    this.callbacks.set(device, callback);
    this.adminDue = true;
  }

  /**
   * Closes the session: devices first, then the connections; `isClosed` tells when it is over.
   * Preconditions: no request is in flight.
   */
  close(): void {
    if (this.closing) return;
    this.closing = true;
    this.adminDue = true;
    for (const device of [...this.devices]) if (device.state !== "OPENING") device.close();
  }

  pump(nowNs: number): void {
    assert(!this.pumping, "pump is not re-entered");
    this.pumping = true;
    this.nowNs = nowNs;
    this.rtrs.pump(nowNs);
    this.fireTimeouts();
    this.runAdmin();
    this.dispatch();
    for (let i = 0; i < this.devices.length; i++) (this.devices[i] as RnbdDevice).deliver();
    if (this.closing && !this.freed) this.runClose();
    this.pumping = false;
  }

  deadlineNs(): number {
    if (this.adminDue || (this.failure !== null && this.callbacks.size > 0)) return 0;
    let deadlineNs = this.rtrs.deadlineNs();
    deadlineNs = Math.min(deadlineNs, this.downSinceNs + this.ioTimeoutNs);
    for (let i = 0; i < this.devices.length; i++) {
      const device = this.devices[i] as RnbdDevice;
      if (device.isDue) return 0;
      if (device.state === "REOPENING" && !device.isFailing) {
        deadlineNs = Math.min(deadlineNs, device.suspendedNs + this.ioTimeoutNs);
      }
      deadlineNs = Math.min(deadlineNs, device.heldSinceNs + this.ioTimeoutNs);
      if (this.isUp && this.admin === null && !this.adminStarves && device.wantsOpen) {
        deadlineNs = Math.min(deadlineNs, device.attemptNs);
      }
    }
    return deadlineNs;
  }

  checkInvariants(): void {
    this.rtrs.checkInvariants();
    for (const device of this.devices) {
      device.checkInvariants();
      assert(device.state !== "OPEN" || this.isUp, "a device is open in a session only");
    }
    assert(!this.flowing || this.infoDone, "I/O flows behind SESS_INFO");
    assert(!this.infoDone || this.isUp, "SESS_INFO is said in a session");
  }

  // ----------------------------------------------------------------------- the devices' side

  hasMemory(memory: Memory): boolean {
    return this.memories.has(memory);
  }

  acquire(): ClientRequest | null {
    return this.rtrs.acquire();
  }

  send(permit: ClientRequest, command: RnbdCommand): void {
    command.fill(permit);
    if (command.isRead) this.rtrs.submitRead(permit, command.dataLength);
    else this.rtrs.submitWrite(permit, command.dataLength);
  }

  /** One command of each device in turn, until there are no permits or nothing is left to send. */
  dispatch(): void {
    if (!this.flowing) return;
    const count = this.devices.length;
    for (let idle = 0; idle < count; ) {
      this.cursor = this.cursor + 1 < count ? this.cursor + 1 : 0;
      const issue = (this.devices[this.cursor] as RnbdDevice).issueOne();
      if (issue === ISSUE.NO_PERMIT) {
        // Its turn is not over.
        this.cursor = this.cursor > 0 ? this.cursor - 1 : count - 1;
        return;
      }
      idle = issue === ISSUE.ISSUED ? 0 : idle + 1;
    }
  }

  onDeviceClose(device: RnbdDevice, state: RnbdDeviceState): void {
    if (state === "OPEN" && this.isUp) {
      device.state = "CLOSING";
      this.adminDue = true;
    } else {
      this.forget(device);
    }
  }

  onReopenWanted(): void {
    this.adminDue = true;
  }

  // ------------------------------------------------------------------------- what RTRS tells

  onSessionUp(): void {
    this.setUp(true);
    this.isAgain = this.wasUp;
    this.wasUp = true;
    this.downSinceNs = Infinity;
    for (const device of this.devices) device.attemptNs = 0;
    this.adminDue = true;
    this.onUp?.();
  }

  onSessionDown(): void {
    this.setUp(false);
    this.downSinceNs = this.nowNs;
    for (const device of [...this.devices]) {
      if (device.state === "OPEN") device.suspend(this.nowNs);
      else if (device.state === "CLOSING") this.forget(device);
    }
    this.onDown?.();
  }

  onSessionFailed(error: FarpageError): void {
    this.setUp(false);
    this.downSinceNs = Infinity;
    this.failure = error;
    for (const device of [...this.devices]) {
      if (device.state === "OPENING") continue;
      if (device.state === "CLOSING") this.forget(device);
      else device.failForGood(ERRNO.EIO);
    }
    this.onFailed?.(error);
  }

  onRequestReissue(request: ClientRequest): number {
    const command = request.context;
    assert(command instanceof RnbdCommand, "only I/O is sent again");
    const device = command.owner as RnbdDevice;
    const errno = device.onReissue(command);
    if (errno === 0) command.fill(request);
    return errno;
  }

  onRequestComplete(request: ClientRequest): void {
    const { context, errno } = request;
    request.context = null;
    if (!(context instanceof RnbdCommand)) {
      this.finishAdmin(request);
      return;
    }
    this.rtrs.release(request);
    const device = context.owner as RnbdDevice;
    if (context.parks) device.park(context);
    else device.onCommandDone(context, errno);
  }

  /** `pump` sends after it has pumped RTRS, which is what calls this. */
  onPermitAvailable(): void {}

  // --------------------------------------------------------------------- SESS_INFO, OPEN, CLOSE

  private setUp(isUp: boolean): void {
    this.isUp = isUp;
    this.infoDone = false;
    this.flowing = false;
  }

  /** Sends the next admin request that is due; lets I/O flow when there is none. */
  private runAdmin(): void {
    this.adminDue = false;
    this.adminStarves = false;
    if (this.failure !== null) this.failOpens(this.failure);
    if (!this.isUp || this.ended || this.admin !== null) return;
    // It also makes the server be through with what several lost paths have left.
    if (!this.infoDone || (!this.flowing && this.rtrs.unsettledCount > 0)) {
      this.sendAdmin({ kind: "SESS_INFO", device: null });
      return;
    }
    for (let i = 0; i < this.devices.length; i++) {
      const device = this.devices[i] as RnbdDevice;
      if (device.state === "CLOSING") {
        this.sendAdmin({ kind: "CLOSE", device });
        return;
      }
      if (device.wantsOpen && device.attemptNs <= this.nowNs && !this.closing) {
        this.sendAdmin({ kind: "OPEN", device });
        return;
      }
    }
    if (this.flowing) return;
    this.flowing = true;
    if (this.isAgain) this.rtrs.reissue();
  }

  private sendAdmin(admin: Admin): void {
    const request = this.rtrs.acquireReserved();
    if (request === null) {
      this.adminStarves = true;
      // With one permit for everything (a queue depth of 1) the I/O that waits for its device to be
      // open again holds it: let that I/O go as far as it can, it parks in its device.
      if (!this.flowing && this.isAgain) this.rtrs.reissue();
      return;
    }
    this.admin = admin;
    request.context = admin;
    const length = fillAdmin(request, admin, this.adminMemory, this.group?.name ?? null);
    if (admin.kind === "CLOSE") this.rtrs.submitWrite(request, 0);
    else this.rtrs.submitRead(request, length);
  }

  /** Linux's server doesn't insist on SESS_INFO; neither does farpage on its success. */
  private finishAdmin(request: ClientRequest): void {
    const { kind, device } = this.admin as Admin;
    const { errno } = request;
    this.admin = null;
    this.adminDue = true;
    this.rtrs.release(request);
    if (kind === "SESS_INFO") {
      this.infoDone = this.isUp;
      this.groupKnown = errno === 0 && rnbdSessInfoHasGroup(this.adminMemory.view, 0);
    } else if (kind === "OPEN") this.finishOpen(device as RnbdDevice, errno);
    else if (device?.state === "CLOSING") this.forget(device);
  }

  private finishOpen(device: RnbdDevice, errno: number): void {
    const isFirst = device.state === "OPENING";
    device.reopenWanted = false;
    const error = errno === 0 || isLost(errno) ? null : openError(device.name, errno);
    if (isFirst && error !== null) {
      this.answerOpen(device, error);
    } else if (errno !== 0 || !this.isUp) {
      // The next session tries at once.
      device.attemptNs = this.nowNs + this.reopenDelayNs;
      if (error !== null && device.state === "REOPENING") this.onRefused?.(device, error);
    } else {
      this.adopt(device, isFirst);
    }
  }

  private adopt(device: RnbdDevice, isFirst: boolean): void {
    if (device.state === "CLOSING" || device.state === "CLOSED") return;
    if (isFirst && this.closing) {
      this.answerOpen(device, new FarpageError("ECANCELED", CANCELED));
      return;
    }
    const response = readRnbdOpenResponse(this.adminMemory.view, 0);
    const isUsable = response !== null && device.adopt(response);
    if (isFirst) {
      this.answerOpen(device, isUsable ? null : unusableError(device.name));
    } else if (!isUsable) {
      device.failForGood(ERRNO.EIO);
      this.onRefused?.(device, changedError(device.name));
    }
  }

  private answerOpen(device: RnbdDevice, error: FarpageError | null): void {
    const callback = this.callbacks.get(device) as OpenCallback;
    assert(callback !== undefined, "a device that opens has somebody who asked");
    this.callbacks.delete(device);
    if (error !== null) {
      device.state = "CLOSED";
      this.forget(device);
    }
    callback(error, error === null ? device : null);
  }

  private failOpens(error: FarpageError): void {
    for (const device of [...this.callbacks.keys()]) {
      if (this.admin?.device !== device) this.answerOpen(device, error);
    }
  }

  private forget(device: RnbdDevice): void {
    const index = this.devices.indexOf(device);
    assert(index >= 0, "a device is forgotten once");
    device.state = "CLOSED";
    this.devices.splice(index, 1);
    this.cursor = 0;
  }

  // ------------------------------------------------------------------------ timeouts and the end

  private fireTimeouts(): void {
    if (this.nowNs >= this.downSinceNs + this.ioTimeoutNs) {
      this.downSinceNs = Infinity;
      this.rtrs.failWaiting(ERRNO.ETIMEDOUT);
    }
    for (let i = 0; i < this.devices.length; i++) {
      const device = this.devices[i] as RnbdDevice;
      if (device.heldSinceNs === HELD_NOW) device.heldSinceNs = this.nowNs;
      if (this.nowNs >= device.heldSinceNs + this.ioTimeoutNs) device.failHeld(ERRNO.ETIMEDOUT);
      if (device.state !== "REOPENING" || device.isFailing) continue;
      if (this.nowNs >= device.suspendedNs + this.ioTimeoutNs) device.fail(ERRNO.ETIMEDOUT);
    }
  }

  private runClose(): void {
    this.failOpens(this.failure ?? new FarpageError("ECANCELED", CANCELED));
    if (this.admin !== null && this.isUp) return;
    if (this.isUp && this.devices.length > 0) return;
    if (!this.ended) {
      this.ended = true;
      this.rtrs.close();
    }
    if (this.rtrs.state !== "CLOSED") return;
    this.freed = true;
    this.memorySource.free(this.adminMemory);
  }
}

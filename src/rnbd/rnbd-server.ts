// SPDX-License-Identifier: MIT
// The RNBD server: block devices, under names, for the clients of an RTRS server (facts page 12,
// 13).
//
// It is stricter than Linux 6.1 where Linux is careless (facts page 17): a request's length must be
// the length of its data, a read-only open takes no writes, names end within their field, and
// nothing is run that is not known. And an open keeps its right to a volume until its last request
// is out of the device, so that nobody becomes the writer of a volume while an old write may still
// land.

import { assert, ERRNO, FarpageError, type IpAddress, type Machine } from "../base/index.js";
import type { BlockDevice } from "../block/index.js";
import type { RtrsServerUser, ServerRequest, ServerSession } from "../rtrs/index.js";
import {
  isRnbdName,
  RNBD_ACCESS,
  RNBD_CACHE,
  RNBD_CLOSE_BYTES,
  RNBD_OPEN_BYTES,
  RNBD_OPEN_RSP_BYTES,
  RNBD_SECTOR_BYTES,
  RNBD_SESS_INFO_BYTES,
  RNBD_TYPE,
  RNBD_VERSION_MAJOR,
  type RnbdAccess,
  rnbdDeviceId,
  rnbdOpenAccess,
  rnbdOpenName,
  rnbdSessInfoGroup,
  rnbdSessInfoHasGroup,
  rnbdSessInfoVersion,
  rnbdType,
  writeRnbdOpenResponse,
  writeRnbdSessInfoResponse,
} from "../wire/index.js";
import { DeviceTable, type OpenDevice } from "./device-table.js";
import { ServerIo } from "./server-io.js";
import { Volume, type VolumeOptions } from "./volume.js";

/** Somebody wants to open a volume. */
export interface OpenAttempt {
  readonly volumeName: string;
  readonly sessionName: string;
  /**
   * Where a path of the session comes from: asked for each. The session's name is only what the
   * client says.
   */
  readonly clientAddress: IpAddress;
  readonly access: RnbdAccess;
}

/** Whether it may. */
export interface OpenVerdict {
  /** 0, or the errno to refuse with. */
  readonly errno: number;
  /** Nobody else may have the volume open as long as this open lasts. */
  readonly exclusive: boolean;
}

/** Who may do what; by default everybody everything. `accessPolicy` makes both from rules. */
export interface RnbdServerOptions {
  /** Asked for every path, ahead of anything that costs memory. @returns 0, or an errno. */
  readonly admit?: (client: IpAddress) => number;
  /**
   * Asked for every open, whether there is such a volume or not, so that a refusal does not tell
   * which; and for each open of a session that a path from another address would join.
   */
  readonly authorize?: (attempt: OpenAttempt) => OpenVerdict;
}

const GRANTED: OpenVerdict = { errno: 0, exclusive: false };

/** One open device, for display. */
export interface OpenInfo {
  readonly sessionName: string;
  readonly clientAddress: IpAddress;
  readonly volumeName: string;
  readonly deviceId: number;
  readonly access: RnbdAccess;
  readonly inflight: number;
}

/** The block and sector sizes of OPEN_RSP are 16 bits wide. */
const BLOCK_BYTES_MAX = 32_768;
const SECTORS_MAX = 0xffff_ffff / RNBD_SECTOR_BYTES;
/** What Linux offers; clients ignore it. */
const SEGMENTS_MAX = 128;

/**
 * The upper half of a server: hand it to `RtrsServer` as its user. It pumps the devices of its
 * volumes, which stay the caller's to close.
 */
export class RnbdServer implements RtrsServerUser, Machine {
  private readonly admitClient: (client: IpAddress) => number;
  private readonly authorize: (attempt: OpenAttempt) => OpenVerdict;
  private readonly byName = new Map<string, Volume>();
  /**
   * All that may have requests in flight: those of `byName`, and removed ones until they are
   * drained.
   */
  private readonly volumes: Volume[] = [];
  private readonly sessions = new Set<ServerSession>();

  constructor(options: RnbdServerOptions = {}) {
    this.admitClient = options.admit ?? (() => 0);
    this.authorize = options.authorize ?? (() => GRANTED);
  }

  /**
   * Exports `device` as `name`.
   * Preconditions: the device's `transferBytesMax` is at least the RTRS server's largest I/O.
   * @throws FarpageError EINVAL for a name that can't travel or holds "..", or a block above 32
   *   KiB; EEXIST when the name is taken.
   */
  addVolume(name: string, device: BlockDevice, options: VolumeOptions = {}): Volume {
    const key = volumeKey(name);
    if (key === null || !isRnbdName(name)) {
      throw new FarpageError("EINVAL", `"${name}" is no volume name (1 to 254 bytes without "..")`);
    }
    if (this.byName.has(key)) {
      throw new FarpageError("EEXIST", `there is a volume "${key}" already`);
    }
    if (device.limits.logicalBlockBytes > BLOCK_BYTES_MAX) {
      throw new FarpageError("EINVAL", `${name}: RNBD knows blocks up to ${BLOCK_BYTES_MAX} bytes`);
    }
    const volume = new Volume(key, device, options);
    this.byName.set(key, volume);
    this.volumes.push(volume);
    return volume;
  }

  /**
   * Takes a volume away: its opens end, later I/O of theirs gets ENOTCONN, and what is in flight
   * finishes.
   * @param onDrained called from a later `pump`, once nothing is in flight: the device may be
   *   closed.
   * @returns whether there was such a volume.
   */
  removeVolume(name: string, onDrained: () => void = () => {}): boolean {
    const volume = this.volume(name);
    if (volume === null) return false;
    this.byName.delete(volume.name);
    this.closeOpens(volume);
    volume.onDrained = onDrained;
    return true;
  }

  /**
   * Ends every open of a volume that stays: clients must open it again, and their I/O gets ENOTCONN
   * until they do.
   */
  closeOpens(volume: Volume): void {
    for (const session of this.sessions) {
      const open = tableOf(session).findVolume(volume);
      if (open !== null) tableOf(session).remove(open);
    }
  }

  volume(name: string): Volume | null {
    const key = volumeKey(name);
    return key === null ? null : (this.byName.get(key) ?? null);
  }

  volumeList(): readonly Volume[] {
    return [...this.byName.values()];
  }

  opens(): readonly OpenInfo[] {
    return [...this.sessions].flatMap((session) =>
      tableOf(session)
        .list()
        .map((open) => ({
          sessionName: session.name,
          clientAddress: session.peer,
          volumeName: open.volume.name,
          deviceId: open.id,
          access: open.access,
          inflight: open.inflight,
        })),
    );
  }

  pump(nowNs: number): void {
    for (let i = 0; i < this.volumes.length; i++) {
      const volume = this.volumes[i] as Volume;
      volume.device.pump(nowNs);
      if (volume.onDrained !== null && volume.inflight === 0) {
        this.volumes.splice(i--, 1);
        volume.onDrained();
      }
    }
  }

  deadlineNs(): number {
    let deadlineNs = Infinity;
    for (let i = 0; i < this.volumes.length; i++) {
      const volume = this.volumes[i] as Volume;
      if (volume.onDrained !== null && volume.inflight === 0) return 0;
      deadlineNs = Math.min(deadlineNs, volume.device.deadlineNs());
    }
    return deadlineNs;
  }

  checkInvariants(): void {
    for (const volume of this.volumes) {
      volume.checkInvariants();
      let inflight = 0;
      let count = 0;
      for (const session of this.sessions) {
        const open = tableOf(session).findVolume(volume);
        if (open === null) continue;
        assert(!open.ended, "a table holds no ended open");
        inflight += open.inflight;
        count++;
      }
      assert(inflight <= volume.inflight, "no more in flight of the opens than of their volume");
      assert(count <= volume.openCount, "every open has its right");
    }
  }

  /** A path that joins a session must have the right to everything that the session has open. */
  admit(client: IpAddress, session: ServerSession | null): number {
    const errno = this.admitClient(client);
    if (errno !== 0 || session === null || !this.sessions.has(session)) return errno;
    for (const { volume, access, exclusive } of tableOf(session).list()) {
      const verdict = this.authorize({
        volumeName: volume.name,
        sessionName: session.name,
        clientAddress: client,
        access,
      });
      if (verdict.errno !== 0 || (verdict.exclusive && !exclusive)) return ERRNO.EACCES;
    }
    return 0;
  }

  onSessionUp(session: ServerSession): void {
    session.context = new DeviceTable();
    this.sessions.add(session);
  }

  onSessionDown(session: ServerSession): void {
    tableOf(session).clear();
    this.sessions.delete(session);
  }

  onRequest(request: ServerRequest): void {
    const type = request.userLength < 2 ? -1 : rnbdType(request.userView, 0);
    if (type === RNBD_TYPE.IO) this.handleIo(request);
    else if (type === RNBD_TYPE.SESS_INFO) handleSessInfo(request);
    else if (type === RNBD_TYPE.OPEN) this.handleOpen(request);
    else if (type === RNBD_TYPE.CLOSE) handleClose(request);
    else request.complete(ERRNO.EINVAL);
  }

  private handleIo(request: ServerRequest): void {
    const isWhole = request.userLength >= RNBD_CLOSE_BYTES;
    const id = isWhole ? rnbdDeviceId(request.userView, 0) : -1;
    const open = isWhole ? tableOf(request.session).find(id) : null;
    if (open === null) {
      request.complete(isWhole ? ERRNO.ENOTCONN : ERRNO.EINVAL);
      return;
    }
    let io = request.context as ServerIo | null;
    if (io === null) {
      io = new ServerIo(request);
      request.context = io;
    }
    io.run(open);
  }

  private handleOpen(request: ServerRequest): void {
    if (!isExchange(request, RNBD_OPEN_BYTES, RNBD_OPEN_RSP_BYTES)) {
      request.complete(ERRNO.EINVAL);
      return;
    }
    const name = rnbdOpenName(request.userMessage, 0);
    const access = rnbdOpenAccess(request.userView, 0);
    const opened = this.open(request.session, name, access);
    if (typeof opened === "number") {
      request.complete(opened);
      return;
    }
    opened.volume.device.refreshSize?.();
    writeRnbdOpenResponse(request.memory.view, request.memoryOffset, openResponse(opened));
    request.complete(0, RNBD_OPEN_RSP_BYTES);
  }

  /** @returns the open, or the errno to refuse with. */
  private open(session: ServerSession, name: string | null, access: number): OpenDevice | number {
    const key = name === null ? null : volumeKey(name);
    if (key === null) return ERRNO.EINVAL;
    if (!isRnbdAccess(access)) return ERRNO.EINVAL;
    const table = tableOf(session);
    const volume = this.byName.get(key);
    const known = volume === undefined ? null : table.findVolume(volume);
    if (known !== null) return known; // Whatever the mode, as Linux does (facts page 13).
    const { errno: refusal, exclusive } = this.judge(session, key, access);
    if (refusal !== 0) return refusal;
    if (volume === undefined) return ERRNO.ENOENT;
    const errno = volume.acquire(access, exclusive, table.group);
    if (errno !== 0) return errno;
    const open = table.add(volume, access, exclusive);
    if (open !== null) return open;
    volume.release(access, exclusive);
    return ERRNO.EMFILE;
  }

  /** The strictest verdict over the addresses that the session comes from. */
  private judge(session: ServerSession, volumeName: string, access: RnbdAccess): OpenVerdict {
    const { clients, name: sessionName } = session;
    let exclusive = false;
    for (const clientAddress of clients.length === 0 ? [session.peer] : clients) {
      const verdict = this.authorize({ volumeName, sessionName, clientAddress, access });
      if (verdict.errno !== 0) return verdict;
      exclusive ||= verdict.exclusive;
    }
    return { errno: 0, exclusive };
  }
}

function tableOf(session: ServerSession): DeviceTable {
  const table = session.context as DeviceTable | null;
  assert(table instanceof DeviceTable, "a session that is up has its table");
  return table;
}

/**
 * The form under which a volume is known: slashes squeezed, none in front or behind, as a path
 * below Linux's `dev_search_path` would come out. Null for what Linux refuses, and for nothing at
 * all.
 */
function volumeKey(name: string): string | null {
  if (name.includes("..")) return null;
  const key = name
    .split("/")
    .filter((part) => part !== "")
    .join("/");
  return key === "" ? null : key;
}

function isRnbdAccess(access: number): access is RnbdAccess {
  return Object.values(RNBD_ACCESS).includes(access as RnbdAccess);
}

/** Whether `request` is a READ with a message and room for a response of at least these lengths. */
function isExchange(request: ServerRequest, userBytes: number, responseBytes: number): boolean {
  return request.isRead && request.userLength >= userBytes && request.dataLength >= responseBytes;
}

function handleSessInfo(request: ServerRequest): void {
  if (!isExchange(request, RNBD_SESS_INFO_BYTES, RNBD_SESS_INFO_BYTES)) {
    request.complete(ERRNO.EINVAL);
    return;
  }
  const table = tableOf(request.session);
  const { userView } = request;
  table.version = Math.min(rnbdSessInfoVersion(userView, 0), RNBD_VERSION_MAJOR);
  const hasGroup = rnbdSessInfoHasGroup(userView, 0);
  table.group = hasGroup ? rnbdSessInfoGroup(userView, 0) : null;
  writeRnbdSessInfoResponse(request.memory.view, request.memoryOffset, table.version, hasGroup);
  request.complete(0, RNBD_SESS_INFO_BYTES);
}

function handleClose(request: ServerRequest): void {
  if (request.userLength < RNBD_CLOSE_BYTES) {
    request.complete(ERRNO.EINVAL);
    return;
  }
  const table = tableOf(request.session);
  const open = table.find(rnbdDeviceId(request.userView, 0));
  if (open !== null) table.remove(open);
  // Closing what is not open succeeds: it may be the second try of one that did.
  request.complete(0, 0);
}

function openResponse(open: OpenDevice): Parameters<typeof writeRnbdOpenResponse>[2] {
  const { volume } = open;
  const limits = volume.device.limits;
  const readOnly = limits.readOnly || volume.readOnly;
  return {
    deviceId: open.id,
    sectorCount: Math.floor(limits.sizeBytes / RNBD_SECTOR_BYTES),
    hardwareSectorsMax: sectorsOf(limits.transferBytesMax),
    writeZeroesSectorsMax: readOnly ? 0 : sectorsOf(limits.writeZeroesBytesMax),
    discardSectorsMax: readOnly ? 0 : sectorsOf(limits.discardBytesMax),
    discardGranularityBytes: limits.discardGranularityBytes,
    discardAlignmentBytes: 0,
    physicalBlockBytes: Math.min(limits.physicalBlockBytes, BLOCK_BYTES_MAX),
    logicalBlockBytes: limits.logicalBlockBytes,
    segmentsMax: SEGMENTS_MAX,
    secureDiscard: 0,
    rotational: limits.rotational,
    cachePolicy:
      (limits.fua ? RNBD_CACHE.FUA : 0) | (limits.volatileCache ? RNBD_CACHE.WRITE_BACK : 0),
    epochHigh: volume.epochHigh,
    epochLow: volume.epochLow,
  };
}

/** Whole sectors, as many as a request can name in bytes. */
function sectorsOf(byteCount: number): number {
  return Math.floor(Math.min(byteCount / RNBD_SECTOR_BYTES, SECTORS_MAX));
}

// SPDX-License-Identifier: MIT
// A server host: volumes, exported by RNBD over RTRS, on this machine's addresses, and folders to
// copy to and from.

import { assert, type IpAddress } from "../base/index.js";
import type { Backend, BackendChoice } from "../os/index.js";
import { VolumeRights } from "../rnbd/index.js";
import { type AccessRule, AccessRules, SessionRoster } from "../rtrs/index.js";
import { CopyServer, type ExportSpec } from "./copy/index.js";
import { Failure } from "./failure.js";
import { type LaneGroup, openLaneGroup, type SharedVolume } from "./lanes/index.js";
import type { Log } from "./log.js";
import { type ObserveOptions, observed } from "./observe/index.js";
import { RepeatedWarning } from "./repeated-warning.js";
import { ServerLane } from "./server-lane.js";
import { Stack } from "./stack.js";
import { COPY_PORT_DEFAULT, type VolumeSpec } from "./uri.js";
import { type OpenVolume, openVolumes } from "./volumes.js";

export interface ServerHostOptions extends ObserveOptions {
  readonly addresses: readonly IpAddress[];
  /** RTRS port. */
  readonly port: number;
  readonly volumes: readonly VolumeSpec[];
  /** Folders for `farpage copy`, and the RTRS port of copies, default 1235. */
  readonly exports?: readonly ExportSpec[];
  readonly copyPort?: number;
  /**
   * Who may open which volume and how, in order: the first that fits decides. Behind them stands
   * one for loopback; everybody else is refused.
   */
  readonly allow?: readonly AccessRule[];
  /**
   * Requests in flight per session, bytes of each one's buffer, sessions, paths of each: the bound
   * of memory.
   */
  readonly queueDepth: number;
  readonly chunkBytes: number;
  readonly sessionCountMax: number;
  readonly pathCountMax: number;
  readonly alwaysInvalidate: boolean;
  /**
   * Threads that serve, each a share of the sessions, 1 to 64, default 1. Where there can be no
   * more than one, the log says why.
   */
  readonly lanes?: number;
  readonly backend?: BackendChoice;
  /** Let the kernel cut bursts into packets (UDP GSO), default true. */
  readonly segmentation?: boolean;
  readonly log: Log;
}

/** What a started server exports. */
export interface ExportedVolume {
  readonly name: string;
  /** null: in memory. */
  readonly path: string | null;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
}

/** Regions for everything but chunks: receive buffers, messages. */
const REGIONS_BESIDE_CHUNKS = 8192;
/** How long copies get to end in order when the server closes. */
const CLOSE_TIMEOUT_MS = 5_000;

/** What lanes share of a server, null where there is but one. */
interface Shared {
  readonly group: LaneGroup;
  readonly roster: SharedArrayBuffer;
  readonly volumes: readonly SharedVolume[];
}

export class ServerHost {
  readonly addresses: readonly IpAddress[];
  readonly port: number;
  readonly backend: Backend;
  readonly volumes: readonly ExportedVolume[];
  readonly exports: readonly ExportSpec[];
  readonly copyPort: number;
  readonly laneCount: number;
  /** Sessions x paths x requests x buffer of all lanes together, and the same of copies. */
  readonly memoryBytesMax: number;
  /** Bytes of that for one request: its chunk, and where it is copied to if it is short. */
  readonly requestBytes: number;
  /** Rejects when the server, or a lane of it, has stopped by a bug of ours. */
  readonly failed: Promise<never>;
  private readonly stack: Stack;
  private readonly lane: ServerLane;
  private readonly group: LaneGroup | null;
  private readonly copies: CopyServer | null;
  private readonly errors: RepeatedWarning;

  private constructor(
    options: ServerHostOptions,
    stack: Stack,
    open: readonly OpenVolume[],
    failure: Failure,
    shared: Shared | null,
  ) {
    this.stack = stack;
    this.failed = failure.promise;
    this.addresses = options.addresses;
    this.port = options.port;
    this.backend = stack.backend;
    this.group = shared?.group ?? null;
    this.laneCount = this.group?.laneCount ?? 1;
    this.errors = new RepeatedWarning(options.log);
    const rules = new AccessRules(options.allow);
    this.lane = new ServerLane(stack, open, {
      ...options,
      rules,
      warnings: this.errors,
      roster: shared === null ? null : rosterOf(shared),
      rights: shared === null ? null : shared.volumes.map(rightsOf),
    });
    this.exports = options.exports ?? [];
    this.copyPort = options.copyPort ?? COPY_PORT_DEFAULT;
    this.copies =
      this.exports.length === 0
        ? null
        : new CopyServer(stack, {
            addresses: options.addresses,
            port: this.copyPort,
            exports: this.exports,
            rules,
            sessionCountMax: options.sessionCountMax,
            log: options.log,
            warnings: this.errors,
          });
    const { rtrs } = this.lane;
    this.requestBytes = rtrs.requestBytes;
    this.memoryBytesMax = rtrs.memoryBytesMax + (this.copies?.rtrs.memoryBytesMax ?? 0);
    this.volumes = open.map(({ spec, device }) => ({
      name: spec.name,
      path: spec.path,
      sizeBytes: device.limits.sizeBytes,
      readOnly: device.limits.readOnly,
    }));
    if (this.copies !== null) stack.lane.add(this.copies);
  }

  /**
   * Opens the volumes, binds the addresses and listens.
   * @throws FarpageError as `Stack.open` and `openVolumes` do.
   */
  static async start(options: ServerHostOptions): Promise<ServerHost> {
    const failure = new Failure();
    const group = openGroup(options, failure);
    let stack: Stack | null = null;
    let open: readonly OpenVolume[] = [];
    try {
      stack = await openStack(options, failure, group);
      open = await openVolumes(options.volumes, stack, options.log, group !== null);
      const shared = group === null ? null : await startLanes(options, group, stack, open);
      return new ServerHost(options, stack, open, failure, shared);
    } catch (error) {
      for (const { device } of open) device.close();
      await group?.closeLanes();
      await stack?.close();
      group?.free();
      throw error;
    }
  }

  /**
   * Finishes the requests under way, ends the sessions, makes everything durable and closes the
   * files.
   * @throws FarpageError when a volume could not be made durable; all that can be closed is, then
   *   too. The memory and files of requests that a disk does not give back stay, until the process
   *   ends: another thread may still be at work on them.
   */
  async close(): Promise<void> {
    this.copies?.close();
    // All lanes say goodbye before the first one stops: they carry each other's packets.
    await Promise.all([this.lane.closeSessions(), this.group?.closeSessions()]);
    await this.stack.until(() => this.copies?.isClosed !== false, CLOSE_TIMEOUT_MS);
    await this.stack.until(() => this.copies?.free() !== false, CLOSE_TIMEOUT_MS);
    const [failed] = (await this.group?.closeLanes()) ?? [];
    try {
      await this.lane.close();
    } finally {
      this.group?.free();
      this.errors.flush();
    }
    if (failed !== undefined) throw failed;
  }
}

function rightsOf({ rights }: SharedVolume): VolumeRights {
  return new VolumeRights(rights);
}

function rosterOf({ group, roster }: Shared): SessionRoster {
  return new SessionRoster({ shared: roster, lane: 0, wake: (lane) => group.wake(lane) });
}

/** What several lanes need; null for one lane, and where there can be no more. */
function openGroup(options: ServerHostOptions, failure: Failure): LaneGroup | null {
  const { addresses, lanes: laneCount = 1, log, backend } = options;
  // A copy and what it calls back are on one lane.
  const pinnedPort = options.exports === undefined ? 0 : (options.copyPort ?? COPY_PORT_DEFAULT);
  const onFailure = (error: unknown) => failure.fail(error);
  const steering = { laneCount, pinnedPort };
  return openLaneGroup({ addresses, steering, log, onFailure }, backend);
}

function openStack(
  options: ServerHostOptions,
  failure: Failure,
  group: LaneGroup | null,
): Promise<Stack> {
  return Stack.open({
    regionCountMax:
      regionCountOf(options) +
      (options.exports === undefined ? 0 : CopyServer.regionCount(options.sessionCountMax)),
    addresses: options.addresses,
    log: options.log,
    onFailure: (error) => failure.fail(error),
    backend: options.backend ?? "auto",
    segmentation: options.segmentation ?? true,
    ...(group === null ? {} : { place: group.placeOf(0) }),
    ...observed(options),
  });
}

/** With rotating keys every chunk is a region of its own. All sessions may be on one lane. */
function regionCountOf(options: ServerHostOptions): number {
  const { sessionCountMax, pathCountMax, queueDepth } = options;
  return REGIONS_BESIDE_CHUNKS + sessionCountMax * pathCountMax * queueDepth;
}

/** Starts lanes 1 and up on the volumes that lane 0 has open. */
async function startLanes(
  options: ServerHostOptions,
  group: LaneGroup,
  stack: Stack,
  open: readonly OpenVolume[],
): Promise<Shared> {
  const { port, queueDepth, chunkBytes, sessionCountMax, pathCountMax, alwaysInvalidate } = options;
  const roster = SessionRoster.allocate(sessionCountMax);
  const volumes = open.map(({ spec, descriptor, epoch }) => {
    assert(descriptor !== null, "what lanes share has a descriptor");
    return { spec, descriptor, epoch, rights: new SharedArrayBuffer(VolumeRights.byteLength) };
  });
  const sizes = { queueDepth, chunkBytes, sessionCountMax, pathCountMax };
  const server = {
    port,
    ...sizes,
    alwaysInvalidate,
    rules: (options.allow ?? []).map(({ text }) => text),
    regionCountMax: regionCountOf(options),
  };
  const segmentation = options.segmentation ?? true;
  const role = { kind: "serve", server, volumes, roster } as const;
  await group.start({ segmentation, role }, stack.observer);
  return { group, roster, volumes };
}

// SPDX-License-Identifier: MIT
// A client host: volumes of a server, as an NBD endpoint on this machine. All of them are devices
// of one session, and exports of one endpoint. With several lanes each has a session of its own,
// which together are one client to the server, and NBD connections are shared out among them.

import type { IpAddress } from "../base/index.js";
import {
  type Backend,
  type BackendChoice,
  listenStream,
  type OsStream,
  type StreamListener,
} from "../os/index.js";
import type { RnbdDevice } from "../rnbd/index.js";
import { AttachLane, type AttachLaneOptions, defaultSessionName } from "./attach-lane.js";
import { Failure } from "./failure.js";
import {
  type AttachLaneSettings,
  groupOf,
  type LaneGroup,
  openLaneGroup,
  type SharedSessions,
  shareSessions,
} from "./lanes/index.js";
import { type ObserveOptions, observed, type SessionControlRequest } from "./observe/index.js";
import type { SessionStatus } from "./session/index.js";
import { Stack } from "./stack.js";
import { type NbdEndpointAddress, nbdUri } from "./uri.js";

export interface AttachHostOptions extends ObserveOptions, AttachLaneOptions {
  readonly addresses: readonly IpAddress[];
  readonly nbd: NbdEndpointAddress;
  /**
   * Threads that serve NBD connections, each by a session of its own, 1 to 64, default 1. Where
   * there can be no more than one, the log says so: by the system, or because the server does not
   * let several sessions of one client write a volume.
   */
  readonly lanes?: number;
  readonly backend?: BackendChoice;
  /** Let the kernel cut bursts into packets (UDP GSO), default true. */
  readonly segmentation?: boolean;
}

/** A volume that is attached. */
export interface AttachedVolume {
  readonly name: string;
  readonly nbdUri: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
}

export class AttachHost {
  readonly addresses: readonly IpAddress[];
  readonly backend: Backend;
  /** Of the first volume, as `readOnly`, `nbdUri` and `sizeBytes`; `volumes` has all. */
  readonly volume: string;
  readonly readOnly: boolean;
  readonly nbdUri: string;
  readonly laneCount: number;
  /** Bytes of the buffers of all NBD connections together, on all lanes. */
  readonly memoryBytesMax: number;
  /** Rejects when a session has failed for good, or by a bug of ours. */
  readonly failed: Promise<never>;
  private readonly stack: Stack;
  private readonly lane: AttachLane;
  private readonly group: LaneGroup | null;
  private readonly listener: StreamListener;

  private constructor(parts: {
    readonly options: AttachHostOptions;
    readonly stack: Stack;
    readonly lane: AttachLane;
    readonly group: LaneGroup | null;
    /** Lanes that run: 1 where the group has come to nothing. */
    readonly laneCount: number;
    readonly listener: StreamListener;
    readonly failure: Failure;
  }) {
    const { options, stack, lane, group, laneCount, listener } = parts;
    this.addresses = options.addresses;
    this.volume = options.target.volume;
    this.stack = stack;
    this.backend = stack.backend;
    this.lane = lane;
    this.group = group;
    this.listener = listener;
    this.laneCount = laneCount;
    if (stack.observer !== null) stack.observer.onSession = (request) => this.answer(request);
    this.readOnly = this.first.limits.readOnly;
    this.memoryBytesMax = lane.endpoint.server.memoryBytes * this.laneCount;
    this.nbdUri = nbdUri(listener.address, this.volume);
    this.failed = parts.failure.promise;
    if (group !== null && laneCount > 1) {
      const { connectionCountMax } = lane.endpoint.server.limits;
      lane.endpoint.handsOn = (stream) => this.handsOn(group, stream, connectionCountMax);
    }
  }

  get sizeBytes(): number {
    return this.first.limits.sizeBytes;
  }

  /** The volumes, in the order in which they were asked for. */
  get volumes(): AttachedVolume[] {
    return this.lane.devices.map(({ name, limits }) => ({
      name,
      nbdUri: nbdUri(this.listener.address, name),
      sizeBytes: limits.sizeBytes,
      readOnly: limits.readOnly,
    }));
  }

  /** How the session and its paths are; of lane 0 where there are several. */
  get status(): SessionStatus {
    return this.control({});
  }

  /**
   * Changes the session's paths and policy, and tells how it is then; of lane 0 alone.
   * @throws FarpageError as `controlSession`.
   */
  control(change: Omit<SessionControlRequest, "request">): SessionStatus {
    return this.lane.control(change);
  }

  private get first(): RnbdDevice {
    return this.lane.devices[0] as RnbdDevice;
  }

  /** The same of all lanes, for whoever asks by the control socket. */
  private async answer(
    request: SessionControlRequest,
  ): Promise<{ readonly session: SessionStatus; readonly sessions: readonly SessionStatus[] }> {
    const session = this.lane.control(request);
    const others = (await this.group?.control(request)) ?? [];
    return { session, sessions: [session, ...others] };
  }

  /** Gives a connection to the lane with the fewest. @returns false when that is this one. */
  private handsOn(group: LaneGroup, stream: OsStream, countMax: number): boolean {
    const counts = group.nbdCounts;
    const fewest = Math.min(...counts);
    if (fewest >= this.lane.endpoint.clientCount || fewest >= countMax) return false;
    const { peer } = stream;
    group.handOn(counts.indexOf(fewest), stream.detach(), peer);
    return true;
  }

  /**
   * Connects, opens the volumes and listens for NBD clients.
   * @throws FarpageError ETIMEDOUT (server unreachable), ECONNREFUSED (nobody serves there), ENOENT
   *   (no such volume), EPERM (somebody else writes it), EADDRINUSE, EACCES, EEXIST (a volume
   *   twice), EINVAL, and as `Stack.open` does.
   */
  static async start(options: AttachHostOptions): Promise<AttachHost> {
    const failure = new Failure();
    const group = openGroup(options, failure);
    let stack: Stack | null = null;
    let listener: StreamListener | null = null;
    try {
      stack = await Stack.open({
        addresses: options.addresses,
        log: options.log,
        onFailure: (error) => failure.fail(error),
        backend: options.backend ?? "auto",
        segmentation: options.segmentation ?? true,
        ...(group === null ? {} : { place: group.placeOf(0) }),
        ...observed(options),
      });
      // Before the server is bothered: a taken socket is the commonest mistake.
      listener = await listenStream(options.nbd, { poller: stack.poller, backend: stack.backend });
      const parts = { options, stack, group, listener, failure };
      if (group === null) {
        const lane = await AttachLane.open(stack, listener, options, failure, null);
        return new AttachHost({ ...parts, lane, laneCount: 1 });
      }
      const { lane, laneCount } = await openLanes(group, options, parts);
      return new AttachHost({ ...parts, lane, laneCount });
    } catch (error) {
      listener?.close();
      await group?.closeLanes();
      await stack?.close();
      group?.free();
      throw error;
    }
  }

  /**
   * Finishes the requests under way, flushes, closes the volumes and the session. Where the server
   * is away, what waits for it is given up after a while, and the log says so.
   */
  async close(): Promise<void> {
    // All lanes say goodbye before the first one stops: they carry each other's packets.
    await Promise.all([this.lane.finish(), this.group?.closeSessions()]);
    await this.group?.closeLanes();
    await this.stack.close();
    this.group?.free();
  }
}

/** What several lanes need; null for one lane, and where there can be no more. */
function openGroup(options: AttachHostOptions, failure: Failure): LaneGroup | null {
  const { addresses, lanes: laneCount = 1, log, backend } = options;
  const onFailure = (error: unknown) => failure.fail(error);
  const steering = { laneCount, pinnedPort: 0 };
  return openLaneGroup({ addresses, steering, log, onFailure }, backend);
}

/** Opens lane 0, and the further ones if the server lets them write together. */
async function openLanes(
  group: LaneGroup,
  options: AttachHostOptions,
  parts: { readonly stack: Stack; readonly listener: StreamListener; readonly failure: Failure },
): Promise<{ readonly lane: AttachLane; readonly laneCount: number }> {
  const { stack, listener, failure } = parts;
  const { laneCount } = group;
  const names = [options.target.volume, ...(options.moreVolumes ?? [])];
  const sessions = shareSessions(names, laneCount, stack.random);
  const sessionName = options.sessionName ?? defaultSessionName(stack.random.nextU32());
  const own = { ...options, sessionName };
  const place = { index: 0, count: laneCount };
  const lane = await AttachLane.open(
    stack,
    listener,
    own,
    failure,
    groupOf(sessions, place, (other) => group.wake(other)),
  );
  if (options.readOnly !== true && !lane.isInGroup) {
    options.log.warn(
      "one lane alone: this server gives a volume to one session that writes; see --readonly",
    );
    return { lane, laneCount: 1 };
  }
  await startLanes(group, own, sessions, stack);
  return { lane, laneCount };
}

/** Starts lanes 1 and up, each with a session of its own. */
async function startLanes(
  group: LaneGroup,
  options: AttachHostOptions,
  sessions: SharedSessions,
  stack: Stack,
): Promise<void> {
  const { target, morePaths = [], onSession, onPath, readOnly } = options;
  const { policy, moreVolumes, nbdConnectionCountMax, connectionCount, invalidate } = options;
  const { sessionName, connectTimeoutMs, ioTimeoutMs, closeTimeoutMs } = options;
  const attach: AttachLaneSettings = {
    target: { ...target, addresses: target.addresses.map(String) },
    morePaths: morePaths.map(({ source, destination }) => ({
      source: source === null ? null : String(source),
      destination: String(destination),
    })),
    rest: {
      ...(readOnly === undefined ? {} : { readOnly }),
      ...(policy === undefined ? {} : { policy }),
      ...(moreVolumes === undefined ? {} : { moreVolumes }),
      ...(nbdConnectionCountMax === undefined ? {} : { nbdConnectionCountMax }),
      ...(connectionCount === undefined ? {} : { connectionCount }),
      ...(invalidate === undefined ? {} : { invalidate }),
      ...(sessionName === undefined ? {} : { sessionName }),
      ...(connectTimeoutMs === undefined ? {} : { connectTimeoutMs }),
      ...(ioTimeoutMs === undefined ? {} : { ioTimeoutMs }),
      ...(closeTimeoutMs === undefined ? {} : { closeTimeoutMs }),
    },
    sessions,
    tellsSession: onSession !== undefined,
    tellsPath: onPath !== undefined,
  };
  const segmentation = options.segmentation ?? true;
  group.onSession = onSession ?? null;
  group.onPath = onPath ?? null;
  await group.start({ segmentation, role: { kind: "attach", attach } }, stack.observer);
}

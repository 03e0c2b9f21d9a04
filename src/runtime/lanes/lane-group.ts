// SPDX-License-Identifier: MIT
// The lanes of a host as its own thread sees them: lane 0 is on that thread, each further one on a
// thread of its own. What they share is made here, before the first starts, and freed after the
// last has stopped: sockets, boxes.

import { FarpageError, type IpAddress } from "../../base/index.js";
import {
  type BackendChoice,
  BellRinger,
  bindLaneSockets,
  foreignCallsUnavailable,
  freeLaneBox,
  type LaneBox,
  type LaneSockets,
  makeLaneBox,
} from "../../os/index.js";
import type { Steering } from "../../wire/index.js";
import type { Log } from "../log.js";
import type {
  HostStatistics,
  LaneTraces,
  MemoryStatistics,
  Observer,
  OtherLanes,
  SessionControlRequest,
  TraceControlRequest,
  TraceSink,
} from "../observe/index.js";
import type { PathListener, SessionStatus } from "../session/index.js";
import { LaneThread } from "./lane-thread.js";
import type { LanePlace } from "./place.js";
import type { LaneStart } from "./protocol.js";

/** More are no use: a lane is a core. */
export const LANE_COUNT_MAX = 64;

export interface LaneGroupOptions {
  readonly addresses: readonly IpAddress[];
  readonly steering: Steering;
  readonly log: Log;
  /** Told when a lane has stopped by a bug. */
  readonly onFailure: (error: unknown) => void;
}

/** What all further lanes start with. */
export type CommonStart = Omit<LaneStart, "place" | "addresses" | "isTraced">;

export class LaneGroup implements OtherLanes {
  /** What sessions of further lanes tell of; to be set before they start. */
  onSession: ((up: boolean, text: string) => void) | null = null;
  onPath: PathListener | null = null;
  readonly laneCount: number;
  private readonly options: LaneGroupOptions;
  private readonly sockets: LaneSockets;
  private readonly boxes: readonly LaneBox[];
  private readonly ringer = new BellRinger();
  private threads: readonly LaneThread[] = [];
  private isFreed = false;

  private constructor(options: LaneGroupOptions, sockets: LaneSockets, boxes: readonly LaneBox[]) {
    this.options = options;
    this.laneCount = options.steering.laneCount;
    this.sockets = sockets;
    this.boxes = boxes;
  }

  /**
   * Binds the addresses for all lanes.
   * @throws FarpageError as `openLink`; EOPNOTSUPP, and the kernel's errno, where there can't be
   *   more lanes than one.
   */
  static open(options: LaneGroupOptions): LaneGroup {
    const reason = foreignCallsUnavailable();
    if (reason !== null) throw new FarpageError("EOPNOTSUPP", reason);
    const { steering } = options;
    const addresses = options.addresses.map(String);
    const sockets = bindLaneSockets({ addresses, steering });
    const boxes: LaneBox[] = [];
    try {
      while (boxes.length < steering.laneCount) boxes.push(makeLaneBox());
      return new LaneGroup(options, sockets, boxes);
    } catch (error) {
      for (const box of boxes) freeLaneBox(box);
      sockets.close();
      throw error;
    }
  }

  placeOf(index: number): LanePlace {
    const { sockets, boxes, laneCount: count } = this;
    const { steering } = this.options;
    return { lane: { index, count }, steering, sockets: sockets.lanes[index] ?? [], boxes };
  }

  /** Has a lane take a turn soon. */
  wake(lane: number): void {
    this.ringer.ring(this.boxes[lane] as LaneBox);
  }

  /**
   * Starts the threads of lanes 1 and up, all or none.
   * @param observer of lane 0, through which people will see all of them.
   * @throws FarpageError what kept one from starting.
   */
  async start(common: CommonStart, observer: Observer | null): Promise<void> {
    const { log, onFailure } = this.options;
    const addresses = this.options.addresses.map(String);
    const tracePart = observer?.tracePart ?? null;
    const threads: LaneThread[] = [];
    for (let lane = 1; lane < this.laneCount; lane++) {
      const place = this.placeOf(lane);
      const start = { ...common, place, addresses, isTraced: tracePart !== null };
      const thread = new LaneThread(start, log, onFailure, tracePart?.(lane) ?? null);
      thread.onSession = this.onSession;
      thread.onPath = this.onPath;
      threads.push(thread);
    }
    if (observer !== null) observer.lanes = this;
    this.threads = threads;
    const outcomes = await Promise.allSettled(threads.map((thread) => thread.ready));
    const failed = outcomes.find(({ status }) => status === "rejected");
    if (failed?.status !== "rejected") return;
    await this.closeLanes();
    throw failed.reason;
  }

  /** Ends the sessions of the further lanes. */
  async closeSessions(): Promise<void> {
    await Promise.all(this.threads.map((thread) => thread.closeSessions()));
  }

  /** Ends the further lanes. @returns why volumes could not be made durable, none of it if so. */
  async closeLanes(): Promise<readonly Error[]> {
    const errors = await Promise.all(this.threads.map((thread) => thread.close()));
    this.threads = [];
    return errors.filter((error) => error !== null);
  }

  /** Of the further lanes, those that answer. */
  async statistics(): Promise<readonly HostStatistics[]> {
    const answers = await Promise.all(this.threads.map((thread) => thread.statistics()));
    return answers.filter((answer) => answer !== null);
  }

  /** The same of their memory. */
  async memory(): Promise<readonly MemoryStatistics[]> {
    const answers = await Promise.all(this.threads.map((thread) => thread.memory()));
    return answers.filter((answer) => answer !== null);
  }

  /** NBD connections of lanes 1 and up, lane 1 first. */
  get nbdCounts(): number[] {
    return this.threads.map(({ nbdCount }) => nbdCount);
  }

  /** Gives an NBD connection to a further lane. @param index as in `nbdCounts`. */
  handOn(index: number, descriptor: number, peer: string): void {
    this.threads[index]?.handOn(descriptor, peer);
  }

  /**
   * Changes the sessions of the further lanes of a client, and tells how they are then.
   * @throws FarpageError as `controlSession`.
   */
  async control(request: SessionControlRequest): Promise<readonly SessionStatus[]> {
    const answers = await Promise.all(this.threads.map((thread) => thread.control(request)));
    return answers.filter((answer) => answer !== null);
  }

  startTrace(request: TraceControlRequest, parts: (lane: number) => TraceSink): LaneTraces {
    const { threads } = this;
    const ids = threads.map((thread, index) => thread.startTrace(request, parts(index + 1)));
    const end = (isAborted: boolean) => {
      for (const [index, thread] of threads.entries()) {
        thread.stopTrace(ids[index] as number, isAborted);
      }
    };
    return { stop: () => end(false), abort: () => end(true) };
  }

  /** Preconditions: all lanes have stopped. */
  free(): void {
    if (this.isFreed) return;
    this.isFreed = true;
    this.ringer.close();
    for (const box of this.boxes) freeLaneBox(box);
    this.sockets.close();
  }
}

/** What a system without the means of several lanes says. */
const CANT_STEER = ["EOPNOTSUPP", "ENOPROTOOPT", "ENOSYS"];

/**
 * Opens a group; null for one lane, and where there can be no more, which the log hears.
 * @throws FarpageError EINVAL for another number than 1 to 64; as `LaneGroup.open`.
 */
export function openLaneGroup(
  options: LaneGroupOptions,
  backend: BackendChoice | undefined,
): LaneGroup | null {
  const { laneCount } = options.steering;
  if (!Number.isInteger(laneCount) || laneCount < 1 || laneCount > LANE_COUNT_MAX) {
    throw new FarpageError("EINVAL", `a host has 1 to ${LANE_COUNT_MAX} lanes, not ${laneCount}`);
  }
  if (laneCount === 1) return null;
  if (backend === "node") {
    options.log.warn("one lane alone: without foreign calls packets can't be steered to several");
    return null;
  }
  try {
    return LaneGroup.open(options);
  } catch (error) {
    const code = error instanceof FarpageError ? error.code : "";
    if (!CANT_STEER.includes(code)) throw error;
    options.log.warn(`one lane alone: ${(error as Error).message}`);
    return null;
  }
}

// SPDX-License-Identifier: MIT
// One host's stack on a real network: the floors from the socket to the connection manager, wired
// to `os/` and run by a lane.

import { ERRNO, errnoName, FarpageError, type IpAddress } from "../base/index.js";
import { BLOCK_OPERATION, type BlockDevice, BlockRequest } from "../block/index.js";
import { ConnectionManager } from "../cm/index.js";
import type { PhysicalMemory } from "../mm/index.js";
import {
  type Backend,
  type BackendChoice,
  createCrc32,
  LaneLink,
  type OsLink,
  type OsMemorySource,
  openLink,
  openMemorySource,
  openPoller,
  type Poller,
  SystemRandom,
} from "../os/index.js";
import { Device } from "../transport/index.js";
import { Context } from "../verbs/index.js";
import { Lane } from "./lane.js";
import type { LanePlace } from "./lanes/place.js";
import type { Log } from "./log.js";
import { memoryStatisticsOf, type ObserveOptions, Observer, TracedLink } from "./observe/index.js";

export interface StackOptions extends ObserveOptions {
  /** Local addresses, at least one. */
  readonly addresses: readonly IpAddress[];
  /** `"node"` forces the fallback without foreign calls; default `"auto"`. */
  readonly backend?: BackendChoice;
  /** Let the kernel cut bursts into packets (UDP GSO), default true. */
  readonly segmentation?: boolean;
  /** Memory regions that the device can hold at a time; default the device's own. */
  readonly regionCountMax?: number;
  /** Which lane of several this is; the sockets are bound then. Native alone. */
  readonly place?: LanePlace;
  readonly log: Log;
  /** Told when the stack failed by a bug; it has stopped by then. */
  readonly onFailure: (error: unknown) => void;
}

/** How long peers get to confirm that connections are over, so that a lost goodbye is repeated. */
const GOODBYE_TIMEOUT_MS = 1_000;

/** A running stack. Everything in it ends with `close`. */
export class Stack {
  readonly addresses: readonly IpAddress[];
  readonly backend: Backend;
  readonly random = new SystemRandom();
  readonly poller: Poller;
  readonly memory: OsMemorySource;
  readonly link: TracedLink;
  readonly device: Device;
  readonly context: Context;
  readonly cm: ConnectionManager;
  readonly lane: Lane;
  /** The memory of the host's processes, once it has one. */
  processMemory: PhysicalMemory | null = null;
  /** What can be seen of this stack from outside; set once it is open. */
  observer: Observer | null = null;

  private constructor(
    options: StackOptions,
    poller: Poller,
    link: TracedLink,
    memory: OsMemorySource,
  ) {
    this.addresses = options.addresses;
    this.poller = poller;
    this.link = link;
    this.backend = link.backend;
    this.memory = memory;
    this.device = new Device({
      addresses: link.addresses,
      linkMtus: link.linkMtus,
      random: this.random.fork("device"),
      crc32: createCrc32(),
      windowBytes: link.receiveBufferBytes,
      ...(options.regionCountMax === undefined ? {} : { regionCountMax: options.regionCountMax }),
      ...(options.place === undefined ? {} : { lane: options.place.lane }),
    });
    this.context = new Context(this.device);
    this.cm = new ConnectionManager({
      context: this.context,
      memory: this.memory,
      random: this.random.fork("cm"),
    });
    this.lane = new Lane({
      poller,
      link,
      device: this.device,
      txBytes: this.memory.allocate(Lane.txBytes, "packets to be sent").bytes,
      onFailure: options.onFailure,
    });
    this.lane.add(this.cm);
  }

  /**
   * Binds the addresses' ports and starts the lane, with what `ObserveOptions` asks for.
   * @throws FarpageError EADDRNOTAVAIL, EADDRINUSE, EACCES with what to do about it.
   */
  static async open(options: StackOptions): Promise<Stack> {
    const backend = options.backend ?? "auto";
    const poller = openPoller(backend);
    let link: OsLink | null = null;
    let memory: OsMemorySource | null = null;
    let stack: Stack | null = null;
    try {
      link = await openLaneLink(options, poller, backend);
      const arena = openMemorySource({ backend: link.backend });
      memory = arena;
      const opened = new Stack(options, poller, new TracedLink(link), arena);
      stack = opened;
      stack.observer = await Observer.open(stack.link, stack.device, options, options.log);
      const lane = options.place?.lane.index ?? null;
      stack.observer.onMemory = () => memoryStatisticsOf(arena, lane, opened.processMemory);
      stack.lane.start();
      return stack;
    } catch (error) {
      // Before the memory: what is registered is pinned.
      stack?.cm.release();
      stack?.context.close();
      link?.close();
      poller.close();
      memory?.close();
      throw error;
    }
  }

  /**
   * Waits, while the lane runs, until `condition` holds or the time is over. @returns whether it
   * holds.
   */
  async until(condition: () => boolean, timeoutMs: number): Promise<boolean> {
    const endMs = performance.now() + timeoutMs;
    while (!condition()) {
      if (!this.lane.isRunning || performance.now() > endMs) return false;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    return true;
  }

  /**
   * Flushes a block device whose machine the lane runs.
   * @param timeoutMs how long it may take; `Infinity` for a device that can't stay away.
   * @throws FarpageError with the device's errno when its data could not be made durable;
   *   ETIMEDOUT, and ESHUTDOWN when the lane has stopped: the request is still at the device then.
   */
  async flush(device: BlockDevice, timeoutMs: number): Promise<void> {
    let errno = -1;
    const owner = {
      onBlockComplete: (request: BlockRequest) => {
        errno = request.errno;
      },
    };
    const request = new BlockRequest(owner, 0);
    request.operation = BLOCK_OPERATION.FLUSH;
    device.submit(request);
    this.lane.wake();
    if (!(await this.until(() => errno >= 0, timeoutMs))) {
      errno = this.lane.isRunning ? ERRNO.ETIMEDOUT : ERRNO.ESHUTDOWN;
    }
    if (errno === 0) return;
    const name = errnoName(errno);
    throw new FarpageError(name, `${device.name}: the last flush failed: ${name}`);
  }

  /**
   * Says goodbye on every connection, stops the lane and frees everything.
   * @param options.keepsMemory leave the memory alone: a thread may still write into it.
   */
  async close(options: { readonly keepsMemory?: boolean } = {}): Promise<void> {
    this.cm.close();
    this.lane.wake();
    await this.until(() => this.cm.goodbyeCount === 0, GOODBYE_TIMEOUT_MS);
    await this.lane.stop();
    await this.observer?.close();
    this.cm.release();
    this.context.close();
    this.link.close();
    this.poller.close();
    if (options.keepsMemory !== true) this.memory.close();
  }
}

async function openLaneLink(
  options: StackOptions,
  poller: Poller,
  backend: BackendChoice,
): Promise<OsLink> {
  const { place, log } = options;
  const link = await openLink({
    addresses: options.addresses.map(String),
    poller,
    backend: place === undefined ? backend : "native",
    segmentation: options.segmentation ?? true,
    onNotice: (text) => log.warn(text),
    ...(place === undefined ? {} : { sockets: place.sockets }),
  });
  return place === undefined ? link : new LaneLink(link, { ...place, poller });
}

// SPDX-License-Identifier: MIT
// What can be seen of a running stack from outside: its traces and its control socket.

import { FarpageError, IpAddress } from "../../base/index.js";
import { PacketFilter } from "../../trace/index.js";
import { type Device, QP_TYPE } from "../../transport/index.js";
import type { Log } from "../log.js";
import { type ControlAnswer, type ControlConnection, ControlServer } from "./control-server.js";
import { type MemoryStatistics, mergeMemory } from "./memory-statistics.js";
import {
  CONTROL_VERSION,
  type ControlRequest,
  type Hello,
  type SessionControlRequest,
  type TraceControlRequest,
} from "./protocol.js";
import { runtimeFolder } from "./runtime-folder.js";
import { type HostStatistics, mergeStatistics, statisticsOf } from "./statistics.js";
import { openTraceFile } from "./trace-file.js";
import { TraceMerge } from "./trace-merge.js";
import { type TraceRequest, type TraceSink, Traces } from "./trace-session.js";
import type { TracedLink } from "./traced-link.js";

/** How a host lets itself be looked at. Part of the options of every kind of host. */
export interface ObserveOptions {
  /** Every packet from the first on is written to this file (pcapng); default none. */
  readonly traceFile?: string;
  /** Answers `farpage trace` and `farpage stat` on a Unix socket; default: it does not. */
  readonly control?: {
    /** How people call it: the command, "serve". */
    readonly name: string;
    /** Its state folder, by which it can be found. */
    readonly data?: string;
    /** Where the socket is; default `runtimeFolder()`. */
    readonly folder?: string;
  };
}

/** The further lanes of the host whose lane 0 is observed. */
export interface OtherLanes {
  readonly laneCount: number;
  /** Of those that answer. */
  statistics(): Promise<readonly HostStatistics[]>;
  memory(): Promise<readonly MemoryStatistics[]>;
  /** Has each of them trace into its part. */
  startTrace(request: TraceControlRequest, parts: (lane: number) => TraceSink): LaneTraces;
}

/** Traces of further lanes that belong together. */
export interface LaneTraces {
  stop(): void;
  /** Nobody reads any more. */
  abort(): void;
}

const NO_TRACES: LaneTraces = { stop() {}, abort() {} };

/** See the head of the file. */
export class Observer {
  readonly traces: Traces;
  /** Answers questions about the client sessions of an instance that has some. */
  onSession:
    | ((request: SessionControlRequest) => Promise<Readonly<Record<string, unknown>>>)
    | null = null;
  /** Tells how the host's memory lies; set by who has it. */
  onMemory: (() => MemoryStatistics) | null = null;
  /** Set when the host has more lanes than this one, once they run. */
  lanes: OtherLanes | null = null;
  /** Where the further lanes of a host that is traced from the start write to; else null. */
  tracePart: ((lane: number) => TraceSink) | null = null;
  private readonly link: TracedLink;
  private readonly device: Device;
  private readonly options: ObserveOptions;
  private readonly startedMs = Date.now();
  private server: ControlServer | null = null;

  private constructor(link: TracedLink, device: Device, options: ObserveOptions) {
    this.link = link;
    this.device = device;
    this.options = options;
    this.traces = new Traces(link);
  }

  /**
   * Begins the trace that is wanted and listens. A control socket that can't be had is a warning.
   * @throws FarpageError when the trace's file can't be written.
   */
  static async open(
    link: TracedLink,
    device: Device,
    options: ObserveOptions,
    log: Log,
  ): Promise<Observer> {
    const observer = new Observer(link, device, options);
    if (options.traceFile !== undefined) {
      const sink = observer.sinkOf(await openTraceFile(options.traceFile));
      const session = observer.traces.start({}, sink);
      void session.done.then(() => {
        if (session.failure !== null) log.error(`the trace has ended: ${session.failure}`);
        else if (session.droppedCount > 0) {
          log.warn(`the trace lacks ${session.droppedCount} packets: its file was too slow`);
        }
      });
    }
    if (options.control !== undefined) {
      const folder = options.control.folder ?? runtimeFolder();
      try {
        observer.server = await ControlServer.open(folder, (request) => observer.answer(request));
        log.debug(`control socket: ${observer.server.path}`);
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        log.warn(`farpage trace and stat can't reach this instance: ${why}`);
      }
    }
    return observer;
  }

  /** Where the control socket is; null when there is none. */
  get controlPath(): string | null {
    return this.server?.path ?? null;
  }

  /** Ends the traces, then the socket. Preconditions: the lane has stopped. */
  async close(): Promise<void> {
    await this.traces.close();
    await this.server?.close();
    this.server = null;
  }

  private answer(request: ControlRequest): ControlAnswer | Promise<ControlAnswer> {
    switch (request.request) {
      case "hello":
        return { reply: this.hello() };
      case "stat":
        return this.statistics();
      case "memory":
        return this.memory();
      case "trace":
        return this.startTrace(request);
      case "session":
        if (this.onSession !== null) return this.onSession(request).then((reply) => ({ reply }));
        throw new FarpageError("EOPNOTSUPP", "this instance has no session with a server");
      default:
        throw new FarpageError("EINVAL", "there is nothing to stop");
    }
  }

  /** One file for all lanes. @returns where this one writes to. */
  private sinkOf(file: TraceSink): TraceSink {
    const laneCount = this.device.lane.count;
    if (laneCount === 1) return file;
    const merge = new TraceMerge(file, { laneCount });
    this.tracePart = (lane) => merge.part(lane);
    return merge.part(0);
  }

  private statistics(): ControlAnswer | Promise<ControlAnswer> {
    const own = statisticsOf(this.device, this.link.counters, this.traces.count);
    if (this.lanes === null) return { reply: { statistics: own } };
    return this.lanes.statistics().then((others) => {
      return { reply: { statistics: mergeStatistics(own, others) } };
    });
  }

  private memory(): ControlAnswer | Promise<ControlAnswer> {
    if (this.onMemory === null) {
      throw new FarpageError("EOPNOTSUPP", "this instance has no memory of its own");
    }
    const own = this.onMemory();
    if (this.lanes === null) return { reply: { memory: own } };
    return this.lanes.memory().then((others) => {
      return { reply: { memory: mergeMemory([own, ...others]) } };
    });
  }

  private hello(): Hello {
    const { name = "host", data } = this.options.control ?? {};
    return {
      version: CONTROL_VERSION,
      pid: process.pid,
      name,
      data: data ?? null,
      addresses: this.link.addresses.map(String),
      startedMs: this.startedMs,
    };
  }

  private startTrace(request: TraceControlRequest): ControlAnswer {
    // The connection comes once the answer is out; until then what is traced waits in the ring.
    let connection: ControlConnection | null = null;
    let connected: (connection: ControlConnection) => void = () => {};
    const ready = new Promise<ControlConnection>((resolve) => {
      connected = resolve;
    });
    const target: TraceSink = {
      write: async (bytes) => (await ready).write(bytes),
      end: async () => (await ready).end(),
    };
    let further = NO_TRACES;
    const stop = () => {
      session.stop();
      further.stop();
    };
    const { lanes } = this;
    const { packets } = request;
    const limit = packets === undefined ? {} : { packetCountMax: packets, onFull: stop };
    const merge =
      lanes === null ? null : new TraceMerge(target, { laneCount: lanes.laneCount, ...limit });
    const session = this.traces.start(this.traceRequest(request), merge?.part(0) ?? target);
    if (merge !== null && lanes !== null) {
      further = lanes.startTrace(request, (lane) => merge.part(lane));
    }
    void session.done.then(() => {
      if (session.failure !== null) connection?.destroy();
    });
    return {
      reply: {},
      stream: (own) => {
        connection = own;
        own.onRequest = stop;
        own.onGone = () => {
          session.abort();
          further.abort();
        };
        connected(own);
      },
    };
  }

  /** @throws FarpageError EINVAL for an address that is none. */
  traceRequest(request: TraceControlRequest): TraceRequest {
    const { peers = [], qpns = [], packets, snapBytes, ringBytes } = request;
    const hasFilter = peers.length > 0 || qpns.length > 0;
    const filter = new PacketFilter({
      peers: peers.map((text) => IpAddress.parse(text)),
      qpns: this.bothEnds(qpns),
    });
    return {
      ...(hasFilter ? { filter } : {}),
      ...(packets === undefined ? {} : { packetCountMax: packets }),
      ...(snapBytes === undefined ? {} : { snapBytes }),
      ...(ringBytes === undefined ? {} : { ringBytes }),
    };
  }

  /** A packet names its destination only: of a local queue pair that is wanted, its peer's too. */
  private bothEnds(qpns: readonly number[]): number[] {
    const peers = this.device
      .queuePairs()
      .filter((qp) => qp.type === QP_TYPE.RC && qpns.includes(qp.qpn))
      .map((qp) => qp.destinationQpn);
    return [...new Set([...qpns, ...peers])];
  }
}

/** Those of the options of a host that are about observing it. */
export function observed(options: ObserveOptions): ObserveOptions {
  const { traceFile, control } = options;
  return {
    ...(traceFile === undefined ? {} : { traceFile }),
    ...(control === undefined ? {} : { control }),
  };
}

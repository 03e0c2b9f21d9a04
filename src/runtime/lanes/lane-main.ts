// SPDX-License-Identifier: MIT
// The program of the thread of a further lane of a server: see `protocol.ts`.

import { parentPort, workerData } from "node:worker_threads";
import { assert, IpAddress } from "../../base/index.js";
import { BellRinger } from "../../os/index.js";
import { VolumeRights } from "../../rnbd/index.js";
import { AccessRules, parseAccessRule, SessionRoster } from "../../rtrs/index.js";
import type { Log } from "../log.js";
import {
  type Observer,
  statisticsOf,
  type TraceControlRequest,
  type TraceSession,
  type TraceSink,
} from "../observe/index.js";
import { RepeatedWarning } from "../repeated-warning.js";
import { ServerLane } from "../server-lane.js";
import { Stack } from "../stack.js";
import { type OpenVolume, reopenVolumes } from "../volumes.js";
import { packError } from "./lane-error.js";
import type { FromLane, LaneStart, ToLane } from "./protocol.js";

assert(parentPort !== null, "a lane's program runs on a thread of its own");
const port = parentPort;

function say(message: FromLane): void {
  port.postMessage(message);
}

const log: Log = {
  debug: (text) => say({ kind: "log", level: "debug", text }),
  info: (text) => say({ kind: "log", level: "info", text }),
  warn: (text) => say({ kind: "log", level: "warn", text }),
  error: (text) => say({ kind: "log", level: "error", text }),
};

/** Traces of this lane on their way to the host's thread, by number. */
class SentTraces {
  private readonly observer: Observer;
  private readonly sessions = new Map<number, TraceSession>();
  /** Who waits until the bytes that were sent are written. */
  private readonly taken = new Map<number, () => void>();

  constructor(observer: Observer) {
    this.observer = observer;
  }

  start(id: number, request: TraceControlRequest): void {
    const sink: TraceSink = {
      write: (bytes) => {
        const written = new Promise<void>((resolve) => this.taken.set(id, resolve));
        say({ kind: "traced", id, bytes: bytes.slice() });
        return written;
      },
      end: async () => say({ kind: "traced", id, bytes: null }),
    };
    const { traces } = this.observer;
    const session = traces.start(this.observer.traceRequest(request), sink);
    this.sessions.set(id, session);
    void session.done.then(() => this.sessions.delete(id));
  }

  onTaken(id: number): void {
    this.taken.get(id)?.();
    this.taken.delete(id);
  }

  stop(id: number, isAborted: boolean): void {
    const session = this.sessions.get(id);
    if (isAborted) session?.abort();
    else session?.stop();
    if (isAborted) this.onTaken(id);
    if (isAborted || session === undefined) say({ kind: "traced", id, bytes: null });
  }
}

interface RunningLane {
  readonly stack: Stack;
  readonly lane: ServerLane;
  readonly warnings: RepeatedWarning;
  readonly ringer: BellRinger;
  readonly traces: SentTraces;
}

async function startLane(start: LaneStart): Promise<RunningLane> {
  const { place, server } = start;
  const addresses = start.addresses.map((text) => IpAddress.parse(text));
  const stack = await Stack.open({
    addresses,
    place,
    backend: "native",
    segmentation: start.segmentation,
    regionCountMax: server.regionCountMax,
    log,
    onFailure: (error) => say({ kind: "failed", error: packError(error) }),
  });
  const traces = new SentTraces(stack.observer as Observer);
  if (start.isTraced) traces.start(0, { request: "trace" });
  let open: readonly OpenVolume[] = [];
  try {
    open = await reopenVolumes(start.volumes, stack);
    const ringer = new BellRinger();
    const warnings = new RepeatedWarning(log);
    const lane = new ServerLane(stack, open, {
      ...server,
      addresses,
      rules: new AccessRules(server.rules.map(parseAccessRule)),
      warnings,
      roster: new SessionRoster({
        shared: start.roster,
        lane: place.lane.index,
        wake: (other) => ringer.ring(place.boxes[other] as (typeof place.boxes)[number]),
      }),
      rights: start.volumes.map(({ rights }) => new VolumeRights(new Int32Array(rights))),
    });
    return { stack, lane, warnings, ringer, traces };
  } catch (error) {
    for (const { device } of open) device.close();
    await stack.close();
    throw error;
  }
}

async function close({ lane, warnings, ringer }: RunningLane): Promise<void> {
  let error: unknown = null;
  try {
    await lane.close();
  } catch (caught) {
    error = caught;
  }
  warnings.flush();
  ringer.close();
  say({ kind: "closed", error: error === null ? null : packError(error) });
  port.close();
}

async function answer(running: RunningLane, message: ToLane): Promise<void> {
  const { stack, lane, traces } = running;
  switch (message.kind) {
    case "closeSessions":
      await lane.closeSessions();
      say({ kind: "sessionsClosed" });
      break;
    case "close":
      await close(running);
      break;
    case "trace":
      traces.start(message.id, message.request);
      break;
    case "traceTaken":
      traces.onTaken(message.id);
      break;
    case "traceStop":
      traces.stop(message.id, message.isAborted);
      break;
    default: {
      const { id } = message;
      const statistics = statisticsOf(stack.device, stack.link.counters, 0);
      say({ kind: "statistics", id, statistics });
    }
  }
}

startLane(workerData as LaneStart).then(
  (running) => {
    port.on("message", (message: ToLane) => {
      answer(running, message).catch((error) => say({ kind: "failed", error: packError(error) }));
    });
    say({ kind: "ready" });
  },
  (error) => {
    say({ kind: "refused", error: packError(error) });
    port.close();
  },
);

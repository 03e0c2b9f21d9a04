// SPDX-License-Identifier: MIT
// The program of the thread of a further lane, of a server or a client: see `protocol.ts`.

import { parentPort, workerData } from "node:worker_threads";
import { assert, IpAddress } from "../../base/index.js";
import { adoptStream, BellRinger, type LaneBox } from "../../os/index.js";
import { VolumeRights } from "../../rnbd/index.js";
import { AccessRules, parseAccessRule, SessionRoster } from "../../rtrs/index.js";
import { AttachLane } from "../attach-lane.js";
import { Failure } from "../failure.js";
import type { Log } from "../log.js";
import {
  memoryStatisticsOf,
  type Observer,
  type SessionControlRequest,
  statisticsOf,
  type TraceControlRequest,
  type TraceSession,
  type TraceSink,
} from "../observe/index.js";
import { RepeatedWarning } from "../repeated-warning.js";
import { ServerLane } from "../server-lane.js";
import { Stack } from "../stack.js";
import { reopenVolumes } from "../volumes.js";
import { packError } from "./lane-error.js";
import type { LanePlace } from "./place.js";
import type { AttachLaneSettings, FromLane, LaneRole, LaneStart, ToLane } from "./protocol.js";
import { groupOf } from "./shared-sessions.js";

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

/** What the host's thread can ask of a lane, whatever it does. */
interface RunningLane {
  readonly stack: Stack;
  readonly traces: SentTraces;
  /** Ends the sessions. */
  closeSessions(): Promise<void>;
  /** Ends the rest. */
  close(): Promise<void>;
  /** Of a client's lane, else null. */
  readonly attach: AttachLane | null;
}

/** Wakes the other lanes. */
class Bells {
  private readonly ringer = new BellRinger();
  private readonly place: LanePlace;

  constructor(place: LanePlace) {
    this.place = place;
  }

  ring(lane: number): void {
    this.ringer.ring(this.place.boxes[lane] as LaneBox);
  }

  close(): void {
    this.ringer.close();
  }
}

async function startLane(start: LaneStart): Promise<RunningLane> {
  const { place, role } = start;
  const failure = new Failure();
  const onFailure = (error: unknown) => say({ kind: "failed", error: packError(error) });
  failure.promise.catch(onFailure);
  const stack = await Stack.open({
    addresses: start.addresses.map((text) => IpAddress.parse(text)),
    place,
    backend: "native",
    segmentation: start.segmentation,
    log,
    onFailure,
    ...(role.kind === "serve" ? { regionCountMax: role.server.regionCountMax } : {}),
  });
  const traces = new SentTraces(stack.observer as Observer);
  if (start.isTraced) traces.start(0, { request: "trace" });
  try {
    if (role.kind === "serve") return await serve(stack, traces, start, role);
    return await attach(stack, traces, start, role.attach, failure);
  } catch (error) {
    await stack.close();
    throw error;
  }
}

async function serve(
  stack: Stack,
  traces: SentTraces,
  { place }: LaneStart,
  { server, volumes, roster }: Extract<LaneRole, { kind: "serve" }>,
): Promise<RunningLane> {
  const open = await reopenVolumes(volumes, stack);
  try {
    const bells = new Bells(place);
    const warnings = new RepeatedWarning(log);
    const lane = new ServerLane(stack, open, {
      ...server,
      addresses: stack.addresses,
      rules: new AccessRules(server.rules.map(parseAccessRule)),
      warnings,
      roster: new SessionRoster({
        shared: roster,
        lane: place.lane.index,
        wake: (other) => bells.ring(other),
      }),
      rights: volumes.map(({ rights }) => new VolumeRights(rights)),
    });
    return {
      stack,
      traces,
      attach: null,
      closeSessions: () => lane.closeSessions(),
      close: async () => {
        try {
          await lane.close();
        } finally {
          warnings.flush();
          bells.close();
        }
      },
    };
  } catch (error) {
    for (const { device } of open) device.close();
    throw error;
  }
}

async function attach(
  stack: Stack,
  traces: SentTraces,
  { place }: LaneStart,
  settings: AttachLaneSettings,
  failure: Failure,
): Promise<RunningLane> {
  const { target, morePaths, rest, sessions, tellsSession, tellsPath } = settings;
  const { index } = stack.device.lane;
  const tell = (text: string) => `lane ${index}: ${text}`;
  const bells = new Bells(place);
  const lane = await AttachLane.open(
    stack,
    null,
    {
      ...rest,
      ...(rest.sessionName === undefined ? {} : { sessionName: `${rest.sessionName}-${index}` }),
      target: { ...target, addresses: target.addresses.map((text) => IpAddress.parse(text)) },
      morePaths: morePaths.map(({ source, destination }) => ({
        source: source === null ? null : IpAddress.parse(source),
        destination: IpAddress.parse(destination),
      })),
      log,
      ...(tellsSession
        ? { onSession: (isUp, text) => say({ kind: "sessionTold", isUp, text: tell(text) }) }
        : {}),
      ...(tellsPath
        ? {
            onPath: (isUp, path, text) => say({ kind: "pathTold", isUp, path, text: tell(text) }),
          }
        : {}),
    },
    failure,
    groupOf(sessions, place.lane, (other) => bells.ring(other)),
  );
  lane.endpoint.onGone = () => say({ kind: "nbdGone" });
  return {
    stack,
    traces,
    attach: lane,
    closeSessions: () => lane.finish(),
    close: async () => {
      await stack.close();
      bells.close();
    },
  };
}

async function close(running: RunningLane): Promise<void> {
  let error: unknown = null;
  try {
    await running.close();
  } catch (caught) {
    error = caught;
  }
  say({ kind: "closed", error: error === null ? null : packError(error) });
  port.close();
}

function control(running: RunningLane, id: number, request: SessionControlRequest): void {
  try {
    assert(running.attach !== null, "a client's lane has a session");
    say({ kind: "session", id, status: running.attach.control(request) });
  } catch (error) {
    say({ kind: "session", id, status: packError(error) });
  }
}

async function answer(running: RunningLane, message: ToLane): Promise<void> {
  const { stack, traces } = running;
  switch (message.kind) {
    case "closeSessions":
      await running.closeSessions();
      say({ kind: "sessionsClosed" });
      break;
    case "close":
      await close(running);
      break;
    case "nbd":
      running.attach?.endpoint.adopt(adoptStream(message.descriptor, message.peer, stack.poller));
      stack.lane.wake();
      break;
    case "session":
      control(running, message.id, message.request);
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
    case "memory": {
      const memory = memoryStatisticsOf(stack.memory, stack.device.lane.index);
      say({ kind: "memory", id: message.id, memory });
      break;
    }
    default: {
      const statistics = statisticsOf(stack.device, stack.link.counters, 0);
      say({ kind: "statistics", id: message.id, statistics });
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

// SPDX-License-Identifier: MIT
// The thread of a further lane, in the hands of the host's own.

import { Worker } from "node:worker_threads";
import type { Log } from "../log.js";
import type {
  HostStatistics,
  MemoryStatistics,
  SessionControlRequest,
  TraceControlRequest,
  TraceSink,
} from "../observe/index.js";
import type { PathListener, SessionStatus } from "../session/index.js";
import { unpackError } from "./lane-error.js";
import type { FromLane, LaneStart, ToLane } from "./protocol.js";

/** How long a lane that is told to end may take before its thread is ended. */
const CLOSE_TIMEOUT_MS = 60_000;
/** The same for a question. */
const ANSWER_TIMEOUT_MS = 2_000;

export class LaneThread {
  /** NBD connections that it has. */
  nbdCount = 0;
  onSession: ((up: boolean, text: string) => void) | null = null;
  onPath: PathListener | null = null;
  /** The lane is up; rejects when it could not come up. */
  readonly ready: Promise<void>;
  private readonly worker: Worker;
  private readonly log: Log;
  private readonly onFailure: (error: unknown) => void;
  /** Who waits for a message, by its kind and number. */
  private readonly waiting = new Map<string, (message: FromLane | null) => void>();
  /** Where its traces go, by number. */
  private readonly traces = new Map<number, TraceSink>();
  private isOver = false;
  private isClosing = false;
  private nextId = 1;

  /** @param trace where trace 0 goes, if the lane is traced from its start; else null. */
  constructor(
    start: LaneStart,
    log: Log,
    onFailure: (error: unknown) => void,
    trace: TraceSink | null,
  ) {
    this.log = log;
    if (trace !== null) this.traces.set(0, trace);
    this.onFailure = onFailure;
    this.worker = new Worker(programOf(import.meta.url), {
      workerData: start,
      name: `lane ${start.place.lane.index}`,
    });
    this.worker.on("message", (message: FromLane) => this.take(message));
    this.worker.on("error", (error) => this.fail(error));
    this.worker.on("exit", (code) => {
      this.isOver = true;
      for (const settle of this.waiting.values()) settle(null);
      this.waiting.clear();
      for (const id of [...this.traces.keys()]) this.endTrace(id);
      this.fail(new Error(`the thread of a lane ended with ${code}`));
    });
    this.ready = this.wait("ready").then((message) => {
      if (message?.kind === "refused") throw unpackError(message.error);
      if (message === null) throw new Error("the thread of a lane did not start");
    });
    this.ready.catch(() => {});
  }

  /** Ends the lane's sessions, if it still runs. */
  async closeSessions(): Promise<void> {
    this.isClosing = true;
    const closed = this.wait("sessionsClosed");
    this.say({ kind: "closeSessions" });
    await withTimeout(closed, CLOSE_TIMEOUT_MS);
  }

  /** Ends the lane. @returns why a volume of it could not be made durable; null when all could. */
  async close(): Promise<Error | null> {
    this.isClosing = true;
    const closed = this.wait("closed");
    this.say({ kind: "close" });
    const message = await withTimeout(closed, CLOSE_TIMEOUT_MS);
    // Nothing of it is left by now, or it hangs.
    if (!this.isOver) await this.worker.terminate();
    if (message?.kind === "closed" && message.error !== null) return unpackError(message.error);
    return null;
  }

  async statistics(): Promise<HostStatistics | null> {
    const id = this.nextId++;
    const answer = this.wait(`statistics ${id}`);
    this.say({ kind: "statistics", id });
    const message = await withTimeout(answer, ANSWER_TIMEOUT_MS);
    return message?.kind === "statistics" ? message.statistics : null;
  }

  async memory(): Promise<MemoryStatistics | null> {
    const id = this.nextId++;
    const answer = this.wait(`memory ${id}`);
    this.say({ kind: "memory", id });
    const message = await withTimeout(answer, ANSWER_TIMEOUT_MS);
    return message?.kind === "memory" ? message.memory : null;
  }

  handOn(descriptor: number, peer: string): void {
    this.nbdCount++;
    this.say({ kind: "nbd", descriptor, peer });
  }

  /**
   * Changes a client lane's session, and tells how it is then; null when the lane does not answer.
   * @throws FarpageError what the lane refuses with.
   */
  async control(request: SessionControlRequest): Promise<SessionStatus | null> {
    const id = this.nextId++;
    const answer = this.wait(`session ${id}`);
    this.say({ kind: "session", id, request });
    const message = await withTimeout(answer, ANSWER_TIMEOUT_MS);
    if (message?.kind !== "session") return null;
    if ("message" in message.status) throw unpackError(message.status);
    return message.status;
  }

  /** Begins a trace. @returns its number. */
  startTrace(request: TraceControlRequest, sink: TraceSink): number {
    const id = this.nextId++;
    this.traces.set(id, sink);
    if (this.isOver) this.endTrace(id);
    this.say({ kind: "trace", id, request });
    return id;
  }

  stopTrace(id: number, isAborted: boolean): void {
    this.say({ kind: "traceStop", id, isAborted });
  }

  private takeTrace(id: number, bytes: Uint8Array | null): void {
    const sink = this.traces.get(id);
    if (sink === undefined) return;
    if (bytes === null) {
      this.endTrace(id);
      return;
    }
    sink.write(bytes).then(
      () => this.say({ kind: "traceTaken", id }),
      () => this.stopTrace(id, true),
    );
  }

  private endTrace(id: number): void {
    this.traces
      .get(id)
      ?.end()
      .catch(() => {});
    this.traces.delete(id);
  }

  private say(message: ToLane): void {
    if (!this.isOver) this.worker.postMessage(message);
  }

  /** The message of that kind, null when none can come any more. */
  private wait(key: string): Promise<FromLane | null> {
    if (this.isOver) return Promise.resolve(null);
    return new Promise((resolve) => this.waiting.set(key, resolve));
  }

  private take(message: FromLane): void {
    switch (message.kind) {
      case "log":
        this.log[message.level](message.text);
        break;
      case "failed":
        this.fail(unpackError(message.error));
        break;
      case "refused":
        this.isClosing = true;
        this.settle("ready", message);
        break;
      case "traced":
        this.takeTrace(message.id, message.bytes);
        break;
      case "statistics":
      case "memory":
      case "session":
        this.settle(`${message.kind} ${message.id}`, message);
        break;
      case "nbdGone":
        this.nbdCount--;
        break;
      case "sessionTold":
        this.onSession?.(message.isUp, message.text);
        break;
      case "pathTold":
        this.onPath?.(message.isUp, message.path, message.text);
        break;
      default:
        this.settle(message.kind, message);
    }
  }

  private settle(key: string, message: FromLane): void {
    this.waiting.get(key)?.(message);
    this.waiting.delete(key);
  }

  private fail(error: unknown): void {
    if (!this.isClosing) this.onFailure(error);
  }
}

/** The program of a lane's thread. Where this file runs from its source, the compiled one. */
function programOf(here: string): URL {
  if (!here.endsWith(".ts")) return new URL("lane-main.js", here);
  return new URL("../../../dist/runtime/lanes/lane-main.js", here);
}

/** @returns null when the time is over first. */
async function withTimeout<T>(promise: Promise<T>, ms: number): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(() => resolve(null), ms);
  });
  const first = await Promise.race([promise, late]);
  clearTimeout(timer);
  return first;
}

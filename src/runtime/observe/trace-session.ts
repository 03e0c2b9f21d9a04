// SPDX-License-Identifier: MIT
// Traces of a running stack: taps on its link, each with a ring that is emptied into a file or a
// socket whenever Node's event loop turns. The data path copies a packet into the ring and does
// nothing else; a sink that is slow, full or gone costs packets of its trace only.

import { FarpageError } from "../../base/index.js";
import { createCrc32, monotonicNs } from "../../os/index.js";
import {
  type PacketFilter,
  PacketTrace,
  TRACE_RING_BYTES_DEFAULT,
  TRACE_RING_BYTES_MIN,
} from "../../trace/index.js";
import type { TracedLink } from "./traced-link.js";

/** Where a trace goes. */
export interface TraceSink {
  /**
   * Whole blocks. Borrows `bytes` until the promise settles; rejects when nothing more can be
   * written.
   */
  write(bytes: Uint8Array): Promise<void>;
  /** Everything is written. */
  end(): Promise<void>;
}

export interface TraceRequest {
  readonly filter?: PacketFilter;
  readonly packetCountMax?: number;
  readonly snapBytes?: number;
  /** Memory for what the sink has not taken yet, 256 KiB to 256 MiB; default 16 MiB. */
  readonly ringBytes?: number;
}

/** Traces of one host at a time: each has a ring and costs a copy a packet. */
const TRACE_COUNT_MAX = 4;
export const TRACE_RING_BYTES_MAX = 256 << 20;
/** One write: enough to make it cheap, little enough that room comes back soon. */
const WRITE_BYTES_MAX = 1 << 18;
/** How long a sink may take for the rest when the host closes. */
const CLOSE_TIMEOUT_MS = 2_000;
const APPLICATION = "farpage";

/** One trace under way. */
export class TraceSession {
  /** When it is over, however it came to that; never rejects. */
  readonly done: Promise<void>;
  /** Why it ended early: the sink failed; else null. */
  failure: unknown = null;
  private readonly trace: PacketTrace;
  private readonly link: TracedLink;
  private readonly sink: TraceSink;
  private isStopping = false;
  private isAborted = false;
  private wake: (() => void) | null = null;

  constructor(link: TracedLink, request: TraceRequest, sink: TraceSink) {
    this.link = link;
    this.sink = sink;
    const nowNs = monotonicNs();
    this.trace = new PacketTrace({
      addresses: link.addresses,
      port: link.port,
      nowNs: monotonicNs,
      epochMs: Date.now() - Math.round(nowNs / 1e6),
      application: APPLICATION,
      crc32: createCrc32(),
      onReadable: () => this.wakeUp(),
      onFull: () => this.stop(),
      ...request,
    });
    link.addTap(this.trace);
    this.done = this.run();
  }

  get deliveredCount(): number {
    return this.trace.deliveredCount;
  }

  get droppedCount(): number {
    return this.trace.droppedCount;
  }

  /** Takes no more packets; what is in the ring and the statistics are still written. */
  stop(): void {
    this.isStopping = true;
    this.link.removeTap(this.trace);
    this.wakeUp();
  }

  /** The sink is gone: nothing more is written. */
  abort(): void {
    this.isAborted = true;
    this.stop();
  }

  private wakeUp(): void {
    this.wake?.();
    this.wake = null;
  }

  private async run(): Promise<void> {
    try {
      await this.writeAll();
      if (!this.isAborted) await this.sink.end();
    } catch (error) {
      this.failure = error;
      await this.sink.end().catch(() => {});
    } finally {
      this.link.removeTap(this.trace);
    }
  }

  private async writeAll(): Promise<void> {
    const { ring } = this.trace;
    for (let isEndWritten = false; !this.isAborted; ) {
      // Whatever ends this process, what it has written is whole blocks.
      const length = this.trace.peekBlocks(WRITE_BYTES_MAX);
      if (length > 0) {
        await this.sink.write(ring.bytes.subarray(ring.readOffset, ring.readOffset + length));
        ring.consume(length);
      } else if (isEndWritten) {
        return;
      } else if (this.isStopping) {
        isEndWritten = this.trace.end();
      } else {
        await new Promise<void>((resolve) => {
          this.wake = resolve;
        });
      }
    }
  }
}

/** All traces of a stack. */
export class Traces {
  private readonly link: TracedLink;
  private readonly sessions = new Set<TraceSession>();

  constructor(link: TracedLink) {
    this.link = link;
  }

  /**
   * Begins a trace; its first packet is the next one.
   * @throws FarpageError EBUSY when there are as many as may be, EINVAL for a size out of range.
   */
  start(request: TraceRequest, sink: TraceSink): TraceSession {
    const ringBytes = request.ringBytes ?? TRACE_RING_BYTES_DEFAULT;
    if (!(ringBytes >= TRACE_RING_BYTES_MIN && ringBytes <= TRACE_RING_BYTES_MAX)) {
      throw new FarpageError("EINVAL", "a trace's buffer has 256 KiB to 256 MiB");
    }
    if (this.sessions.size >= TRACE_COUNT_MAX) {
      throw new FarpageError("EBUSY", `${TRACE_COUNT_MAX} traces of this host are running already`);
    }
    const session = new TraceSession(this.link, request, sink);
    this.sessions.add(session);
    void session.done.then(() => this.sessions.delete(session));
    return session;
  }

  get count(): number {
    return this.sessions.size;
  }

  /** Ends all of them; a sink that takes nothing is given up after two seconds. */
  async close(): Promise<void> {
    const sessions = [...this.sessions];
    for (const session of sessions) session.stop();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, CLOSE_TIMEOUT_MS);
    });
    await Promise.race([Promise.all(sessions.map((session) => session.done)), late]);
    clearTimeout(timer);
    for (const session of sessions) session.abort();
  }
}

// SPDX-License-Identifier: MIT
// Rows of the table: RTRS sessions coming up, carrying requests in every mode of keys, idling,
// ending.

import { ERRNO, type FarpageError, type Memory } from "../../src/base/index.js";
import {
  type ClientRequest,
  RtrsClient,
  type RtrsClientOptions,
  type RtrsClientUser,
  RtrsServer,
  type RtrsServerOptions,
  type RtrsServerUser,
  type ServerRequest,
} from "../../src/rtrs/index.js";
import type { Exchange, Scene } from "./cell.js";
import { MS, SECOND, type Stage } from "./stage.js";

const QUEUE_DEPTH = 4;
const CHUNK_BYTES = 8192;
const HEARTBEAT_NS = SECOND;
const DATA_BYTES = 16 << 10;
/** Long enough to be away for whoever waits. */
const DEATH_NS = 12 * SECOND;

/** What is done: bytes to write or read; none is a flush. */
interface Request {
  readonly isRead: boolean;
  readonly length: number;
}

interface Row {
  readonly name: string;
  readonly does: "connect" | "requests" | "idle" | "client closes" | "server closes";
  readonly requests?: readonly Request[];
  readonly connectionCount?: number;
  readonly alwaysInvalidate?: boolean;
  readonly invalidate?: boolean;
  readonly remoteInvalidate?: boolean;
}

/** A disk of blocks that counts how often each request runs. */
class BlockUser implements RtrsServerUser {
  readonly executions: number[] = [];
  sessionCount = 0;

  onSessionUp(): void {
    this.sessionCount++;
  }

  onSessionDown(): void {
    this.sessionCount--;
  }

  onRequest(request: ServerRequest): void {
    const index = request.userView.getUint32(0, true);
    this.executions[index] = (this.executions[index] ?? 0) + 1;
    const { isRead, dataLength, memory, memoryOffset } = request;
    const chunk = memory.bytes.subarray(memoryOffset, memoryOffset + dataLength);
    let errno = 0;
    if (isRead) {
      for (let i = 0; i < chunk.length; i++) chunk[i] = patternOf(index, i);
    } else if (!chunk.every((byte, i) => byte === patternOf(index, i))) {
      errno = ERRNO.EILSEQ;
    }
    request.complete(errno);
  }
}

function patternOf(index: number, i: number): number {
  return (index * 59 + i * 7 + (i >> 8) + 1) & 0xff;
}

class RtrsScene implements Scene, RtrsClientUser {
  private readonly stage: Stage;
  private readonly row: Row;
  private readonly client: RtrsClient;
  private readonly server: RtrsServer;
  private readonly user = new BlockUser();
  private readonly data: Memory;
  private readonly errnos: number[] = [];
  private failure: FarpageError | null = null;
  private fault: string | null = null;
  private isIdleOver = false;

  constructor(stage: Stage, row: Row, isMortal: boolean) {
    this.stage = stage;
    this.row = row;
    const serverOptions: RtrsServerOptions = {
      queueDepth: QUEUE_DEPTH,
      chunkBytes: CHUNK_BYTES,
      alwaysInvalidate: row.alwaysInvalidate ?? true,
      heartbeatIntervalNs: HEARTBEAT_NS,
      connectTimeoutNs: 10 * SECOND,
    };
    this.server = new RtrsServer(stage.stack(1).environment, serverOptions, this.user);
    stage.hosts[1]?.machines.push(this.server);
    const options: RtrsClientOptions = {
      sessionName: "bad-luck",
      paths: [{ source: stage.address(0), destination: stage.address(1) }],
      connectionCount: row.connectionCount ?? 1,
      invalidate: row.invalidate ?? true,
      remoteInvalidate: row.remoteInvalidate ?? false,
      heartbeatIntervalNs: HEARTBEAT_NS,
      ...(isMortal ? { connectAttemptsMax: 2, requestTimeoutNs: SECOND } : {}),
    };
    this.client = new RtrsClient(stage.stack(0).environment, options, this);
    this.data = stage.memory(0).allocate(DATA_BYTES);
    this.client.registerMemory(this.data);
    stage.hosts[0]?.machines.push(this.client);
    if (row.does !== "connect") this.bringUp();
  }

  start(): void {
    const { client, row, server, stage } = this;
    switch (row.does) {
      case "connect":
        client.connect();
        break;
      case "requests":
        this.submit(row.requests ?? []);
        break;
      case "idle":
        stage.world.after(2 * HEARTBEAT_NS + 500 * MS, "idled long enough", () => {
          this.isIdleOver = true;
        });
        break;
      case "client closes":
        client.close();
        break;
      case "server closes":
        server.close();
        break;
    }
    stage.wake();
  }

  isOver(): boolean {
    if (this.fault !== null || this.failure !== null) return true;
    const { client, row, server, user } = this;
    switch (row.does) {
      case "connect":
        return client.state === "CONNECTED" && user.sessionCount === 1;
      case "requests":
        return this.errnos.filter((errno) => errno >= 0).length === row.requests?.length;
      case "idle":
        return this.isIdleOver && client.state === "CONNECTED";
      case "client closes":
        return client.state === "CLOSED" && server.counters().sessions === 0;
      case "server closes":
        return client.state !== "CONNECTED" && server.isClosed;
    }
  }

  outcome(): string {
    if (this.fault !== null) throw new Error(this.fault);
    // A client whose server is gone for good is right to give up.
    if (this.row.does === "server closes") return "ok";
    if (this.failure !== null) return `failed ${this.failure.code}`;
    const { client, row, user } = this;
    if (row.does !== "requests") return "ok";
    if (this.errnos.some((errno) => errno !== 0)) return this.errnos.join();
    const isTwice = user.executions.some((count) => count !== 1);
    if (isTwice && client.counters().reconnects === 0) return `run ${user.executions.join()} times`;
    this.checkData();
    return "ok";
  }

  close(): void {
    this.client.close();
    this.server.close();
  }

  isClosed(): boolean {
    const isClosed = this.server.isClosed && this.client.state === "CLOSED";
    if (!isClosed) return false;
    const [client, server] = this.stage.memories.map((memory) => this.leftIn(memory.live));
    if (client !== 0 || server !== 0) throw new Error(`memory left: ${client}, ${server} bytes`);
    return true;
  }

  // ------------------------------------------------------------------------------- RtrsClientUser

  onSessionUp(): void {
    this.client.reissue();
  }

  onSessionDown(): void {}

  onSessionFailed(error: FarpageError): void {
    this.failure = error;
  }

  onRequestReissue(): number {
    return 0;
  }

  onRequestComplete(request: ClientRequest): void {
    const index = request.context as number;
    if ((this.errnos[index] ?? -1) >= 0) this.fault = `request ${index} completes twice`;
    this.errnos[index] = request.errno;
    this.client.release(request);
  }

  onPermitAvailable(): void {}

  private bringUp(): void {
    const { client, stage, user } = this;
    client.connect();
    stage.wake();
    const isUp = () => client.state === "CONNECTED" && user.sessionCount === 1;
    if (!stage.world.run(SECOND, isUp)) throw new Error("the session does not come up");
    // What has been said about it is answered, and each queue pair has been used.
    this.submit([{ isRead: false, length: 8 }]);
    stage.wake();
    stage.world.run(SECOND / 10);
    user.executions.length = 0;
    this.errnos.length = 0;
  }

  private submit(requests: readonly Request[]): void {
    let at = 0;
    for (const [index, { isRead, length }] of requests.entries()) {
      const request = this.client.acquire();
      if (request === null) throw new Error("a request is free");
      this.errnos[index] = -1;
      request.context = index;
      request.userView.setUint32(0, index, true);
      request.userLength = 4;
      request.memory = length === 0 ? null : this.data;
      request.memoryOffset = at;
      for (let i = 0; i < length; i++) {
        this.data.bytes[at + i] = isRead ? 0xee : patternOf(index, i);
      }
      if (isRead) this.client.submitRead(request, length);
      else this.client.submitWrite(request, length);
      at += length + 8;
    }
  }

  private checkData(): void {
    let at = 0;
    for (const [index, { length }] of (this.row.requests ?? []).entries()) {
      for (let i = 0; i < length; i++) {
        if (this.data.bytes[at + i] === patternOf(index, i)) continue;
        throw new Error(`request ${index}: byte ${i} is wrong`);
      }
      at += length + 8;
    }
  }

  /** Bytes of RTRS's own that are not given back. */
  private leftIn(live: ReadonlySet<Memory>): number {
    let bytes = 0;
    for (const memory of live) if (memory !== this.data) bytes += memory.length;
    return bytes - this.stage.cmBytes;
  }
}

const MIXED: readonly Request[] = [
  { isRead: false, length: 3000 },
  { isRead: true, length: 2000 },
  { isRead: false, length: 0 },
];

const MODES: readonly Row[] = [true, false].flatMap((alwaysInvalidate) =>
  (["client", "both", "nobody"] as const).map((who) => ({
    name: `3 requests, ${alwaysInvalidate ? "rotating" : "fixed"} keys, ${who} invalidates`,
    does: "requests" as const,
    requests: MIXED,
    alwaysInvalidate,
    invalidate: who !== "nobody",
    remoteInvalidate: who === "both",
  })),
);

const ROWS: readonly Row[] = [
  { name: "connect, 1 connection", does: "connect" },
  { name: "connect, 3 connections", does: "connect", connectionCount: 3 },
  { name: "connect, fixed keys", does: "connect", alwaysInvalidate: false },
  ...MODES,
  {
    name: "3 requests, 3 connections",
    does: "requests",
    requests: MIXED,
    connectionCount: 3,
  },
  { name: "heartbeats", does: "idle" },
  { name: "close by the client", does: "client closes" },
  { name: "close by the server", does: "server closes" },
];

/** Packets of a fresh connection wait for the ACK timeout: 0.54 s, no round trip is known yet. */
const CONNECT_STALL_NS = 600 * MS;
const REQUEST_STALL_NS = 10 * MS;
const CLOSE_STALL_NS = 2_500 * MS;

function stallOf(row: Row): number {
  if (row.does === "connect") return CONNECT_STALL_NS;
  return row.does === "requests" || row.does === "idle" ? REQUEST_STALL_NS : CLOSE_STALL_NS;
}

/** A request that can't be answered, or a session that can't be made. */
const GIVEN_UP = /^(failed (ETIMEDOUT|ECONNRESET)|(0|110)(,(0|110))*)$/;

const base = (row: Row) => ({
  stallNs: stallOf(row),
  deadNs: 30 * SECOND,
  deadOutcomes: GIVEN_UP,
  seconds: [],
});

export const RTRS_EXCHANGES: readonly Exchange[] = [
  ...ROWS.map((row) => ({
    name: `RTRS ${row.name}`,
    ...base(row),
    build: (stage: Stage) => new RtrsScene(stage, row, true),
  })),
  // The link comes back: whatever it was, it is done in the end.
  ...ROWS.filter(({ does }) => does !== "server closes").map((row) => ({
    name: `RTRS ${row.name}, the link comes back`,
    ...base(row),
    deathNs: DEATH_NS,
    build: (stage: Stage) => new RtrsScene(stage, row, false),
  })),
];

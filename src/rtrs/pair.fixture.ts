// SPDX-License-Identifier: MIT
// What the tests of this room stand on: a client host and a server host joined by a small pipe in
// memory with a virtual clock, and a user on each side that notes what it hears. (The network with
// seeded faults is `sim/`'s; this one does what it is told.)

import {
  type FarpageError,
  HeapMemorySource,
  IpAddress,
  type Machine,
  type Memory,
  SeededRandom,
} from "../base/index.js";
import { ConnectionManager } from "../cm/index.js";
import { Device, type DeviceOptions, RxBurst, TxBatch, type TxFlow } from "../transport/index.js";
import { Context } from "../verbs/index.js";
import { ROCE_PORT } from "../wire/index.js";
import {
  type ClientRequest,
  RtrsClient,
  type RtrsClientOptions,
  type RtrsClientUser,
  type RtrsEnvironment,
  RtrsServer,
  type RtrsServerOptions,
  type RtrsServerUser,
  type ServerRequest,
  type ServerSession,
} from "./index.js";

export const MS = 1_000_000;
export const SECOND = 1_000 * MS;

const LATENCY_NS = 10_000;
const STEPS_MAX = 2_000_000;

/** Memory that counts what is allocated and notices what is freed twice. */
export class CountingMemorySource extends HeapMemorySource {
  liveBytes = 0;
  liveCount = 0;
  private readonly live = new Set<Memory>();

  override allocate(length: number): Memory {
    const memory = super.allocate(length);
    this.live.add(memory);
    this.liveBytes += length;
    this.liveCount++;
    return memory;
  }

  override free(memory: Memory): void {
    if (!this.live.delete(memory)) throw new Error("memory is freed once");
    this.liveBytes -= memory.length;
    this.liveCount--;
  }
}

/** One host: device, context, connection manager, and whatever machines a test puts on them. */
export class TestHost {
  /** The first of `addresses`. */
  readonly address: IpAddress;
  readonly addresses: readonly IpAddress[];
  readonly device: Device;
  readonly context: Context;
  readonly cm: ConnectionManager;
  readonly memory: CountingMemorySource;
  readonly environment: RtrsEnvironment;
  readonly tx = new TxBatch(new Uint8Array(1 << 20));
  readonly machines: Machine[];

  /** @param address one, or several with commas between them. */
  constructor(address: string, seed: number, options: Partial<DeviceOptions> = {}) {
    const random = new SeededRandom(seed);
    this.addresses = address.split(",").map((text) => IpAddress.parse(text));
    this.address = this.addresses[0] as IpAddress;
    this.device = new Device({
      addresses: this.addresses,
      linkMtus: this.addresses.map(() => 4200),
      random: random.fork("device"),
      ...options,
    });
    this.context = new Context(this.device);
    this.memory = new CountingMemorySource(0x10_0000_0000 * seed);
    const cm = { context: this.context, memory: new HeapMemorySource(0x7f_0000_0000) };
    this.cm = new ConnectionManager({ ...cm, random: random.fork("cm") });
    this.environment = {
      context: this.context,
      cm: this.cm,
      memory: this.memory,
      random: random.fork("rtrs"),
    };
    this.machines = [this.cm];
  }

  deadlineNs(): number {
    return this.machines.reduce(
      (least, machine) => Math.min(least, machine.deadlineNs()),
      this.device.deadlineNs(),
    );
  }
}

interface Arrival {
  readonly atNs: number;
  readonly source: IpAddress;
  readonly to: TestHost;
  readonly port: number;
  readonly bytes: Uint8Array;
}

/** The pipe between hosts, and the clock. */
export class Pipe {
  readonly hosts: TestHost[] = [];
  nowNs = SECOND;
  /** Decides whether a packet is lost; null delivers everything. */
  loses: ((bytes: Uint8Array, from: TestHost) => boolean) | null = null;
  /** Indexes of the addresses whose packets are lost, sent and received. */
  readonly cutPorts = new Set<number>();
  /** By index of an address: how much longer its packets take, sent and received. */
  readonly slowPorts = new Map<number, number>();
  /** Packets sent, lost ones included. */
  packetCount = 0;
  private arrivals: Arrival[] = [];

  /** Takes a host off the network, as `kill -9` would. */
  remove(host: TestHost): void {
    this.hosts.splice(this.hosts.indexOf(host), 1);
    this.arrivals = this.arrivals.filter((arrival) => arrival.to !== host);
  }

  /** Runs until `isDone`; fails when that does not come true within `limitNs`. */
  until(isDone: () => boolean, what: string, limitNs = 60 * SECOND): void {
    const endNs = this.nowNs + limitNs;
    for (let step = 0; step < STEPS_MAX; step++) {
      this.turn();
      if (isDone()) return;
      if (!this.advance(endNs)) break;
    }
    throw new Error(`did not happen: ${what}`);
  }

  run(durationNs: number): void {
    const endNs = this.nowNs + durationNs;
    for (let step = 0; step < STEPS_MAX; step++) {
      this.turn();
      if (!this.advance(endNs)) {
        this.nowNs = endNs;
        return;
      }
    }
    throw new Error("the hosts do not come to rest");
  }

  private turn(): void {
    for (const host of this.hosts) {
      for (const machine of host.machines) machine.pump(this.nowNs);
      for (let isMore = true; isMore; ) {
        isMore = host.device.pump(this.nowNs, host.tx);
        this.carry(host);
        host.tx.reset();
      }
      for (const machine of host.machines) machine.checkInvariants();
    }
  }

  private advance(endNs: number): boolean {
    let next = Infinity;
    for (const arrival of this.arrivals) next = Math.min(next, arrival.atNs);
    for (const host of this.hosts) next = Math.min(next, host.deadlineNs());
    if (next > endNs) return false;
    this.nowNs = Math.max(this.nowNs, next);
    const due = this.arrivals.filter((arrival) => arrival.atNs <= this.nowNs);
    this.arrivals = this.arrivals.filter((arrival) => arrival.atNs > this.nowNs);
    for (const arrival of due) this.deliver(arrival);
    // As a lane does: what has come is told before the machines have their turn.
    if (due.length > 0) for (const { device } of this.hosts) device.deliverEvents();
    return true;
  }

  private deliver({ source, to, port, bytes }: Arrival): void {
    const burst = new RxBurst(bytes);
    burst.length = bytes.length;
    burst.segmentLength = bytes.length;
    burst.source0 = source.word0;
    burst.source1 = source.word1;
    burst.source2 = source.word2;
    burst.source3 = source.word3;
    burst.sourcePort = ROCE_PORT;
    burst.port = port;
    to.device.onPacket(this.nowNs, burst, 0, bytes.length);
  }

  private carry(from: TestHost): void {
    const { tx } = from;
    for (let message = 0; message < tx.messageCount; message++) {
      const flow = tx.flows[message] as TxFlow;
      const isThere = (own: IpAddress) => flow.destination.equals(own);
      const to = this.hosts.find((host) => host.addresses.some(isThere));
      const port = to === undefined ? 0 : to.addresses.findIndex(isThere);
      const source = from.addresses[flow.port] as IpAddress;
      const isCut = this.cutPorts.has(port) || this.cutPorts.has(flow.port);
      const start = tx.offsets[message] as number;
      const end = start + (tx.lengths[message] as number);
      const step = tx.segmentLengths[message] as number;
      for (let at = start; at < end; at += step) {
        const bytes = tx.bytes.slice(at, Math.min(end, at + step));
        this.packetCount++;
        if (to === undefined || isCut || this.loses?.(bytes, from) === true) continue;
        const slowNs = this.slowPorts.get(port) ?? 0;
        const atNs = this.nowNs + LATENCY_NS + slowNs;
        this.arrivals.push({ atNs, source, to, port, bytes });
      }
    }
  }
}

/** What a client's user hears. */
export class ClientNotes implements RtrsClientUser {
  readonly events: string[] = [];
  readonly completed: ClientRequest[] = [];
  /** Errnos in the order of completion. */
  readonly errnos: number[] = [];
  reissued: ClientRequest[] = [];
  client: RtrsClient | null = null;
  /** Answers `onSessionUp` with `reissue`, as a user without state on the server does. */
  reissuesAtOnce = true;
  onComplete: ((request: ClientRequest) => void) | null = null;
  onReissue: ((request: ClientRequest) => number) | null = null;

  onSessionUp(): void {
    this.events.push("up");
    if (this.reissuesAtOnce) this.client?.reissue();
  }

  onSessionDown(): void {
    this.events.push("down");
  }

  onSessionFailed(error: FarpageError): void {
    this.events.push(`failed ${error.code}`);
  }

  onRequestReissue(request: ClientRequest): number {
    this.reissued.push(request);
    return this.onReissue?.(request) ?? 0;
  }

  onRequestComplete(request: ClientRequest): void {
    this.completed.push(request);
    this.errnos.push(request.errno);
    this.onComplete?.(request);
  }

  onPermitAvailable(): void {
    this.events.push("permit");
  }
}

/**
 * A server's user that is a disk of one chunk per block: the user message is a little-endian block
 * number, WRITE stores the data, READ gives it back.
 */
export class ServerNotes implements RtrsServerUser {
  readonly events: string[] = [];
  readonly requests: ServerRequest[] = [];
  readonly blocks = new Map<number, Uint8Array>();
  /** Every execution of a write: block and first byte. */
  readonly writes: string[] = [];
  readonly sessions: ServerSession[] = [];
  /** Held requests are answered by `answerAll` only. */
  holds = false;
  /** Answers instead of the disk, when there. */
  onAny: ((request: ServerRequest) => void) | null = null;

  onSessionUp(session: ServerSession): void {
    this.sessions.push(session);
    this.events.push(`up ${session.name}`);
  }

  onSessionDown(session: ServerSession): void {
    if (session.inflight !== 0) throw new Error("a session goes down when its requests are done");
    this.events.push(`down ${session.name}`);
  }

  onRequest(request: ServerRequest): void {
    this.requests.push(request);
    if (this.holds) return;
    this.answer(request);
  }

  answerAll(): void {
    for (const request of this.requests) this.answer(request);
    this.requests.length = 0;
  }

  private answer(request: ServerRequest): void {
    if (this.onAny !== null) {
      this.onAny(request);
      return;
    }
    const { memory, memoryOffset, dataLength } = request;
    const block = request.userView.getUint32(0, true);
    const chunk = memory.bytes.subarray(memoryOffset, memoryOffset + dataLength);
    if (request.isRead) {
      chunk.fill(0);
      const stored = this.blocks.get(block);
      if (stored !== undefined) chunk.set(stored.subarray(0, dataLength));
    } else {
      this.blocks.set(block, chunk.slice());
      this.writes.push(`${block}:${chunk[0] ?? "-"}`);
    }
    request.complete(0);
  }
}

/** A server host and a client host, not connected yet. */
export class Pair {
  readonly pipe = new Pipe();
  clientHost: TestHost;
  serverHost: TestHost;
  readonly client: RtrsClient;
  server: RtrsServer;
  readonly clientNotes = new ClientNotes();
  serverNotes = new ServerNotes();
  readonly serverOptions: RtrsServerOptions;
  /** 256 KiB, registered. */
  readonly data: Memory;
  private seed = 100;
  private readonly serverAddress: string;

  /** @param pathCount of the client's session: as many addresses has each host. */
  constructor(
    client: Partial<RtrsClientOptions> = {},
    server: RtrsServerOptions = {},
    device: Partial<DeviceOptions> = {},
    pathCount = 1,
  ) {
    this.serverOptions = { queueDepth: 8, chunkBytes: 16_384, ...server };
    const nets = ["192.0.2", "198.51.100", "203.0.113"].slice(0, pathCount);
    this.serverAddress = nets.map((net) => `${net}.2`).join(",");
    this.clientHost = new TestHost(nets.map((net) => `${net}.1`).join(","), 1, device);
    this.serverHost = new TestHost(this.serverAddress, 2, device);
    this.pipe.hosts.push(this.clientHost, this.serverHost);
    this.server = this.makeServer();
    this.client = this.makeClient(client, this.clientNotes, this.clientHost);
    this.data = this.clientHost.memory.allocate(1 << 18);
    this.client.registerMemory(this.data);
  }

  makeClient(options: Partial<RtrsClientOptions>, notes: ClientNotes, host: TestHost): RtrsClient {
    const paths = host.addresses.map((source, index) => ({
      source,
      destination: this.serverHost.addresses[index] as IpAddress,
    }));
    const all = { sessionName: "blue", paths, ...options };
    const client = new RtrsClient(host.environment, all, notes);
    notes.client = client;
    host.machines.push(client);
    return client;
  }

  /** Connects and waits until both sides are up. */
  connect(): void {
    this.client.connect();
    this.pipe.until(() => this.client.state === "CONNECTED", "the session is up");
    this.pipe.until(() => this.serverNotes.sessions.length > 0, "the server is up");
  }

  /** The server's process is gone without a word. */
  killServer(): void {
    this.pipe.remove(this.serverHost);
  }

  /** A new server process on the same address, with new keys and an empty user. */
  restartServer(keepsBlocks = true): void {
    const blocks = this.serverNotes.blocks;
    this.serverHost = new TestHost(this.serverAddress, this.seed++);
    this.serverNotes = new ServerNotes();
    if (keepsBlocks) for (const [block, bytes] of blocks) this.serverNotes.blocks.set(block, bytes);
    this.pipe.hosts.push(this.serverHost);
    this.server = this.makeServer();
  }

  /**
   * Submits a write of `length` bytes of value `fill` to `block`. Data is at its number x 16 KiB.
   */
  write(block: number, fill: number, length = 4096, retry = true): ClientRequest {
    const request = this.acquire(block, length);
    request.retry = retry;
    const at = request.memoryOffset;
    this.data.bytes.fill(fill, at, at + length);
    this.client.submitWrite(request, length);
    return request;
  }

  read(block: number, length = 4096, retry = true): ClientRequest {
    const request = this.acquire(block, length);
    request.retry = retry;
    const at = request.memoryOffset;
    this.data.bytes.fill(0xee, at, at + length);
    this.client.submitRead(request, length);
    return request;
  }

  /** The data of a request, copied. */
  dataOf(request: ClientRequest): Uint8Array {
    const at = request.memoryOffset;
    return this.data.bytes.slice(at, at + request.dataLength);
  }

  untilIdle(): void {
    this.pipe.until(() => this.client.inflight === 0, "all requests complete");
  }

  private acquire(block: number, length: number): ClientRequest {
    const request = this.client.acquire();
    if (request === null) throw new Error("a request is free");
    request.userView.setUint32(0, block, true);
    request.userLength = 4;
    request.memory = length === 0 ? null : this.data;
    request.memoryOffset = request.number * 16_384;
    return request;
  }

  private makeServer(): RtrsServer {
    const server = new RtrsServer(
      this.serverHost.environment,
      this.serverOptions,
      this.serverNotes,
    );
    this.serverHost.machines.push(server);
    return server;
  }
}

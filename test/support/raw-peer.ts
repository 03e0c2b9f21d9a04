// SPDX-License-Identifier: MIT
// Peers that do what a test tells them, right or wrong: an RTRS client and an RTRS server by hand,
// on verbs and the connection manager.

import type { IpAddress, Machine, Memory, MemorySource } from "../../src/base/index.js";
import type { CmEvent, CmId, EventChannel } from "../../src/cm/index.js";
import type { RtrsEnvironment } from "../../src/rtrs/index.js";
import {
  ACCESS,
  type CompletionQueue,
  type Context,
  type MemoryRegion,
  type ProtectionDomain,
  type QueuePair,
  RecvWorkRequest,
  SEND_FLAG,
  SendWorkRequest,
  WorkCompletion,
  WR_OPCODE,
} from "../../src/verbs/index.js";
import {
  decodeRtrsInfoResponse,
  encodeRtrsConnectReply,
  encodeRtrsConnectRequest,
  RTRS_INFO_REQUEST_BYTES,
  type RtrsConnectReply,
  type RtrsConnectRequest,
  type RtrsDescriptor,
  rtrsChunkShift,
  rtrsRequestImmediate,
  writeRtrsInfoRequest,
} from "../../src/wire/index.js";

/** What a raw peer needs of the host that it is on. */
export interface RawHost {
  readonly address: IpAddress;
  readonly context: Context;
  readonly environment: Pick<RtrsEnvironment, "cm">;
  readonly memory: MemorySource;
  readonly machines: Machine[];
}

/** One connection of a raw peer, with everything that has completed on it. */
export interface RawConnection {
  readonly id: CmId;
  readonly qp: QueuePair;
  readonly cq: CompletionQueue;
  readonly events: CmEvent[];
  readonly completions: WorkCompletion[];
}

const RECEIVE_BYTES = 1024;
const SEND_BYTES = 32_768;
/** Queue depth that raw peers speak; chunk 7 fits an immediate and does not exist. */
export const RAW_DEPTH = 7;

/** What raw client and raw server share: memory, connections, posting. */
export class RawPeer implements Machine {
  readonly host: RawHost;
  readonly pd: ProtectionDomain;
  readonly channel: EventChannel;
  /** 64 KiB: sends come from the first half, receives go to the second. */
  readonly memory: Memory;
  readonly region: MemoryRegion;
  readonly connections: RawConnection[] = [];
  readonly requests: CmEvent[] = [];
  /** Where the next send's payload goes: what is under way is left alone. */
  private sendOffset = 0;

  constructor(host: RawHost) {
    this.host = host;
    this.pd = host.context.allocPd();
    this.channel = host.environment.cm.createChannel();
    this.memory = host.memory.allocate(1 << 16);
    const access = ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE;
    this.region = this.pd.registerMr(this.memory, { access });
    host.machines.push(this);
  }

  connectionAt(index: number): RawConnection {
    return this.connections[index] as RawConnection;
  }

  protected add(id: CmId): RawConnection {
    const cq = this.host.context.createCq({ depth: 512 });
    const depths = { maxSendWr: 128, maxRecvWr: 128, maxSendSge: 2, maxRecvSge: 1 };
    const qp = this.pd.createQp({ type: "RC", sendCq: cq, recvCq: cq, ...depths });
    id.bindQp(qp);
    const connection = { id, qp, cq, events: [], completions: [] };
    id.context = connection;
    this.connections.push(connection);
    return connection;
  }

  /** Posts receives into the slots from `first` on; a slot's number is its `wrId`. */
  postReceives(connection: RawConnection, count: number, first = 0): void {
    const wr = new RecvWorkRequest();
    for (let i = first; i < first + count; i++) {
      const sge = wr.sges[0] as (typeof wr.sges)[number];
      sge.address = this.memory.address + 32_768 + i * RECEIVE_BYTES;
      sge.length = RECEIVE_BYTES;
      sge.lkey = this.region.lkey;
      wr.sgeCount = 1;
      wr.wrId = i;
      connection.qp.postRecv(wr);
    }
  }

  /** Posts a send whose payload is `bytes`, signalled; `change` sets the rest. */
  send(
    connection: RawConnection,
    bytes: Uint8Array,
    change: (wr: SendWorkRequest) => void = () => {},
  ): void {
    const wr = new SendWorkRequest();
    if (this.sendOffset + bytes.length > SEND_BYTES) this.sendOffset = 0;
    this.memory.bytes.set(bytes, this.sendOffset);
    const sge = wr.sges[0] as (typeof wr.sges)[number];
    sge.address = this.memory.address + this.sendOffset;
    this.sendOffset += bytes.length;
    sge.length = bytes.length;
    sge.lkey = this.region.lkey;
    wr.sgeCount = bytes.length === 0 ? 0 : 1;
    wr.opcode = WR_OPCODE.SEND;
    wr.sendFlags = SEND_FLAG.SIGNALED;
    change(wr);
    connection.qp.postSend(wr);
  }

  pump(_nowNs: number): void {
    for (let event = this.channel.poll(); event !== null; event = this.channel.poll()) {
      if (event.type === "CONNECT_REQUEST") this.requests.push(event);
      else (event.id.context as RawConnection | null)?.events.push(event);
      if (event.type === "DISCONNECTED") event.id.disconnect();
    }
    for (const connection of this.connections) {
      const into = [new WorkCompletion()];
      while (connection.cq.pollCq(into) > 0) {
        connection.completions.push(into[0] as WorkCompletion);
        into[0] = new WorkCompletion();
      }
    }
  }

  deadlineNs(): number {
    return Infinity;
  }

  checkInvariants(): void {}
}

/** A client by hand. */
export class RawClient extends RawPeer {
  chunks: readonly RtrsDescriptor[] = [];
  /** Of its requests to connect. */
  reconnectCount = 1;
  private readonly server: { readonly address: IpAddress };
  private readonly tag: number;

  /** @param tag tells its UUIDs and its name, `raw` + tag, from those of others; 0 .. 255. */
  constructor(host: RawHost, server: { readonly address: IpAddress }, tag = 0) {
    super(host);
    this.server = server;
    this.tag = tag;
  }

  get name(): string {
    return `raw${this.tag}`;
  }

  /** Asks for a connection; what is not said is as it should be. */
  ask(change: Partial<RtrsConnectRequest> = {}): RawConnection {
    const request: RtrsConnectRequest = {
      connectionId: this.connections.length,
      connectionCount: 2,
      reconnectCount: this.reconnectCount,
      pathUuid: new Uint8Array(16).fill(0x11, 1).fill(this.tag, 0, 1),
      pathsUuid: new Uint8Array(16).fill(0x22, 1).fill(this.tag, 0, 1),
      firstConnection: true,
      ...change,
    };
    return this.askWith(encodeRtrsConnectRequest(request));
  }

  askWith(privateData: Uint8Array): RawConnection {
    const id = this.channel.createId();
    id.resolve({ source: this.host.address, destination: this.server.address, port: 1234 });
    const connection = this.add(id);
    id.connect({ privateData, responderResources: 0, initiatorDepth: 0 });
    return connection;
  }

  askInfo(name = this.name, connection: RawConnection = this.connectionAt(0)): void {
    this.postReceives(connection, 8);
    const bytes = new Uint8Array(RTRS_INFO_REQUEST_BYTES);
    writeRtrsInfoRequest(bytes, 0, name);
    this.send(connection, bytes);
  }

  /** Takes the chunks out of the INFO_RSP that has come. */
  takeInfo(posts: RawConnection = this.connectionAt(1)): void {
    const length = this.connectionAt(0).completions.find((wc) => wc.opcode >= 128)?.byteLength;
    const regions = decodeRtrsInfoResponse(this.memory.view, 32_768, length ?? 0);
    if (typeof regions === "string") throw new Error(regions);
    this.chunks = regions;
    this.postReceives(posts, 30);
  }

  /**
   * Writes `bytes` to a chunk with a request's immediate: as a request should, if the numbers are
   * right.
   * @param at where in the chunk the bytes go.
   * @param headerOffset what the immediate says.
   */
  request(
    chunk: number,
    bytes: Uint8Array,
    at: number,
    headerOffset: number,
    change: (wr: SendWorkRequest) => void = () => {},
    connection: RawConnection = this.connectionAt(1),
  ): void {
    const isOne = this.chunks.length === 1;
    const region = this.chunks[isOne ? 0 : Math.min(chunk, RAW_DEPTH - 1)] as RtrsDescriptor;
    this.send(connection, bytes, (wr) => {
      wr.opcode = WR_OPCODE.RDMA_WRITE_WITH_IMM;
      wr.remoteAddressHigh = region.addressHigh;
      wr.remoteAddressLow = region.addressLow + at + (isOne ? chunk * 16_384 : 0);
      wr.rkey = region.rkey;
      wr.immediate = rtrsRequestImmediate(chunk, headerOffset, rtrsChunkShift(RAW_DEPTH));
      change(wr);
    });
  }
}

/** A server by hand: accepts everything that asks. */
export class RawServer extends RawPeer {
  readonly reply: RtrsConnectReply;
  /** Chunks of 16 KiB under one key. */
  readonly chunkMemory: Memory;
  readonly chunkRegion: MemoryRegion;

  constructor(host: RawHost, change: Partial<RtrsConnectReply> = {}) {
    super(host);
    this.reply = {
      errno: 0,
      queueDepth: RAW_DEPTH,
      ioBytesMax: 12_288,
      headerBytesMax: 4096,
      flags: 2,
      ...change,
    };
    this.chunkMemory = host.memory.allocate(RAW_DEPTH * 16_384);
    const access = ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE;
    this.chunkRegion = this.pd.registerMr(this.chunkMemory, { access });
    this.channel.listen({ address: null, port: 1234 });
  }

  override pump(nowNs: number): void {
    super.pump(nowNs);
    for (const event of this.requests.splice(0)) {
      const connection = this.add(event.id);
      this.postReceives(connection, 30);
      const privateData = this.replyBytes();
      event.id.accept({ privateData, responderResources: 0, initiatorDepth: 0 });
    }
  }

  protected replyBytes(): Uint8Array {
    return encodeRtrsConnectReply(this.reply);
  }
}

// SPDX-License-Identifier: MIT
// Both sides' queue pairs connected and their memories known, ready for a test.

import { randomInt } from "node:crypto";
import { FarpageError, IpAddress } from "../../runtime/index.js";
import {
  ACCESS,
  type AddressHandle,
  type CompletionQueue,
  type MemoryRegion,
  type PathMtu,
  type ProtectionDomain,
  type QueuePair,
  RecvWorkRequest,
  SEND_FLAG,
  SendWorkRequest,
  WC_STATUS,
  WR_OPCODE,
} from "../../verbs/index.js";
import { Area } from "../area.js";
import type { CmDesk } from "../cm-desk.js";
import { CompletionReader, completionFailure } from "../completions.js";
import type { ToolEnvironment } from "../environment.js";
import { bringUpRc, bringUpUd } from "../queue-pairs.js";
import { acceptPeer, connectPatiently, hangUp, type PerfLink, type QpMaker } from "./cm-links.js";
import { type Agreement, agree, type Conversation, converse } from "./conversation.js";
import { type Exchange, SETUP_TIMEOUT_MS } from "./exchange.js";
import { PLACE_BINARY_BYTES, type Place } from "./messages.js";
import type { PerfOptions } from "./options.js";

/** What UD queue pairs without a connection manager use. */
const QKEY = 0x1111_1111;
/** Bytes before a UD message. */
const GRH_BYTES = 40;
/** A server takes messages of this size at least, whatever it was told. */
const SERVER_BYTES_MIN = 1 << 23;
const PAGE_BYTES = 4096;

/** A test's two ends. `Session.open` makes one; `close` it. */
export class Session implements Disposable {
  readonly environment: ToolEnvironment;
  readonly options: PerfOptions;
  readonly exchange: Exchange;
  readonly agreement: Agreement;
  readonly pd: ProtectionDomain;
  readonly sendCq: CompletionQueue;
  readonly recvCq: CompletionQueue;
  /** This side's bytes, then, from `spanBytes` on, those for the peer. */
  readonly memory: Area;
  readonly mr: MemoryRegion;
  readonly spanBytes: number;
  private readonly desk: CmDesk | null;
  private readonly candidates: readonly IpAddress[];
  private link: PerfLink | null = null;
  private queuePair: QueuePair | null = null;
  private own: Place | null = null;
  private remotePlace: Place | null = null;
  private destination: AddressHandle | null = null;
  private remoteQpn = 0;
  private remoteQkey = QKEY;

  private constructor(
    environment: ToolEnvironment,
    options: PerfOptions,
    pd: ProtectionDomain,
    conversation: Conversation,
    agreement: Agreement,
  ) {
    this.environment = environment;
    this.options = options;
    this.pd = pd;
    this.exchange = conversation.exchange;
    this.desk = conversation.desk;
    this.agreement = agreement;
    const { addresses } = environment.host.stack;
    const { local } = conversation;
    this.candidates = local === null ? addresses : [local, ...addresses];
    this.sendCq = pd.context.createCq({ depth: options.txDepth + 8 });
    this.recvCq = pd.context.createCq({ depth: options.rxDepth + 8 });
    this.spanBytes = spanOf(options, agreement);
    const { LOCAL_WRITE, REMOTE_WRITE, REMOTE_READ, REMOTE_ATOMIC } = ACCESS;
    const access = LOCAL_WRITE | REMOTE_WRITE | REMOTE_READ | REMOTE_ATOMIC;
    this.memory = new Area(environment, pd, 2 * this.spanBytes, access);
    this.mr = this.memory.mr;
  }

  /**
   * Finds the peer and connects with it.
   * @throws FarpageError what `converse`, `agree` and `Exchange.swap` throw; EAFNOSUPPORT when one
   *   side has an IPv4 GID and the other an IPv6 one.
   */
  static async open(environment: ToolEnvironment, options: PerfOptions): Promise<Session> {
    const pd = environment.host.openDevice().allocPd();
    try {
      return await Session.over(environment, options, pd);
    } catch (error) {
      pd.context.close();
      throw error;
    }
  }

  private static async over(
    environment: ToolEnvironment,
    options: PerfOptions,
    pd: ProtectionDomain,
  ): Promise<Session> {
    const conversation = await converse(environment, options, pd);
    let session: Session | null = null;
    try {
      const mtuMax = Math.min(options.mtu ?? 4096, ...environment.host.stack.device.activeMtus);
      const agreement = await agree(conversation.exchange, mtuMax);
      checkDatagramSize(options, agreement);
      session = new Session(environment, options, pd, conversation, agreement);
      await session.connect();
      return session;
    } catch (error) {
      conversation.exchange.close();
      conversation.desk?.close();
      session?.close();
      throw error;
    }
  }

  get isClient(): boolean {
    return this.exchange.isClient;
  }

  get qp(): QueuePair {
    return this.queuePair as QueuePair;
  }

  /** The peer's place: where this side writes, reads or adds. */
  get remote(): Place {
    return this.remotePlace as Place;
  }

  /** A request that takes `messageBytes` from or to this side's memory; to be reused. */
  request(messageBytes: number): SendWorkRequest {
    const wr = new SendWorkRequest();
    wr.opcode = opcodeOf(this.options);
    wr.sgeCount = 1;
    const entry = { address: this.mr.address, length: messageBytes, lkey: this.mr.lkey };
    Object.assign(wr.sges[0] ?? {}, entry);
    wr.remoteAddressHigh = this.remote.addressHigh;
    wr.remoteAddressLow = this.remote.addressLow;
    wr.rkey = this.remote.rkey;
    wr.compareAddLow = 1;
    wr.destination = this.destination;
    wr.remoteQpn = this.remoteQpn;
    wr.remoteQkey = this.remoteQkey;
    return wr;
  }

  /** A receive of any message that fits the memory. */
  receive(): RecvWorkRequest {
    const wr = new RecvWorkRequest();
    wr.sgeCount = 1;
    const entry = { address: this.mr.address + this.spanBytes, length: this.spanBytes };
    Object.assign(wr.sges[0] ?? {}, { ...entry, lkey: this.mr.lkey });
    return wr;
  }

  /** Meets the peer. @param options.isPatient it may be at work for long. */
  async meet(options: { readonly isPatient?: boolean } = {}): Promise<void> {
    const own = this.own as Place;
    const timeout = options.isPatient === true ? { timeoutMs: Number.POSITIVE_INFINITY } : {};
    await this.exchange.swapPlace(own, timeout);
  }

  /** Settles when the peer is gone. */
  get lost(): Promise<FarpageError> {
    return this.exchange.lost;
  }

  /** The test is over and the peer knows. */
  async finish(): Promise<void> {
    if (this.link !== null) await hangUp(this.link);
    await this.exchange.finish();
  }

  /** The same where perftest has no last words: lets the peer go first. */
  async leave(): Promise<void> {
    if (this.link !== null) await hangUp(this.link, { afterPeer: !this.isClient });
    await this.exchange.leave();
  }

  close(): void {
    this.exchange.close();
    this.desk?.close();
    this.queuePair?.destroy();
    this.memory.free();
    this.pd.context.close();
    this.environment.host.wake();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  private async connect(): Promise<void> {
    if (this.desk === null) this.queuePair = this.createQp();
    else await this.connectByCm(this.desk);
    const theirs = await this.exchange.swapPlace(
      this.isClient
        ? this.place(this.addressFor(null))
        : (peer) => this.place(this.addressFor(peer)),
    );
    const own = this.own as Place;
    if (theirs.gid.family !== own.gid.family) throw otherFamily(own.gid, theirs.gid);
    this.remotePlace = theirs;
    if (this.desk === null) this.bringUp(own, theirs);
    // Twice more, as perftest does: when the queue pairs are up, and when it has printed them.
    await this.meet();
    await this.meet();
    await this.meetForLatency();
  }

  /** The latency tests of the three that need no receives meet once more. */
  private async meetForLatency(): Promise<void> {
    const { kind, verb } = this.options;
    if (kind === "lat" && verb !== "send") await this.meet();
  }

  private createQp(): QueuePair {
    return this.pd.createQp({
      type: this.options.connection,
      sendCq: this.sendCq,
      recvCq: this.recvCq,
      maxSendWr: this.options.txDepth,
      maxRecvWr: this.options.rxDepth,
    });
  }

  private bringUp(own: Place, theirs: Place): void {
    const port = this.pd.context.portOf(own.gid);
    const { options, agreement, qp } = this;
    if (options.connection === "UD") {
      bringUpUd(qp, { port, qkey: QKEY, sqPsn: own.psn });
      this.destination = this.pd.createAh({ port, destination: theirs.gid });
      this.remoteQpn = theirs.qpn;
      return;
    }
    bringUpRc(qp, {
      port,
      destination: theirs.gid,
      destinationQpn: theirs.qpn,
      rqPsn: theirs.psn,
      sqPsn: own.psn,
      pathMtu: agreement.mtu as PathMtu,
      maxRdAtomic: Math.min(own.outReads, theirs.outReads),
      maxDestRdAtomic: own.outReads,
      timeout: options.ackTimeout,
    });
  }

  private async connectByCm(desk: CmDesk): Promise<void> {
    const { exchange, options, environment } = this;
    const nowhere = new Uint8Array(PLACE_BINARY_BYTES);
    const hasIntroduction = options.connection === "UD" && needsIntroduction(options);
    const maker: QpMaker = {
      createQp: () => this.createQp(),
      prepare: (qp) => {
        if (hasIntroduction && !this.isClient) qp.postRecv(this.receive());
      },
      // The tests themselves hear that the conversation is over.
      onGone: () => {},
    };
    await exchange.swap(nowhere);
    const link = this.isClient
      ? await this.askForConnection(desk, maker)
      : await this.awaitConnection(desk, maker);
    this.link = link;
    this.queuePair = link.queues.qp;
    environment.host.wake();
    if (options.connection === "UD") this.aimDatagrams(link);
    if (hasIntroduction) await (this.isClient ? this.introduce() : this.hearIntroduction());
    await exchange.swap(nowhere);
  }

  private async awaitConnection(desk: CmDesk, maker: QpMaker): Promise<PerfLink> {
    const { connection, ackTimeout } = this.options;
    const event = await desk.request({
      portSpace: connection === "UD" ? "UDP" : "TCP",
      from: IpAddress.parse(this.exchange.remoteAddress),
      timeoutMs: SETUP_TIMEOUT_MS,
    });
    return acceptPeer(desk, event, maker, ackTimeout);
  }

  private askForConnection(desk: CmDesk, maker: QpMaker): Promise<PerfLink> {
    const { options, agreement } = this;
    const target = {
      portSpace: options.connection === "UD" ? "UDP" : "TCP",
      source: this.candidates[0] as IpAddress,
      destination: IpAddress.parse(this.exchange.remoteAddress),
      port: options.port,
    } as const;
    const depth = isAnswered(options) ? options.outReads : 0;
    return connectPatiently(this.environment, desk, target, maker, {
      responderResources: depth,
      initiatorDepth: depth,
      ackTimeout: options.ackTimeout,
      pathMtu: agreement.mtu as PathMtu,
    });
  }

  private aimDatagrams({ id, queues, established }: PerfLink): void {
    const { remoteAddress } = id;
    if (remoteAddress === null) return;
    this.destination = this.pd.createAh({ port: id.devicePort, destination: remoteAddress });
    this.remoteQpn = established?.remoteQpn ?? 0;
    this.remoteQkey = established?.remoteQkey ?? queues.qp.queryQp().qkey;
  }

  /** UD by RDMA CM tells the server nothing of the client's queue pair: a first datagram does. */
  private async introduce(): Promise<void> {
    const { qp } = this;
    const wr = new SendWorkRequest();
    wr.opcode = WR_OPCODE.SEND_WITH_IMM;
    wr.immediate = qp.qpn;
    wr.sendFlags = SEND_FLAG.SIGNALED;
    wr.sgeCount = 1;
    const entry = { address: this.mr.address, length: 4, lkey: this.mr.lkey };
    Object.assign(wr.sges[0] ?? {}, entry);
    wr.destination = this.destination;
    wr.remoteQpn = this.remoteQpn;
    wr.remoteQkey = this.remoteQkey;
    qp.postSend(wr);
    const wc = await new CompletionReader(this.environment, this.sendCq).next();
    if (wc.status !== WC_STATUS.SUCCESS) throw completionFailure(wc, "the introduction");
  }

  private async hearIntroduction(): Promise<void> {
    const reader = new CompletionReader(this.environment, this.recvCq);
    const wc = await reader.next({ timeoutMs: SETUP_TIMEOUT_MS });
    if (wc.status !== WC_STATUS.SUCCESS) throw completionFailure(wc, "the introduction");
    this.remoteQpn = wc.immediate & 0xff_ffff;
  }

  private addressFor(peer: Place | null): IpAddress {
    const first = this.candidates[0] as IpAddress;
    if (peer === null) return first;
    const family = peer.gid.family;
    return this.candidates.find((own) => own.family === family) ?? first;
  }

  private place(gid: IpAddress): Place {
    const address = this.mr.address + this.spanBytes;
    this.own ??= {
      outReads: isAnswered(this.options) ? this.options.outReads : 1,
      qpn: this.qp.qpn,
      psn: randomInt(1 << 24),
      rkey: this.mr.rkey,
      addressHigh: Math.floor(address / 2 ** 32),
      addressLow: address >>> 0,
      gid,
    };
    return this.own;
  }
}

/** READs and atomics: their answers carry data. */
function isAnswered(options: PerfOptions): boolean {
  return options.verb === "read" || options.verb === "atomic";
}

/** The server must know the client's queue pair where it sends, too. */
function needsIntroduction(options: PerfOptions): boolean {
  return options.kind === "lat" || options.bidirectional;
}

function opcodeOf(options: PerfOptions) {
  const opcodes = {
    write: WR_OPCODE.RDMA_WRITE,
    read: WR_OPCODE.RDMA_READ,
    send: WR_OPCODE.SEND,
    atomic: WR_OPCODE.ATOMIC_FETCH_AND_ADD,
  };
  return opcodes[options.verb];
}

/** Bytes of each half of the memory. */
function spanOf(options: PerfOptions, agreement: Agreement): number {
  const sizeMax = options.size === "all" ? SERVER_BYTES_MIN : options.size;
  const least = options.server === null ? SERVER_BYTES_MIN : agreement.cycleBytes;
  const bytes = Math.max(sizeMax + GRH_BYTES, least);
  return Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
}

function checkDatagramSize(options: PerfOptions, agreement: Agreement): void {
  if (options.connection === "RC" || options.size === "all") return;
  if (options.size <= agreement.mtu) return;
  throw new FarpageError(
    "EINVAL",
    `a datagram holds ${agreement.mtu} bytes between these two: give --size`,
  );
}

function otherFamily(own: IpAddress, theirs: IpAddress): FarpageError {
  return new FarpageError(
    "EAFNOSUPPORT",
    `the peer's GID is ${theirs}, this side's ${own}: give --address of its family here, or ` +
      "--ipv6 or --gid-index to the peer",
  );
}

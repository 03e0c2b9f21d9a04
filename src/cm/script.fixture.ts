// SPDX-License-Identifier: MIT
// What the tests of this room stand on: a connection manager whose QP1 is a list in memory, with a
// peer that says exactly what the test tells it to. Everything that the manager sends or raises is
// one line of text, and what a test does not list fails it.

import { expect } from "vitest";
import { HeapMemorySource, IpAddress, SeededRandom } from "../base/index.js";
import { Context, Device, type QueuePair } from "../verbs/index.js";
import {
  type CmMad,
  type CmMessage,
  type CmRep,
  type CmReq,
  decodeCmMad,
  encodeRdmaCmHeader,
  noPath,
  PORT_SPACE,
  RDMA_CM_HEADER_BYTES,
  rejReasonName,
  type SidrReq,
  serviceIdLowOf,
} from "../wire/index.js";
import type { CmId } from "./cm-id.js";
import { ConnectionManager } from "./connection-manager.js";
import type { CmEvent } from "./event.js";
import type { EventChannel } from "./event-channel.js";
import type { MadPort, ReceivedMad } from "./mad-port.js";
import { encodeMad } from "./messages.js";
import type { ConnectionManagerOptions } from "./options.js";

export const OWN = IpAddress.parse("192.0.2.1");
export const PEER = IpAddress.parse("192.0.2.2");
export const OTHER = IpAddress.parse("192.0.2.3");
export const PORT = 7471;
export const MS = 1_000_000;

export interface SentMad {
  readonly devicePort: number;
  readonly destination: IpAddress;
  readonly bytes: Uint8Array;
}

/** QP1 as two lists. */
export class ListPort implements MadPort {
  readonly addresses: readonly IpAddress[];
  readonly inbox: ReceivedMad[] = [];
  readonly sent: SentMad[] = [];
  /** Sends that still find a buffer. */
  freeBuffers = Number.POSITIVE_INFINITY;
  isClosed = false;

  constructor(addresses: readonly IpAddress[]) {
    this.addresses = addresses;
  }

  receive(): ReceivedMad | null {
    return this.inbox.shift() ?? null;
  }

  send(devicePort: number, destination: IpAddress, _class: number, mad: Uint8Array): boolean {
    if (this.freeBuffers <= 0) return false;
    this.freeBuffers--;
    this.sent.push({ devicePort, destination, bytes: mad.slice() });
    return true;
  }

  close(): void {
    this.isClosed = true;
  }
}

/** A host: device, context and connection manager over `port`. */
export class CmHost {
  readonly context: Context;
  readonly cm: ConnectionManager;
  readonly channel: EventChannel;
  readonly port: ListPort;
  private readonly pd;
  private readonly cq;

  constructor(
    addresses: readonly IpAddress[],
    seed: number,
    options: Partial<ConnectionManagerOptions>,
  ) {
    const random = new SeededRandom(seed);
    const linkMtus = addresses.map(() => 1500);
    this.context = new Context(new Device({ addresses, linkMtus, random, qpCountMax: 256 }));
    this.port = new ListPort(addresses);
    const memory = new HeapMemorySource();
    this.cm = new ConnectionManager(
      { context: this.context, memory, random, ...options },
      this.port,
    );
    this.channel = this.cm.createChannel();
    this.pd = this.context.allocPd();
    this.cq = this.context.createCq({ depth: 64 });
  }

  createQp(type: "RC" | "UD" = "RC"): QueuePair {
    const { cq } = this;
    return this.pd.createQp({ type, sendCq: cq, recvCq: cq, maxSendWr: 4, maxRecvWr: 4 });
  }
}

/** A connection manager and its scripted peer. */
export class Script {
  readonly host: CmHost;
  nowNs = 1_000 * MS;
  /** Every MAD since the start, decoded; `takeSent` gives those not taken yet as text. */
  readonly mads: CmMad[] = [];
  private takenCount = 0;

  constructor(options: Partial<ConnectionManagerOptions> = {}) {
    const caGuid = { high: 0x1111_1111, low: 0x2222_2222 };
    this.host = new CmHost([OWN, IpAddress.parse("2001:db8::1")], 1, { caGuid, ...options });
    this.pump();
  }

  get channel(): EventChannel {
    return this.host.channel;
  }

  /** The peer sends `message`; it is taken in at once. */
  say(
    message: CmMessage,
    from: Partial<{ source: IpAddress; destination: IpAddress; transaction: number }> = {},
  ): void {
    const bytes = encodeMad(message, 0x7777_0000, from.transaction ?? 0x42);
    this.sayBytes(bytes, from.source ?? PEER, from.destination ?? OWN);
  }

  /** The bytes of a message of the peer. */
  encode(message: CmMessage): Uint8Array {
    return encodeMad(message, 0x7777_0000, 0x42);
  }

  sayBytes(bytes: Uint8Array, source = PEER, destination = OWN): void {
    this.deliver(bytes, source, destination);
    this.pump();
  }

  /** Puts a MAD into the inbox, for the next pump. */
  deliver(bytes: Uint8Array, source = PEER, destination = OWN): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const devicePort = this.host.port.addresses.findIndex((a) => a.equals(destination));
    this.host.port.inbox.push({ bytes, view, offset: 0, devicePort, source, destination });
  }

  pump(): void {
    this.host.cm.pump(this.nowNs);
    this.host.cm.checkInvariants();
    this.collect();
  }

  /** Lets time pass, pumping at every deadline on the way. */
  wait(durationNs: number): void {
    const untilNs = this.nowNs + durationNs;
    this.pump();
    for (let next = this.host.cm.deadlineNs(); next <= untilNs; next = this.host.cm.deadlineNs()) {
      this.nowNs = Math.max(this.nowNs, next);
      this.pump();
    }
    this.nowNs = untilNs;
    this.pump();
  }

  /** What was sent since the last call, one line each. */
  takeSent(): string[] {
    this.collect();
    const lines = this.mads.slice(this.takenCount).map((mad) => textOf(mad.message));
    this.takenCount = this.mads.length;
    return lines;
  }

  /** What was raised since the last call. */
  takeEvents(): CmEvent[] {
    const events: CmEvent[] = [];
    for (let e = this.channel.poll(); e !== null; e = this.channel.poll()) events.push(e);
    return events;
  }

  /** Expects exactly these messages and events since the last call. */
  expect(o: { sent?: readonly string[]; events?: readonly string[] } = {}): CmEvent[] {
    const events = this.takeEvents();
    expect({
      sent: this.takeSent(),
      events: events.map((e) => `${e.type}${e.status === 0 ? "" : ` ${e.status}`}`),
    }).toEqual({ sent: o.sent ?? [], events: o.events ?? [] });
    return events;
  }

  /** The message sent last. */
  last<Kind extends CmMessage["kind"]>(kind: Kind): Extract<CmMessage, { kind: Kind }> {
    this.collect();
    const message = this.mads.at(-1)?.message;
    expect(message?.kind).toBe(kind);
    return message as Extract<CmMessage, { kind: Kind }>;
  }

  /** An active id with its queue pair, resolved to the peer. */
  activeId(): CmId {
    const id = this.channel.createId();
    id.resolve({ source: OWN, destination: PEER, port: PORT, sourcePort: 40_000 });
    id.bindQp(this.host.createQp());
    return id;
  }

  /** An active id that has sent its REQ. */
  connecting(options: Parameters<CmId["connect"]>[0] = {}): CmId {
    const id = this.activeId();
    id.connect(options);
    this.pump();
    this.expect({ sent: ["REQ"] });
    return id;
  }

  /** An active id that is connected. */
  connected(rep: Partial<CmRep> = {}): CmId {
    const id = this.connecting();
    this.say(repTo(this.last("REQ"), rep));
    this.expect({ sent: ["RTU"], events: ["ESTABLISHED"] });
    return id;
  }

  /** A passive id whose REQ is waiting; the first call listens. */
  requested(req: Partial<CmReq> = {}): CmId {
    if (this.host.cm.liveCount === 0 || !this.isListening) this.listen();
    this.say(reqFrom(req));
    const [event] = this.expect({ events: ["CONNECT_REQUEST"] });
    return (event as CmEvent).id;
  }

  listen(): void {
    this.isListening = true;
    this.channel.listen({ address: null, port: PORT });
  }

  private isListening = false;

  /** A passive id that has sent its REP. */
  accepted(req: Partial<CmReq> = {}): CmId {
    const id = this.requested(req);
    id.bindQp(this.host.createQp());
    id.accept();
    this.pump();
    this.expect({ sent: ["REP"] });
    return id;
  }

  /** A passive id that is connected. */
  established(req: Partial<CmReq> = {}): CmId {
    const id = this.accepted(req);
    const rep = this.last("REP");
    this.say({
      kind: "RTU",
      localCommId: rep.remoteCommId,
      remoteCommId: rep.localCommId,
      privateData: NOTHING,
    });
    this.expect({ events: ["ESTABLISHED"] });
    return id;
  }

  private collect(): void {
    for (const { bytes } of this.host.port.sent.splice(0)) {
      const mad = decodeCmMad(new DataView(bytes.buffer), 0, bytes.length);
      if (typeof mad === "string") throw new Error(`a MAD that is none: ${mad}`);
      this.mads.push(mad);
    }
  }
}

export const NOTHING = new Uint8Array(0);

const REJECTED = ["REQ", "REP", "OTHER"];

const rejText = (reason: number) => `${reason} ${rejReasonName(reason)}`;

/** A message as one line. */
export function textOf(message: CmMessage): string {
  switch (message.kind) {
    case "REJ":
      return `REJ ${rejText(message.reason)} of ${REJECTED[message.rejected]}`;
    case "MRA":
      return `MRA of ${REJECTED[message.acknowledged]}`;
    case "SIDR_REP":
      return `SIDR_REP ${message.status}`;
    default:
      return message.kind;
  }
}

/** The peer's CA GUID. */
export const PEER_GUID = { high: 0x5054_00ff, low: 0xfe79_0002 };

/** Private data with RDMA CM's header in front. */
export function withHeader(
  source: IpAddress,
  destination: IpAddress,
  data: Uint8Array,
): Uint8Array {
  const bytes = new Uint8Array(RDMA_CM_HEADER_BYTES + data.length);
  encodeRdmaCmHeader(new DataView(bytes.buffer), 0, { sourcePort: 50_000, source, destination });
  bytes.set(data, RDMA_CM_HEADER_BYTES);
  return bytes;
}

/** A REQ of the peer as Linux would send it, with what the test changes. */
export function reqFrom(changes: Partial<CmReq> = {}): CmReq {
  return {
    kind: "REQ",
    localCommId: 0x1001,
    vendorId: 0,
    serviceIdHigh: 0,
    serviceIdLow: serviceIdLowOf(PORT_SPACE.TCP, PORT),
    caGuidHigh: PEER_GUID.high,
    caGuidLow: PEER_GUID.low,
    qkey: 0,
    qpn: 0x17,
    responderResources: 4,
    localEecn: 0,
    initiatorDepth: 3,
    remoteEecn: 0,
    remoteResponseTimeout: 20,
    transportType: 0,
    flowControl: false,
    startingPsn: 0x2b_ddc4,
    localResponseTimeout: 20,
    retryCount: 6,
    pkey: 0xffff,
    mtuCode: 3,
    rdcExists: false,
    rnrRetryCount: 5,
    maxCmRetries: 15,
    srq: false,
    extendedTransportType: 0,
    primary: {
      ...noPath(),
      localLid: 0xffff,
      remoteLid: 0xffff,
      localGid: PEER,
      remoteGid: OWN,
      hopLimit: 64,
      ackTimeout: 19,
    },
    alternate: noPath(),
    privateData: withHeader(PEER, OWN, Uint8Array.of(1, 2, 3)),
    ...changes,
  };
}

/** A REP of the peer to our REQ, with what the test changes. */
export function repTo(req: CmReq, changes: Partial<CmRep> = {}): CmRep {
  return {
    kind: "REP",
    localCommId: 0x2001,
    remoteCommId: req.localCommId,
    qkey: 0,
    qpn: 0x18,
    vendorId: 0,
    localEecn: 0,
    startingPsn: 0xcb_0ff3,
    responderResources: 4,
    initiatorDepth: 3,
    targetAckDelay: 15,
    failoverAccepted: 0,
    flowControl: false,
    rnrRetryCount: 5,
    srq: false,
    caGuidHigh: PEER_GUID.high,
    caGuidLow: PEER_GUID.low,
    privateData: Uint8Array.of(0xa0, 0xa1),
    ...changes,
  };
}

/** A SIDR_REQ of the peer. */
export function sidrReqFrom(changes: Partial<SidrReq> = {}): SidrReq {
  return {
    kind: "SIDR_REQ",
    requestId: 0x3001,
    pkey: 0xffff,
    serviceIdHigh: 0,
    serviceIdLow: serviceIdLowOf(PORT_SPACE.UDP, PORT),
    privateData: withHeader(PEER, OWN, Uint8Array.of(9, 8)),
    ...changes,
  };
}

/** A message that carries the two comm ids of a connection, as the peer writes them. */
export function peerIds(id: CmId): {
  localCommId: number;
  remoteCommId: number;
  privateData: Uint8Array;
} {
  const { connection } = id;
  if (connection === null) throw new Error("the id has no exchange");
  return {
    localCommId: connection.remoteCommId,
    remoteCommId: connection.localCommId,
    privateData: NOTHING,
  };
}

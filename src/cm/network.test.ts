// SPDX-License-Identifier: MIT
// The connection manager on real devices and QP1, over the simulated network, IPv4 and IPv6.
import { describe, expect, it } from "vitest";
import { HeapMemorySource, IpAddress, type Machine } from "../base/index.js";
import { type PathFaults, type SimHost, SimWorld } from "../sim/index.js";
import {
  ACCESS,
  type CompletionQueue,
  Context,
  Device,
  GRH_BYTES,
  type MemoryRegion,
  type ProtectionDomain,
  type QueuePair,
  RecvWorkRequest,
  type ScatterGatherEntry,
  SEND_FLAG,
  SendWorkRequest,
  WC_OPCODE,
  WC_STATUS,
  WorkCompletion,
  WR_OPCODE,
} from "../verbs/index.js";
import { CM_ATTRIBUTE } from "../wire/index.js";
import type { CmId } from "./cm-id.js";
import { ConnectionManager } from "./connection-manager.js";
import type { CmEvent } from "./event.js";
import type { EventChannel } from "./event-channel.js";
import type { CmTuning } from "./options.js";
import { MS } from "./script.fixture.js";

const PORT = 4000;
/** BTH, DETH, and the attribute id's place in the MAD. */
const ATTRIBUTE_AT = 20 + 17;

type Tuning = Partial<CmTuning>;

/** One process: it accepts whatever comes and says what it has seen. */
class App implements Machine {
  readonly host: SimHost;
  readonly context: Context;
  readonly cm: ConnectionManager;
  readonly channel: EventChannel;
  readonly pd: ProtectionDomain;
  readonly cq: CompletionQueue;
  readonly region: MemoryRegion;
  readonly log: string[] = [];
  readonly ids: CmId[] = [];
  accepts = true;
  lastEvent: CmEvent | null = null;
  private readonly bytes: Uint8Array;
  private readonly completion = new WorkCompletion();

  constructor(host: SimHost, tuning: Tuning = {}) {
    const { link, random } = host;
    this.host = host;
    const { addresses, linkMtus, receiveBufferBytes } = link;
    const device = new Device({ addresses, linkMtus, random, receiveBufferBytes });
    this.context = new Context(device);
    const memory = new HeapMemorySource();
    this.cm = new ConnectionManager({ context: this.context, memory, random, ...tuning });
    this.channel = this.cm.createChannel();
    this.pd = this.context.allocPd();
    this.cq = this.context.createCq({ depth: 256 });
    const access = ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE | ACCESS.REMOTE_READ;
    const buffer = memory.allocate(1 << 16);
    this.bytes = buffer.bytes;
    this.region = this.pd.registerMr(buffer, { access });
    host.device = device;
    host.machines.push(this.cm, this);
  }

  connect(destination: IpAddress, port = PORT): CmId {
    const id = this.channel.createId();
    const source = this.host.link.addresses.find((a) => a.family === destination.family);
    id.resolve({ source: source as IpAddress, destination, port });
    id.bindQp(this.createQp("RC"));
    this.postRecv(id.qp as QueuePair, 64);
    id.connect({ timeoutNs: 5_000 * MS });
    this.ids.push(id);
    this.host.isActive = true;
    return id;
  }

  createQp(type: "RC" | "UD"): QueuePair {
    const { cq } = this;
    return this.pd.createQp({ type, sendCq: cq, recvCq: cq, maxSendWr: 16, maxRecvWr: 16 });
  }

  postRecv(qp: QueuePair, length: number): void {
    const wr = new RecvWorkRequest();
    this.setEntry(wr.sges[0] as ScatterGatherEntry, 32_768, length);
    wr.sgeCount = 1;
    qp.postRecv(wr);
  }

  send(qp: QueuePair, text: string, to: Partial<SendWorkRequest> = {}): void {
    const { sges, ...rest } = to;
    const wr = Object.assign(new SendWorkRequest(), rest);
    wr.opcode = WR_OPCODE.SEND;
    wr.sendFlags = SEND_FLAG.SIGNALED;
    const bytes = Uint8Array.from(text, (char) => char.charCodeAt(0));
    this.bytes.set(bytes);
    this.setEntry(wr.sges[0] as ScatterGatherEntry, 0, bytes.length);
    wr.sgeCount = 1;
    qp.postSend(wr);
    this.host.isActive = true;
  }

  pump(): void {
    for (let event = this.channel.poll(); event !== null; event = this.channel.poll()) {
      this.lastEvent = event;
      this.log.push(event.type);
      if (event.type === "CONNECT_REQUEST" && this.accepts) this.accept(event.id);
      if (event.type === "DISCONNECTED") event.id.disconnect();
    }
    while (this.cq.pollCq([this.completion]) > 0) this.complete(this.completion);
  }

  deadlineNs(): number {
    return Number.POSITIVE_INFINITY;
  }

  checkInvariants(): void {
    this.context.checkInvariants();
  }

  private accept(id: CmId): void {
    this.ids.push(id);
    const type = id.portSpace === "TCP" ? "RC" : "UD";
    id.bindQp(this.createQp(type));
    this.postRecv(id.qp as QueuePair, type === "UD" ? 64 + GRH_BYTES : 64);
    id.accept();
  }

  private complete(wc: WorkCompletion): void {
    if (wc.status !== WC_STATUS.SUCCESS) this.log.push(`flushed ${wc.status}`);
    else if (wc.opcode === WC_OPCODE.RECV) {
      const from = 32_768 + (wc.sourceQpn === 0 ? 0 : GRH_BYTES);
      const to = 32_768 + wc.byteLength;
      this.log.push(`"${String.fromCharCode(...this.bytes.subarray(from, to))}"`);
    } else this.log.push("sent");
  }

  private setEntry(sge: ScatterGatherEntry, offset: number, length: number): void {
    sge.address = this.region.address + offset;
    sge.length = length;
    sge.lkey = this.region.lkey;
  }
}

interface Stage {
  readonly world: SimWorld;
  readonly a: App;
  readonly b: App;
  readonly addressB: IpAddress;
}

function stage(family: 4 | 6, faults: Partial<PathFaults> = {}, tuning: Tuning = {}): Stage {
  const world = new SimWorld({ seed: 42, faults });
  const [textA, textB] = family === 4 ? ["192.0.2.1", "192.0.2.2"] : ["2001:db8::1", "2001:db8::2"];
  const [addressA, addressB] = [IpAddress.parse(textA), IpAddress.parse(textB)];
  const other = IpAddress.parse(family === 4 ? "2001:db8::b" : "192.0.2.11");
  const a = new App(world.addHost("a", { addresses: [addressA], mtu: 1500 }), tuning);
  // The second host's port of this family is not its first.
  const b = new App(world.addHost("b", { addresses: [other, addressB], mtu: 1500 }), tuning);
  b.channel.listen({ address: null, port: PORT });
  return { world, a, b, addressB };
}

/** Loses the first packet that carries this CM message. */
function loseFirst(world: SimWorld, attribute: number): () => number {
  let lost = 0;
  world.network.gate = (_source, _flow, bytes, offset, length) => {
    const isIt =
      length === 280 && bytes[offset] === 0x64 && bytes[offset + ATTRIBUTE_AT] === attribute;
    if (isIt && lost++ === 0) return false;
    return true;
  };
  return () => lost;
}

describe.each([4, 6] as const)("over IPv%d", (family) => {
  it("connect, send both ways, disconnect, nothing left", () => {
    const { world, a, b, addressB } = stage(family);
    const id = a.connect(addressB);
    world.run(1_000 * MS, () => b.log.includes("ESTABLISHED"));
    expect(b.ids[0]?.devicePort).toBe(1);
    a.send(id.qp as QueuePair, "ping");
    b.send(b.ids[0]?.qp as QueuePair, "pong");
    world.run(100 * MS, () => a.log.length >= 3 && b.log.length >= 4);
    expect(a.log.sort()).toEqual(['"pong"', "ESTABLISHED", "sent"]);
    expect(b.log.sort()).toEqual(['"ping"', "CONNECT_REQUEST", "ESTABLISHED", "sent"]);
    id.disconnect();
    a.host.isActive = true;
    world.run(10_000 * MS);
    expect(a.log.slice(3)).toEqual(["DISCONNECTED", "TIMEWAIT_EXIT"]);
    expect(b.log.slice(4)).toEqual(["DISCONNECTED", "TIMEWAIT_EXIT"]);
    for (const app of [a, b]) app.cm.close();
    world.run(60_000 * MS);
    expect([a.cm.liveCount, b.cm.liveCount]).toEqual([0, 0]);
    for (const app of [a, b]) app.context.close();
    expect(a.context.handleCount).toBe(0);
  });
});

describe("over a network that loses", () => {
  it.each(["REQ", "REP", "RTU", "DREQ", "DREP"] as const)(
    "the first %s lost → as if not",
    (kind) => {
      const { world, a, b, addressB } = stage(4);
      const lost = loseFirst(world, CM_ATTRIBUTE[kind]);
      const id = a.connect(addressB);
      expect(world.run(700 * MS, () => b.log.includes("ESTABLISHED"))).toBe(true);
      id.disconnect();
      a.host.isActive = true;
      expect(world.run(700 * MS, () => a.log.includes("DISCONNECTED"))).toBe(true);
      expect(lost()).toBeGreaterThan(1);
      expect(a.log.filter((line) => line.length > 10)).toEqual(["ESTABLISHED", "DISCONNECTED"]);
    },
  );

  it("every RTU lost, but data comes → ESTABLISHED by the data, at once", () => {
    const { world, a, b, addressB } = stage(4);
    world.network.gate = (_source, _flow, bytes, offset) =>
      bytes[offset] !== 0x64 || bytes[offset + ATTRIBUTE_AT] !== CM_ATTRIBUTE.RTU;
    const id = a.connect(addressB);
    world.run(100 * MS, () => a.log.includes("ESTABLISHED"));
    expect(b.log).toEqual(["CONNECT_REQUEST"]);
    a.send(id.qp as QueuePair, "ping");
    world.run(50 * MS, () => b.log.length === 3);
    expect(b.log).toEqual(["CONNECT_REQUEST", "ESTABLISHED", '"ping"']);
  });

  it("20 % loss, duplication and reordering, 40 connections → all come up and go down", () => {
    const faults = { lossRate: 0.2, duplicateRate: 0.2, reorderRate: 0.2 };
    // A goodbye is given up after five seconds, of which one in a thousand would be lost here.
    const { world, a, b, addressB } = stage(4, faults, { disconnectTimeoutNs: 40_000 * MS });
    const ids = Array.from({ length: 40 }, () => a.connect(addressB));
    const isUp = (app: App) => app.log.filter((line) => line === "ESTABLISHED").length === 40;
    expect(world.run(20_000 * MS, () => isUp(a) && isUp(b))).toBe(true);
    for (const id of ids) id.destroy();
    a.host.isActive = true;
    world.run(60_000 * MS);
    expect(b.log.filter((line) => line === "DISCONNECTED").length).toBe(40);
    expect(a.cm.liveCount).toBe(0);
  });
});

describe("others", () => {
  it("nobody there → UNREACHABLE after the time that was given", () => {
    const { world, a } = stage(4);
    a.connect(IpAddress.parse("192.0.2.99"));
    world.run(4_900 * MS);
    expect(a.log).toEqual([]);
    world.run(200 * MS);
    expect(a.log[0]).toBe("UNREACHABLE");
  });

  it("nobody listens → REJECTED 8 at once", () => {
    const { world, a, addressB } = stage(4);
    a.connect(addressB, 5);
    world.run(10 * MS);
    expect([a.lastEvent?.type, a.lastEvent?.status]).toEqual(["REJECTED", 8]);
  });

  it("a server that is killed and comes back → the stale connection ends, a new one works", () => {
    const { world, a, b, addressB } = stage(4);
    a.connect(addressB);
    world.run(100 * MS, () => b.log.includes("ESTABLISHED"));
    world.kill(b.host);
    world.revive(b.host);
    const again = new App(b.host);
    again.channel.listen({ address: null, port: PORT });
    a.connect(addressB);
    world.run(200 * MS, () => again.log.includes("ESTABLISHED"));
    expect(again.log).toEqual(["CONNECT_REQUEST", "ESTABLISHED"]);
    // The old one is answered with a DREP, since nobody knows it.
    a.ids[0]?.disconnect();
    a.host.isActive = true;
    world.run(1_000 * MS);
    expect(a.log).toContain("DISCONNECTED");
  });

  it("a connection to oneself → works", () => {
    const { world, a } = stage(4);
    a.channel.listen({ address: null, port: PORT });
    const id = a.connect(IpAddress.parse("192.0.2.1"));
    world.run(100 * MS, () => a.log.length === 3);
    a.send(id.qp as QueuePair, "self");
    world.run(100 * MS, () => a.log.length === 5);
    expect(a.log.sort()).toEqual([
      '"self"',
      "CONNECT_REQUEST",
      "ESTABLISHED",
      "ESTABLISHED",
      "sent",
    ]);
  });

  it("a UDP port → SIDR gives queue pair and Q_Key, a datagram arrives", () => {
    const { world, a, b, addressB } = stage(6);
    b.channel.listen({ address: addressB, port: PORT, portSpace: "UDP" });
    const id = a.channel.createId("UDP");
    id.resolve({ source: IpAddress.parse("2001:db8::1"), destination: addressB, port: PORT });
    const qp = a.createQp("UD");
    id.bindQp(qp);
    id.connect();
    a.host.isActive = true;
    world.run(100 * MS, () => a.log.length === 1);
    const { remoteQpn, remoteQkey } = a.lastEvent as CmEvent;
    const destination = a.pd.createAh({ port: 0, destination: addressB });
    a.send(qp, "datagram", { destination, remoteQpn, remoteQkey });
    world.run(100 * MS, () => b.log.length === 2);
    expect(b.log).toEqual(["CONNECT_REQUEST", '"datagram"']);
  });

  it("two connection managers on one device → EBUSY for the second", () => {
    const { a } = stage(4);
    const options = { context: a.context, memory: new HeapMemorySource(), random: a.host.random };
    const before = a.context.handleCount;
    expect(() => new ConnectionManager(options)).toThrow(/port 0 has its GSI/);
    expect(a.context.handleCount).toBe(before);
    a.cm.release();
    a.cm.release();
    new ConnectionManager(options).release();
    expect(a.context.handleCount).toBe(before - 4);
  });
});

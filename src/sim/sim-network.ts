// SPDX-License-Identifier: MIT
// The simulated network: hosts' links joined by one path per ordered pair of their addresses, which
// are called "name" and, from a link's second address on, "name#1" and so on. What crosses it are
// UDP payloads; of IP only the addresses and the traffic class exist. The IP identification
// does not travel: as with real sockets the receiver can't see it (rocev2 facts, section 7).
// Not modelled: routers, fragmentation (a packet above the link MTU is lost), UDP checksums.

import { FarpageError, type IpAddress, type Random, randomBelow } from "../base/index.js";
import type { TxFlow } from "../transport/index.js";
import { ROCE_PORT } from "../wire/index.js";
import { happens } from "./chance.js";
import type { SimClock } from "./sim-clock.js";
import { SimLink, type SimLinkOptions } from "./sim-link.js";
import { SimPacket } from "./sim-packet.js";

/**
 * What one direction between two hosts does to packets. Rates are probabilities 0 .. 1 per packet.
 */
export interface PathFaults {
  /** Time on the way. */
  readonly latencyNs: number;
  /** Uniform extra time 0 .. jitterNs; keeps the order of packets. */
  readonly jitterNs: number;
  readonly lossRate: number;
  /** Packets that are held back by up to `reorderNs` while later ones overtake them. */
  readonly reorderRate: number;
  readonly reorderNs: number;
  /** Packets that arrive twice, the copy up to `reorderNs` later. */
  readonly duplicateRate: number;
  /** Packets with flipped bits or a garbled byte run. */
  readonly corruptRate: number;
  /** Packets cut short. */
  readonly truncateRate: number;
  /** Rate of the wire; `Infinity` for none. */
  readonly bitsPerSecond: number;
  /** Bytes that wait for the wire before packets are dropped. */
  readonly queueBytes: number;
}

/** A quiet network: 10 us, nothing lost. */
export const QUIET_PATH: PathFaults = {
  latencyNs: 10_000,
  jitterNs: 0,
  lossRate: 0,
  reorderRate: 0,
  reorderNs: 100_000,
  duplicateRate: 0,
  corruptRate: 0,
  truncateRate: 0,
  bitsPerSecond: Number.POSITIVE_INFINITY,
  queueBytes: Number.POSITIVE_INFINITY,
};

/** What happened to packets, over all paths. */
export interface NetworkCounters {
  sent: number;
  delivered: number;
  lost: number;
  reordered: number;
  duplicated: number;
  corrupted: number;
  truncated: number;
  partitioned: number;
  /** Dropped because the wire's queue was full. */
  queueDrops: number;
  /** Dropped because the receiver's socket buffer was full. */
  receiveDrops: number;
  /** To nobody. */
  unroutable: number;
  /** Longer than the link MTU allows. */
  tooLong: number;
}

/**
 * Sees every packet as it is sent, before anything happens to it. Bytes are borrowed for the call.
 */
export type PacketObserver = (
  source: SimLink,
  flow: TxFlow,
  bytes: Uint8Array,
  offset: number,
  length: number,
  segmentIndex: number,
) => void;

/** Says whether a packet may travel. Bytes are borrowed for the call. */
export type PacketGate = (
  source: SimLink,
  flow: TxFlow,
  bytes: Uint8Array,
  offset: number,
  length: number,
) => boolean;

/**
 * Says whether a corrupted packet may travel. The check of a receiver that can't see the IP
 * identification lets one corruption in 2^16 through (rocev2 facts, section 7.3); a test that
 * compares bytes refuses those here, since no receiver could tell. `original` is the packet as
 * sent, the first `length` bytes of `corrupted` what would arrive.
 */
export type CorruptionFilter = (
  source: IpAddress,
  sourcePort: number,
  destination: IpAddress,
  original: Uint8Array,
  corrupted: Uint8Array,
  length: number,
) => boolean;

interface Path {
  readonly random: Random;
  faults: PathFaults;
  isCut: boolean;
  /** When the wire is free again. */
  wireFreeNs: number;
  /** Arrival of the last packet that keeps the order. */
  lastArrivalNs: number;
}

/** What a link's address is called where paths are named. */
export function portName(name: string, port: number): string {
  return port === 0 ? name : `${name}#${port}`;
}

/** A fault-ridden network between any number of links. */
export class SimNetwork {
  readonly clock: SimClock;
  readonly counters: NetworkCounters = {
    sent: 0,
    delivered: 0,
    lost: 0,
    reordered: 0,
    duplicated: 0,
    corrupted: 0,
    truncated: 0,
    partitioned: 0,
    queueDrops: 0,
    receiveDrops: 0,
    unroutable: 0,
    tooLong: 0,
  };
  /** See every packet that is sent. */
  readonly observers: PacketObserver[] = [];
  /** Decides whether a packet goes on its way; for scripts that lose one certain packet. */
  gate: PacketGate | null = null;
  corruptionFilter: CorruptionFilter | null = null;

  private readonly random: Random;
  private readonly links = new Map<string, SimLink>();
  private readonly owners = new Map<string, SimLink>();
  private readonly paths = new Map<string, Path>();
  private readonly freePackets: SimPacket[] = [];
  private defaultFaults: PathFaults;

  /** @param faults what every path does until `setFaults` says otherwise. */
  constructor(clock: SimClock, random: Random, faults: Partial<PathFaults> = {}) {
    this.clock = clock;
    this.random = random.fork("network");
    this.defaultFaults = { ...QUIET_PATH, ...faults };
  }

  /**
   * Gives `name` a link with the addresses of `options`; its old one, if any, is taken off the
   * network (a process that died) and packets under way to it are lost.
   * @throws FarpageError EADDRINUSE when another link has one of the addresses.
   */
  attach(name: string, options: SimLinkOptions): SimLink {
    this.detach(name);
    for (const address of options.addresses) {
      const key = address.toString();
      const owner = this.owners.get(key);
      if (owner !== undefined) {
        throw new FarpageError("EADDRINUSE", `${key} belongs to simulated host "${owner.name}"`);
      }
    }
    const random = this.random.fork(`link ${name}`);
    const link = new SimLink(this, name, options, random);
    this.links.set(name, link);
    for (const address of options.addresses) this.owners.set(address.toString(), link);
    return link;
  }

  /** Takes a link off the network: what is under way to it is lost. */
  detach(name: string): void {
    const link = this.links.get(name);
    if (link === undefined) return;
    this.links.delete(name);
    for (const address of link.addresses) this.owners.delete(address.toString());
    link.discardArrivals();
  }

  /** Changes one direction; `null` for all paths, those that exist and those to come. */
  setFaults(names: { source: string; target: string } | null, faults: Partial<PathFaults>): void {
    if (names === null) {
      this.defaultFaults = { ...this.defaultFaults, ...faults };
      for (const path of this.paths.values()) path.faults = { ...path.faults, ...faults };
      return;
    }
    const path = this.path(names.source, names.target);
    path.faults = { ...path.faults, ...faults };
  }

  /** Cuts one direction: packets sent from now on are lost. */
  partition(source: string, target: string): void {
    this.path(source, target).isCut = true;
  }

  /** Ends every partition, and every other fault where `faults` says so. */
  heal(faults?: Partial<PathFaults>): void {
    for (const path of this.paths.values()) path.isCut = false;
    if (faults !== undefined) this.setFaults(null, faults);
  }

  /** Puts one packet on its way; called by links. */
  transmit(
    source: SimLink,
    flow: TxFlow,
    bytes: Uint8Array,
    offset: number,
    length: number,
    segmentIndex: number,
  ): void {
    this.counters.sent++;
    for (const observe of this.observers) {
      observe(source, flow, bytes, offset, length, segmentIndex);
    }
    if (this.gate !== null && !this.gate(source, flow, bytes, offset, length)) {
      this.counters.lost++;
      return;
    }
    const target = this.owners.get(flow.destination.toString());
    if (target === undefined) {
      this.counters.unroutable++;
      return;
    }
    const path = this.path(
      portName(source.name, flow.port),
      portName(target.name, target.portOf(flow.destination)),
    );
    if (path.isCut) {
      this.counters.partitioned++;
      return;
    }
    const arrivalNs = this.arrivalOf(path, length);
    if (arrivalNs < 0) return;
    const packet = this.copyPacket(source, target, flow, bytes, offset, length);
    this.damage(path, packet, flow.destination);
    target.arrive(arrivalNs, packet);
    if (happens(path.random, path.faults.duplicateRate)) {
      this.counters.duplicated++;
      const copy = this.copyPacket(source, target, flow, bytes, offset, length);
      target.arrive(arrivalNs + randomBelow(path.random, path.faults.reorderNs + 1), copy);
    }
  }

  /**
   * Delivers a forged packet: it arrives at once, whatever the path does, as if sent by `source`.
   * @param port the receiving port of `target`.
   */
  inject(
    target: SimLink,
    port: number,
    source: IpAddress,
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): void {
    const packet = this.freePackets.pop() ?? new SimPacket();
    packet.fill(bytes, offset, length);
    packet.source = source;
    packet.port = port;
    packet.sourcePort = ROCE_PORT;
    packet.trafficClass = 0;
    target.arrive(this.clock.nowNs, packet);
  }

  /** Gives a packet's memory back; called by links. */
  recycle(packet: SimPacket): void {
    this.freePackets.push(packet);
  }

  /** Decides loss, queueing, delay and order of a packet. @returns its arrival, or -1 when lost. */
  private arrivalOf(path: Path, length: number): number {
    const { random, faults } = path;
    const nowNs = this.clock.nowNs;
    if (happens(random, faults.lossRate)) {
      this.counters.lost++;
      return -1;
    }
    const startNs = Math.max(nowNs, path.wireFreeNs);
    if (Number.isFinite(faults.bitsPerSecond)) {
      const waitingBytes = ((startNs - nowNs) * faults.bitsPerSecond) / 8e9;
      if (waitingBytes + length > faults.queueBytes) {
        this.counters.queueDrops++;
        return -1;
      }
      path.wireFreeNs = startNs + Math.ceil((length * 8e9) / faults.bitsPerSecond);
    } else {
      path.wireFreeNs = startNs;
    }
    let arrivalNs = path.wireFreeNs + faults.latencyNs;
    if (faults.jitterNs > 0) arrivalNs += randomBelow(random, faults.jitterNs + 1);
    arrivalNs = Math.max(arrivalNs, path.lastArrivalNs);
    if (happens(random, faults.reorderRate)) {
      this.counters.reordered++;
      return arrivalNs + 1 + randomBelow(random, faults.reorderNs + 1);
    }
    path.lastArrivalNs = arrivalNs;
    return arrivalNs;
  }

  /** Flips bits or cuts the packet short, as the path's rates say. */
  private damage(path: Path, packet: SimPacket, destination: IpAddress): void {
    const { random, faults } = path;
    const isCut = happens(random, faults.truncateRate) && packet.length > 1;
    const isGarbled = happens(random, faults.corruptRate);
    if (!isCut && !isGarbled) return;
    const original = packet.bytes.slice(0, packet.length);
    if (isCut) packet.length = 1 + randomBelow(random, packet.length - 1);
    if (isGarbled) garble(random, packet.bytes, packet.length);
    const { bytes, length, sourcePort } = packet;
    const source = packet.source as IpAddress;
    const filter = this.corruptionFilter;
    if (filter !== null && !filter(source, sourcePort, destination, original, bytes, length)) {
      packet.fill(original, 0, original.length);
      return;
    }
    if (isCut) this.counters.truncated++;
    if (isGarbled) this.counters.corrupted++;
  }

  private copyPacket(
    source: SimLink,
    target: SimLink,
    flow: TxFlow,
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): SimPacket {
    const packet = this.freePackets.pop() ?? new SimPacket();
    packet.fill(bytes, offset, length);
    packet.source = source.addresses[flow.port] as IpAddress;
    packet.port = target.portOf(flow.destination);
    packet.sourcePort = source.sourcePort;
    packet.trafficClass = flow.trafficClass;
    return packet;
  }

  private path(source: string, target: string): Path {
    const key = `${source}>${target}`;
    const known = this.paths.get(key);
    if (known !== undefined) return known;
    const path: Path = {
      random: this.random.fork(`path ${key}`),
      faults: this.defaultFaults,
      isCut: false,
      wireFreeNs: 0,
      lastArrivalNs: 0,
    };
    this.paths.set(key, path);
    return path;
  }
}

/** Flips one to three bits, or overwrites a run of up to 16 bytes. */
function garble(random: Random, bytes: Uint8Array, length: number): void {
  if (randomBelow(random, 4) > 0) {
    const flips = 1 + randomBelow(random, 3);
    for (let i = 0; i < flips; i++) {
      const bit = randomBelow(random, length * 8);
      bytes[bit >> 3] = (bytes[bit >> 3] as number) ^ (1 << (bit & 7));
    }
    return;
  }
  const start = randomBelow(random, length);
  const end = Math.min(length, start + 1 + randomBelow(random, 16));
  for (let i = start; i < end; i++) bytes[i] = random.nextU32() & 0xff;
}

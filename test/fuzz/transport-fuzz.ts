// SPDX-License-Identifier: MIT
// Fuzzes the transport: two devices with busy queue pairs, and somebody on the wire who answers
// every packet with mutated copies of it and of earlier ones, or puts one in its place.

import { assert, IpAddress } from "../../src/base/index.js";
import { type SimLink, SimWorld } from "../../src/sim/index.js";
import {
  type DeviceCounters,
  DROP_REASON_NAMES,
  type DropReasonName,
  type TxFlow,
} from "../../src/transport/index.js";
import type { PathMtu } from "../../src/verbs/index.js";
import { containsSecret } from "./guarded-memory.js";
import { Mutator } from "./mutate.js";
import { PACKET_BYTES_MAX, PacketMutator } from "./roce-mutate.js";
import { VerbsPeer } from "./verbs-peer.js";

const RECORD_COUNT = 128;
const SLICE_NS = 200_000;
/** Runs of silence after which a broken queue pair must have flushed everything. */
const FLUSH_NS = 100_000;

export interface TransportFuzzReport {
  mutated: number;
  readonly completions: number;
  readonly succeeded: number;
  readonly reconnects: number;
  /** Marks of coverage: what both devices have dropped, by reason, and refused with a NAK. */
  readonly drops: Readonly<Record<DropReasonName, number>>;
  readonly naks: readonly [invalidRequest: number, access: number, sequence: number, rnr: number];
  readonly traceHash: string;
}

export class TransportFuzzer {
  mutated = 0;
  reconnects = 0;
  readonly world: SimWorld;
  readonly peers: readonly [VerbsPeer, VerbsPeer];
  private readonly mutator: Mutator;
  private readonly packets: PacketMutator;
  private readonly recorded: Uint8Array[] = [];
  private readonly qpCount: number;
  private readonly mtu: PathMtu;
  private readonly replaceOneIn: number;
  /** An address that no queue pair is connected to. */
  private readonly stranger: IpAddress;
  private isAttacking = true;

  constructor(seed: number) {
    this.world = new SimWorld({ seed, checkEvery: 8, faults: { jitterNs: 5_000 } });
    this.mutator = new Mutator(this.world.random.fork("mutator"));
    this.packets = new PacketMutator(this.mutator);
    const base = seed % 2 === 0 ? "192.0.2." : "2001:db8::";
    this.mtu = this.mutator.pick<PathMtu>([256, 512, 1024, 4096]);
    this.qpCount = this.mutator.pick([1, 3]);
    this.stranger = IpAddress.parse(`${base}99`);
    this.replaceOneIn = this.mutator.pick([4, 50]);
    const [left, right] = ["left", "right"].map((name, i) => {
      const addresses = [IpAddress.parse(`${base}${i + 1}`)];
      return new VerbsPeer(this.world.addHost(name, { addresses, mtu: 4300 }), this.qpCount);
    }) as [VerbsPeer, VerbsPeer];
    left.other = right;
    right.other = left;
    this.peers = [left, right];
    for (const peer of this.peers) peer.startDatagrams();
    for (let index = 0; index < this.qpCount; index++) this.connect(index);
    this.world.network.gate = (source, flow, bytes, offset, length) =>
      this.onPacket(source, flow, bytes, offset, length);
  }

  /** Runs until `count` packets have been mutated, then lets the queue pairs recover and work. */
  run(count: number): TransportFuzzReport {
    while (this.mutated < count) {
      this.runSlice();
    }
    this.isAttacking = false;
    const before = this.succeeded;
    for (let slices = 0; this.succeeded < before + 50; slices++) {
      assert(slices < 5_000, "queue pairs work again when nobody attacks");
      this.runSlice();
    }
    return {
      mutated: this.mutated,
      completions: this.peers[0].completions + this.peers[1].completions,
      succeeded: this.succeeded,
      reconnects: this.reconnects,
      drops: this.drops,
      naks: [
        this.sum(({ invalidRequestNaksSent }) => invalidRequestNaksSent),
        this.sum(({ accessNaksSent }) => accessNaksSent),
        this.sum(({ sequenceNaksSent }) => sequenceNaksSent),
        this.sum(({ rnrNaksSent }) => rnrNaksSent),
      ],
      traceHash: this.world.traceHash,
    };
  }

  private get drops(): Record<DropReasonName, number> {
    const entries = DROP_REASON_NAMES.map((name, reason) => {
      return [name, this.sum(({ drops }) => drops[reason] as number)] as const;
    });
    return Object.fromEntries(entries) as Record<DropReasonName, number>;
  }

  private sum(counter: (counters: DeviceCounters) => number): number {
    return this.peers.reduce((sum, peer) => sum + counter(peer.context.device.counters), 0);
  }

  private get succeeded(): number {
    return this.peers[0].succeeded + this.peers[1].succeeded;
  }

  private runSlice(): void {
    const { world } = this;
    const isStarving = this.isAttacking && this.mutator.oneIn(3);
    for (const peer of this.peers) {
      peer.isStarving = isStarving;
      peer.demand.unsettle((count) => this.mutator.below(count));
    }
    // Posting is no packet: the hosts must be woken for it.
    world.after(1, "post", () => undefined);
    world.run(SLICE_NS);
    for (const peer of this.peers) peer.checkMemory();
    for (let index = 0; index < this.qpCount; index++) {
      if (!this.peers.some((peer) => peer.isBroken(index))) continue;
      world.run(FLUSH_NS);
      for (const peer of this.peers) {
        peer.drain();
        if (peer.isBroken(index)) peer.checkFlushed(index);
      }
      this.connect(index);
    }
  }

  private connect(index: number): void {
    this.reconnects++;
    const [left, right] = this.peers;
    const leftPsn = this.mutator.number(24);
    const rightPsn = this.mutator.number(24);
    left.connect(index, { mtu: this.mtu, sqPsn: leftPsn, rqPsn: rightPsn });
    right.connect(index, { mtu: this.mtu, sqPsn: rightPsn, rqPsn: leftPsn });
  }

  /** Somebody on the wire. @returns whether the packet itself goes on. */
  private onPacket(
    source: SimLink,
    flow: TxFlow,
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): boolean {
    if (containsSecret(bytes, offset, length)) throw new Error("a secret was sent");
    if (!this.isAttacking) return true;
    const { mutator } = this;
    const packet = bytes.slice(offset, offset + length);
    if (this.recorded.length < RECORD_COUNT) this.recorded.push(packet);
    else this.recorded[mutator.below(RECORD_COUNT)] = packet;
    const isReplaced = mutator.oneIn(this.replaceOneIn);
    const count = (isReplaced ? 1 : 0) + mutator.below(3);
    for (let i = 0; i < count; i++) {
      const model = mutator.oneIn(2) ? packet : mutator.pick(this.recorded);
      this.inject(source, flow.destination, model);
    }
    return !isReplaced;
  }

  /** Sends a mutated `model` on the packet's way, or now and then back to its sender. */
  private inject(source: SimLink, destination: IpAddress, model: Uint8Array): void {
    const { mutator, peers } = this;
    const isBack = mutator.oneIn(8);
    let from = isBack ? destination : (source.addresses[0] as IpAddress);
    if (mutator.oneIn(32)) from = this.stranger;
    const to = isBack ? (source.addresses[0] as IpAddress) : destination;
    const target = peers.find(({ host }) => host.simLink.addresses[0]?.equals(to));
    assert(target !== undefined, "the packet goes to one of the two");
    const other = mutator.pick(this.recorded);
    const changed = this.packets.mutate(model, other, from, to);
    assert(changed.length <= PACKET_BYTES_MAX, "no longer than the link takes");
    if (changed.length === 0) return;
    this.mutated++;
    this.world.network.inject(target.host.simLink, 0, from, changed, 0, changed.length);
  }
}

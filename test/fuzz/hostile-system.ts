// SPDX-License-Identifier: MIT
// Fuzzes a whole RNBD server, and a client, from the wire: somebody between the victim and the
// server changes what they say to each other (CM messages, RTRS and RNBD messages inside chunks,
// anything), with right ICRCs. A bystander has a session and a volume of its own and must not
// notice.

import { assert, IpAddress, type Memory } from "../../src/base/index.js";
import { FileDevice } from "../../src/block/index.js";
import { RNBD_ACCESS, RnbdClient, RnbdServer } from "../../src/rnbd/index.js";
import { RtrsServer } from "../../src/rtrs/index.js";
import { SimDisk, type SimHost, type SimLink, SimPlatter, SimWorld } from "../../src/sim/index.js";
import type { TxFlow } from "../../src/transport/index.js";
import {
  BTH_BYTES,
  bthDestinationQpn,
  ICRC_BYTES,
  OPCODE_FLAG,
  OPCODE_FLAGS,
  OPCODE_HEADER_BYTES,
  QPN_GSI,
} from "../../src/wire/index.js";
import { DiskWorkload } from "../sim/disk-workload.js";
import { buildStack, type SimStack } from "../sim/stack.js";
import { containsSecret, GuardedMemorySource } from "./guarded-memory.js";
import { type Field, Mutator } from "./mutate.js";
import { PACKET_BYTES_MAX, PacketMutator } from "./roce-mutate.js";

const MILLISECOND = 1_000_000;
const SECOND = 1_000 * MILLISECOND;
const QUEUE_DEPTH = 8;
const CHUNK_BYTES = 16_384;
const SESSION_COUNT_MAX = 4;
const CONNECTION_COUNT_MAX = 8;
const VOLUME_BYTES = 256 * 512;
const LENGTH_MAX = 4096;
const DEPTH = 6;
const RECORD_COUNT = 64;
const HEARTBEAT_NS = 100 * MILLISECOND;
/** Chunks of every session, and room for receive buffers, message slots and CM buffers. */
const SERVER_BYTES_MAX = SESSION_COUNT_MAX * QUEUE_DEPTH * (CHUNK_BYTES + 8192) + (8 << 20);

/** RTRS headers of requests: WRITE, READ without descriptor, READ with one. */
const HEADER_BYTES: readonly number[] = [4, 8, 24];
/** Fields of an RNBD I/O message and of the RTRS header behind it, from the message's start. */
const IO_FIELDS: readonly Field[] = [
  { name: "type", offset: 0, bytes: 2, isLittle: true },
  { name: "device", offset: 4, bytes: 4, isLittle: true },
  { name: "sector", offset: 8, bytes: 8, isLittle: true },
  { name: "operation and flags", offset: 16, bytes: 4, isLittle: true },
  { name: "bytes", offset: 20, bytes: 4, isLittle: true },
  { name: "priority", offset: 24, bytes: 2, isLittle: true },
];
const RTRS_FIELDS: readonly Field[] = [
  { name: "RTRS type", offset: 32, bytes: 2, isLittle: true },
  { name: "user length", offset: 34, bytes: 2, isLittle: true },
  { name: "flags", offset: 36, bytes: 2, isLittle: true },
  { name: "segments", offset: 38, bytes: 2, isLittle: true },
  { name: "address", offset: 40, bytes: 8, isLittle: true },
  { name: "key", offset: 48, bytes: 4, isLittle: true },
  { name: "length", offset: 52, bytes: 4, isLittle: true },
];

/** A client host with one volume of the server. */
interface Party {
  readonly name: string;
  readonly host: SimHost;
  readonly volume: string;
  readonly isVictim: boolean;
  stack: SimStack;
  client: RnbdClient;
  workload: DiskWorkload | null;
  /** Incarnation of the victim's process. */
  generation: number;
  /** Refused or failed for good: it will be started anew. */
  hasFailed: boolean;
}

export interface HostileReport {
  readonly mutated: number;
  /** Requests of the bystander that were answered, and of the victim. */
  readonly bystander: number;
  readonly victim: number;
  readonly restarts: number;
  readonly traceHash: string;
}

export class HostileSystem {
  mutated = 0;
  restarts = 0;
  private victimRequests = 0;
  /** Of its present workload: how many are counted; and when its process was started. */
  private victimCounted = 0;
  private victimSinceNs = 0;
  private readonly world: SimWorld;
  private readonly mutator: Mutator;
  private readonly packets: PacketMutator;
  private readonly server: SimHost;
  private readonly serverMemory = new GuardedMemorySource(0x7000_0000_0000);
  /** By host: those of processes that are gone are gone. */
  private readonly memories = new Map<SimHost, GuardedMemorySource>();
  private readonly victim: Party;
  private readonly bystander: Party;
  private readonly recorded: Uint8Array[] = [];
  private readonly alwaysInvalidate: boolean;
  private readonly rateOneIn: number;
  private isAttacking = false;

  constructor(seed: number) {
    this.world = new SimWorld({ seed, checkEvery: 64, faults: { jitterNs: 5_000 } });
    this.mutator = new Mutator(this.world.random.fork("mutator"));
    this.packets = new PacketMutator(this.mutator);
    this.alwaysInvalidate = !this.mutator.oneIn(3);
    this.rateOneIn = this.mutator.pick([3, 10, 40]);
    const base = seed % 2 === 0 ? "192.0.2." : "2001:db8::";
    const address = (i: number) => [IpAddress.parse(`${base}${i}`)];
    this.server = this.world.addHost("server", { addresses: address(1), mtu: 1500 });
    this.startServer();
    this.victim = this.addParty("victim", address(2), true);
    this.bystander = this.addParty("bystander", address(3), false);
    this.world.network.gate = (source, flow, bytes, offset, length) =>
      this.onPacket(source, flow, bytes, offset, length);
    this.demand("both open their volumes on a sound network", () =>
      this.parties.every(({ workload }) => workload !== null),
    );
  }

  /** Runs until `count` messages have been changed, then demands that everybody is well. */
  run(count: number): HostileReport {
    this.isAttacking = true;
    for (let slices = 0; this.mutated < count; slices++) {
      assert(slices < 100 * count, "there is something to change");
      this.world.run(MILLISECOND);
      if (slices % 64 === 0) this.checkMemory();
      this.tendVictim();
    }
    this.isAttacking = false;
    this.restartVictim();
    const before = this.victimRequests;
    for (let slices = 0; this.victimRequests <= before + 50; slices++) {
      assert(slices < 6_000, "the victim is served within a minute when nobody attacks");
      this.world.run(10 * MILLISECOND);
      this.countVictim();
      // Its own last incarnation may still hold the volume (EPERM): it tries again.
      if (this.victim.hasFailed) this.restartVictim();
    }
    this.checkMemory();
    const { workload } = this.bystander;
    assert(workload !== null, "the bystander has its volume");
    workload.isPaused = true;
    this.demand("the bystander's requests are answered", () => workload.inflight === 0);
    return {
      mutated: this.mutated,
      bystander: workload.completedCount,
      victim: this.victimRequests,
      restarts: this.restarts,
      traceHash: this.world.traceHash,
    };
  }

  private get parties(): readonly Party[] {
    return [this.victim, this.bystander];
  }

  private demand(what: string, condition: () => boolean): void {
    if (!this.world.run(120 * SECOND, condition)) {
      throw new Error(`seed ${this.world.seed}: no progress: ${what}`);
    }
    this.checkMemory();
  }

  private checkMemory(): void {
    this.serverMemory.check();
    for (const memory of this.memories.values()) memory.check();
    const { usedBytes } = this.serverMemory;
    assert(usedBytes <= SERVER_BYTES_MAX, `the server's memory stays bounded, not ${usedBytes}`);
  }

  private startServer(): void {
    const { world, server } = this;
    const stack = buildStack(server, 0, this.serverMemory);
    const rnbd = new RnbdServer();
    for (const name of ["victim", "bystander"]) {
      const random = world.random.fork(`disk ${name}`);
      const platter = new SimPlatter(VOLUME_BYTES, random.fork("platter"));
      const disk = new SimDisk(world.clock, random, platter, { path: name });
      server.disks.push(disk);
      rnbd.addVolume(name, new FileDevice(disk, { name, memory: this.serverMemory }));
    }
    const rtrs = new RtrsServer(
      stack.environment,
      {
        queueDepth: QUEUE_DEPTH,
        chunkBytes: CHUNK_BYTES,
        alwaysInvalidate: this.alwaysInvalidate,
        sessionCountMax: SESSION_COUNT_MAX,
        connectionCountMax: CONNECTION_COUNT_MAX,
        connectTimeoutNs: SECOND,
        disconnectTimeoutNs: 50 * MILLISECOND,
        heartbeatIntervalNs: HEARTBEAT_NS,
      },
      rnbd,
    );
    server.machines.push(rtrs, rnbd);
  }

  private addParty(name: string, addresses: readonly IpAddress[], isVictim: boolean): Party {
    const host = this.world.addHost(name, { addresses, mtu: 1500 });
    const { stack, client } = this.startClient(host, name, 0);
    const party: Party = {
      name,
      host,
      volume: name,
      isVictim,
      stack,
      client,
      workload: null,
      generation: 0,
      hasFailed: false,
    };
    this.openVolume(party);
    return party;
  }

  private startClient(host: SimHost, name: string, generation: number) {
    const memory = new GuardedMemorySource();
    this.memories.set(host, memory);
    const stack = buildStack(host, generation, memory);
    const client = new RnbdClient(stack.environment, {
      sessionName: `${name}-${generation}`,
      paths: [
        {
          source: host.link.addresses[0] as IpAddress,
          destination: this.server.link.addresses[0] as IpAddress,
        },
      ],
      connectTimeoutNs: 200 * MILLISECOND,
      disconnectTimeoutNs: 50 * MILLISECOND,
      reconnectDelayNs: 5 * MILLISECOND,
      reconnectDelayNsMax: 50 * MILLISECOND,
      heartbeatIntervalNs: HEARTBEAT_NS,
    });
    host.machines.push(client);
    client.connect();
    return { stack, client };
  }

  private openVolume(party: Party): void {
    const { client, generation, isVictim } = party;
    client.onFailed = (error) => {
      if (!isVictim) throw error;
      if (party.generation === generation) party.hasFailed = true;
    };
    client.open(party.volume, RNBD_ACCESS.RW, (error, device) => {
      if (party.generation !== generation) return;
      if (device === null) {
        if (!isVictim) throw error;
        party.hasFailed = true;
        return;
      }
      const memory: Memory = party.stack.memory.allocate(DEPTH * LENGTH_MAX);
      client.registerMemory(memory);
      // What the server says of the size may be anything when the victim hears it.
      if (device.limits.sizeBytes !== VOLUME_BYTES) {
        party.hasFailed = true;
        return;
      }
      party.workload = new DiskWorkload(device, {
        random: party.host.random.fork(`workload ${generation}`),
        requestCount: Number.POSITIVE_INFINITY,
        depth: DEPTH,
        lengthMax: LENGTH_MAX,
        // The bystander only has to be there, at every moment.
        thinkNsMax: isVictim ? 200_000 : 50 * MILLISECOND,
        isLenient: isVictim,
        memory,
      });
      party.host.machines.splice(1, 0, party.workload);
    });
  }

  private countVictim(): void {
    const { workload } = this.victim;
    if (workload === null) return;
    this.victimRequests += workload.completedCount - this.victimCounted;
    this.victimCounted = workload.completedCount;
  }

  /** Starts the victim anew when its session has failed, or after some time. */
  private tendVictim(): void {
    this.countVictim();
    const ageNs = this.world.clock.nowNs - this.victimSinceNs;
    if (this.victim.hasFailed || ageNs > 2 * SECOND) this.restartVictim();
  }

  private restartVictim(): void {
    const { victim, world } = this;
    this.countVictim();
    this.victimCounted = 0;
    this.victimSinceNs = world.clock.nowNs;
    this.restarts++;
    world.kill(victim.host);
    world.revive(victim.host);
    victim.generation++;
    const { stack, client } = this.startClient(victim.host, victim.name, victim.generation);
    victim.stack = stack;
    victim.client = client;
    victim.workload = null;
    victim.hasFailed = false;
    this.openVolume(victim);
  }

  /** Somebody between the victim and the server. @returns whether the packet itself goes on. */
  private onPacket(
    source: SimLink,
    flow: TxFlow,
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): boolean {
    if (containsSecret(bytes, offset, length)) throw new Error("a secret was sent");
    const victim = this.victim.host.simLink;
    const isTheirs = source === victim || flow.destination.equals(victim.addresses[0] as IpAddress);
    if (!this.isAttacking || !isTheirs) return true;
    const { mutator } = this;
    const packet = bytes.slice(offset, offset + length);
    if (this.recorded.length < RECORD_COUNT) this.recorded.push(packet);
    else this.recorded[mutator.below(RECORD_COUNT)] = packet;
    if (!mutator.oneIn(this.rateOneIn)) return true;
    this.mutated++;
    const from = source.addresses[0] as IpAddress;
    const changed = this.change(packet, from, flow.destination);
    const target = source === victim ? this.server.simLink : victim;
    if (changed.length > 0) {
      this.world.network.inject(target, 0, from, changed, 0, changed.length);
    }
    // Now and then both arrive, the changed one first.
    return mutator.oneIn(4);
  }

  /** What to do to a packet depends on what is in it. */
  private change(packet: Uint8Array, from: IpAddress, to: IpAddress): Uint8Array {
    const { mutator, packets } = this;
    const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
    const flags = OPCODE_FLAGS[packet[0] as number] as number;
    const isMad = bthDestinationQpn(view, 0) === QPN_GSI;
    const other = mutator.pick(this.recorded);
    if (isMad || mutator.oneIn(4)) return packets.mutate(packet, other, from, to);
    const carriesMessage =
      (flags & (OPCODE_FLAG.SEND | OPCODE_FLAG.HAS_IMM)) !== 0 &&
      (flags & OPCODE_FLAG.HAS_PAYLOAD) !== 0;
    if (!carriesMessage) return packets.mutate(packet, other, from, to);
    return packets.sign(this.changeMessage(packet), from, to);
  }

  /** Changes the immediate, or the end of the payload: where RTRS and RNBD messages are. */
  private changeMessage(packet: Uint8Array): Uint8Array {
    const { mutator } = this;
    const changed = packet.slice(0, PACKET_BYTES_MAX);
    const start = OPCODE_HEADER_BYTES[packet[0] as number] as number;
    const end = packet.length - ICRC_BYTES;
    for (let n = 1 + mutator.below(3); n > 0; n--) {
      if (start > BTH_BYTES && mutator.oneIn(4)) {
        // The last extended header of an opcode with immediate is the immediate.
        mutator.editField(changed, [{ name: "immediate", offset: start - 4, bytes: 4 }]);
        continue;
      }
      if (mutator.oneIn(2)) {
        const io = end - mutator.pick(HEADER_BYTES) - 32;
        const fields = mutator.oneIn(4) ? RTRS_FIELDS : IO_FIELDS;
        const inside = fields.map((field) => ({ ...field, offset: io + field.offset }));
        if (io >= start) mutator.editField(changed, inside);
        continue;
      }
      const reach = Math.min(end - start, mutator.pick([8, 24, 64, 320]));
      if (reach < 1) continue;
      const bytes = mutator.pick([1, 2, 4, 8] as const);
      const at = end - 1 - mutator.below(reach);
      mutator.editField(changed, [{ name: "message", offset: Math.max(start, at - 7), bytes }]);
      if (mutator.oneIn(2)) changed[at] = mutator.number(8);
    }
    return changed;
  }
}

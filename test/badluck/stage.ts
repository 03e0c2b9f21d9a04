// SPDX-License-Identifier: MIT
// Two hosts with everything below RTRS on a simulated network that does to numbered packets what a
// misfortune says.

import { HeapMemorySource, IpAddress, type Machine, type Memory } from "../../src/base/index.js";
import { type SimHost, type SimLink, SimWorld } from "../../src/sim/index.js";
import type { TxFlow } from "../../src/transport/index.js";
import {
  aethSyndrome,
  BTH_BYTES,
  bthAckRequest,
  bthDestinationQpn,
  bthOpcode,
  bthPsn,
  decodeCmMad,
  OPCODE_HEADER_BYTES,
  RC,
  UD,
} from "../../src/wire/index.js";
import { icrcObserver } from "../sim/roce-checks.js";
import { buildStack, type SimStack } from "../sim/stack.js";
import { type Luck, NO_MISFORTUNE } from "./luck.js";

export const US = 1_000;
export const MS = 1_000 * US;
export const SECOND = 1_000 * MS;

/** Host 0 is the one that begins: requester, active side, client. */
export type Side = 0 | 1;

const LATENCY_NS = 10 * US;
/** A packet held back for others to overtake comes at last, though none do. */
const HELD_NS_MAX = 5 * MS;
const NAMES = ["first", "second"] as const;
const ADDRESSES = [IpAddress.parse("192.0.2.1"), IpAddress.parse("192.0.2.2")] as const;
const MAD_OFFSET = 20;
/** A small device: all its invariants are checked after every turn. */
const BOUNDS = { qpCountMax: 32, regionCountMax: 128 };

const OPCODE_NAMES = new Map<number, string>([
  ...Object.entries(RC).map(([name, code]) => [code, name] as const),
  ...Object.entries(UD).map(([name, code]) => [code, `UD_${name}`] as const),
]);

/** Memory that knows what has not been given back. */
export class CountingMemory extends HeapMemorySource {
  readonly live = new Set<Memory>();

  override allocate(length: number): Memory {
    const memory = super.allocate(length);
    this.live.add(memory);
    return memory;
  }

  override free(memory: Memory): void {
    if (!this.live.delete(memory)) throw new Error("memory is freed once");
  }
}

interface Carried {
  readonly side: Side;
  readonly bytes: Uint8Array;
}

interface Held extends Carried {
  overtakers: number;
}

/** A packet for a ghost to be made of. */
export type Recorded = Carried;

export class Stage {
  readonly world: SimWorld;
  readonly hosts: readonly SimHost[];
  readonly stacks: readonly SimStack[];
  readonly memories: readonly CountingMemory[];
  /** Packets since `begin`. */
  count = 0;
  /** One line for each packet since `begin`, with what became of it. */
  readonly lines: string[] = [];
  /** What the connection managers hold for their buffers. */
  readonly cmBytes: number;
  /** The packets of the first run, for ghosts. */
  readonly recorded: Recorded[] = [];
  private luck: Luck = NO_MISFORTUNE;
  private startNs = 0;
  private held: Held | null = null;
  private ghost: Carried | null = null;

  constructor(seed = 1) {
    this.world = new SimWorld({ seed, checkEvery: 1, faults: { latencyNs: LATENCY_NS } });
    this.hosts = NAMES.map((name, i) =>
      this.world.addHost(name, {
        addresses: [this.address(i as Side)],
        mtu: 1500,
        gro: "sometimes",
        txBytes: 1 << 16,
        receiveBufferBytes: 1 << 20,
        burstCountMax: 2,
      }),
    );
    this.memories = NAMES.map((_, i) => new CountingMemory(0x10_0000_0000 * (i + 1)));
    this.stacks = this.hosts.map((host, i) =>
      buildStack(host, 0, this.memories[i] as CountingMemory, BOUNDS),
    );
    this.cmBytes = [...this.memory(0).live].reduce((sum, { length }) => sum + length, 0);
    this.world.network.observers.push(icrcObserver());
    this.world.network.gate = (link, flow, bytes, offset, length) =>
      this.carry(link, flow, bytes.slice(offset, offset + length));
  }

  address(side: Side): IpAddress {
    return ADDRESSES[side];
  }

  stack(side: Side): SimStack {
    return this.stacks[side] as SimStack;
  }

  memory(side: Side): CountingMemory {
    return this.memories[side] as CountingMemory;
  }

  /** Puts something on a host that runs with every turn of it, and at once when it `isReady`. */
  addMachine(side: Side, pump: (nowNs: number) => void, isReady: () => boolean): void {
    const deadlineNs = () => (isReady() ? 0 : Infinity);
    const machine: Machine = { pump, deadlineNs, checkInvariants: () => {} };
    this.hosts[side]?.machines.push(machine);
  }

  /** From now on packets count, and are dealt with as `luck` says. */
  begin(luck: Luck): void {
    this.luck = luck;
    this.count = 0;
    this.startNs = this.world.clock.nowNs;
    this.wake();
  }

  /** The second run begins: the ghost of a packet of the first comes while it goes on. */
  beginAgain(luck: Luck): void {
    this.begin(luck);
    if (luck.kind !== "ghost") return;
    this.ghost = this.recorded[luck.packet - 1] ?? null;
    if (luck.at === 0) this.releaseGhost();
  }

  /** From now on nothing happens to any packet. */
  heal(): void {
    this.luck = NO_MISFORTUNE;
    this.wake();
  }

  /** Nanoseconds since `begin`. */
  get elapsedNs(): number {
    return this.world.clock.nowNs - this.startNs;
  }

  /** Lets all hosts take a turn: something was submitted from outside. */
  wake(): void {
    for (const host of this.hosts) host.isActive = true;
  }

  /** What must hold when all is closed and has come to rest. @throws Error naming what is left. */
  checkRest(): void {
    for (const side of [0, 1] as const) {
      const { device, cm } = this.stack(side);
      const other = this.address((1 - side) as Side);
      const { window } = device.flow(0, other);
      const left: string[] = [];
      if (window.inFlightBytes !== 0) left.push(`${window.inFlightBytes} bytes of the window`);
      const reads = device.readWindow.inFlightBytes;
      if (reads !== 0) left.push(`${reads} bytes of the READ window`);
      if (device.deadlineNs() !== Infinity) left.push("a timer of the device");
      if (cm.liveCount !== 0) left.push(`${cm.liveCount} connections of the CM`);
      if (left.length > 0) throw new Error(`host ${side} is left with ${left.join(", ")}`);
    }
  }

  /** @returns whether the network takes the packet to its destination as ever. */
  private carry(link: SimLink, flow: TxFlow, bytes: Uint8Array): boolean {
    const side: Side = link.name === NAMES[0] ? 0 : 1;
    if (!flow.destination.equals(this.address((1 - side) as Side))) return true;
    this.count++;
    const number = this.count;
    const { luck } = this;
    const carried = { side, bytes };
    if (this.ghost === null) this.recorded.push(carried);
    if (luck.kind === "ghost" && number === luck.at) this.releaseGhost();
    const fate = this.fateOf(number, carried);
    const time = (this.elapsedNs / MS).toFixed(3);
    this.lines.push(`${time} ms ${number}: ${side}> ${describePacket(bytes)}${fate.text}`);
    if (this.held !== null && this.held.side === side && fate.isCarried) this.overtake();
    return fate.isCarried;
  }

  private fateOf(number: number, carried: Carried): { isCarried: boolean; text: string } {
    const { luck } = this;
    const { side } = carried;
    const normal = { isCarried: true, text: "" };
    switch (luck.kind) {
      case "lose":
        return luck.packets.includes(number) ? { isCarried: false, text: "  LOST" } : normal;
      case "again":
        if (luck.packet !== number) return normal;
        this.deliverLater(carried, luck.delayUs * US + LATENCY_NS + 1);
        return { isCarried: true, text: "  AGAIN" };
      case "behind":
        if (luck.packet !== number) return normal;
        this.hold(carried, luck.count);
        return { isCarried: false, text: "  HELD" };
      case "dead": {
        const isDead = luck.who === "both" || luck.who === NAMES[side];
        if (number < luck.from || !isDead) return normal;
        return { isCarried: false, text: "  LOST" };
      }
      default:
        return normal;
    }
  }

  private hold(carried: Carried, overtakers: number): void {
    const held = { ...carried, overtakers };
    this.held = held;
    this.world.after(HELD_NS_MAX, "a held packet goes on", () => {
      if (this.held !== held) return;
      this.held = null;
      this.deliver(held);
    });
  }

  private overtake(): void {
    const held = this.held as Held;
    held.overtakers--;
    if (held.overtakers > 0) return;
    this.held = null;
    this.deliverLater(held, LATENCY_NS + 1);
  }

  private releaseGhost(): void {
    const { ghost } = this;
    if (ghost === null) return;
    this.lines.push(`a ghost: ${ghost.side}> ${describePacket(ghost.bytes)}`);
    this.deliver(ghost);
  }

  private deliverLater(carried: Carried, delayNs: number): void {
    this.world.after(delayNs, "a packet comes late", () => this.deliver(carried));
  }

  private deliver({ side, bytes }: Carried): void {
    const to = this.hosts[1 - side] as SimHost;
    this.world.network.inject(to.simLink, 0, this.address(side), bytes, 0, bytes.length);
  }
}

/** A packet as text: opcode or CM message, destination QPN, PSN, bytes. */
export function describePacket(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const opcode = bthOpcode(view, 0);
  const qpn = bthDestinationQpn(view, 0);
  if (qpn === 1) {
    const mad = decodeCmMad(view, MAD_OFFSET, bytes.length - MAD_OFFSET - 4);
    if (typeof mad !== "string") return mad.message.kind;
  }
  const name = OPCODE_NAMES.get(opcode) ?? `opcode ${opcode.toString(16)}`;
  const syndrome = aethSyndrome(view, BTH_BYTES);
  const nak = opcode === RC.ACKNOWLEDGE && syndrome !== 0x1f ? ` nak ${syndrome.toString(16)}` : "";
  const payload = bytes.length - (OPCODE_HEADER_BYTES[opcode] ?? BTH_BYTES) - 4;
  const ask = bthAckRequest(view, 0) ? " !" : "";
  const psn = bthPsn(view, 0).toString(16);
  return `${name}${nak} qp ${qpn.toString(16)} psn ${psn} (${payload})${ask}`;
}

// SPDX-License-Identifier: MIT
// Random PCI machines whose every byte is known: a tree of functions with their configuration
// spaces. `machine-printer.ts` prints them as the field's tools would; `naiveVerdict` is the
// kernel's rule once more, written from the machine and not from a dump.

import { type Random, randomBelow } from "../../src/base/index.js";

export interface RandomFunction {
  readonly domain: number;
  readonly bus: number;
  readonly device: number;
  readonly function: number;
  readonly address: string;
  readonly parent: RandomFunction | null;
  readonly rootBus: string;
  /** PCIe port type; null: conventional PCI. */
  readonly type: number | null;
  readonly isBridge: boolean;
  readonly config: Uint8Array;
  /** Offset of the ACS capability, or null. */
  acsAt: number | null;
  /** Set for bridges when all below is numbered. */
  subordinate: number;
}

export interface RandomMachine {
  readonly functions: RandomFunction[];
  readonly cpu: "AuthenticAMD" | "GenuineIntel";
}

/** Ids of first functions: listed, listed for one bus only, not listed. */
const HOSTS = [
  [0x8086, 0x09a2],
  [0x8086, 0x2030],
  [0x8086, 0x2f00],
  [0x8086, 0x29c0],
  [0x1022, 0x1480],
] as const;
const ROOT_PORT = [0x8086, 0x347a] as const;
const LISTED = new Map([
  ["8086:09a2", false],
  ["8086:2030", false],
  ["8086:2f00", true],
]);
const TYPE = { endpoint: 0, root: 4, up: 5, down: 6, toPci: 7, integrated: 9 } as const;
const DEPTH_MAX = 3;
const REDIRECT_MASK = 0x2c;

/** A machine of `random`'s choice: 1 or 2 domains, several root buses, ports, switches, cards. */
export function randomMachine(random: Random): RandomMachine {
  const machine: RandomMachine = {
    functions: [],
    cpu: randomBelow(random, 3) === 0 ? "AuthenticAMD" : "GenuineIntel",
  };
  const domains = 1 + randomBelow(random, 2);
  for (let domain = 0; domain < domains; domain++) {
    const buses = 1 + randomBelow(random, 3);
    let next = 0;
    for (let index = 0; index < buses; index++) {
      next = Math.max(next, index * 0x40);
      next = new TreeMaker(machine, random, domain, next).make();
    }
  }
  machine.functions.sort((a, b) => (a.address < b.address ? -1 : 1));
  return machine;
}

class TreeMaker {
  private readonly machine: RandomMachine;
  private readonly random: Random;
  private readonly domain: number;
  private readonly rootBus: string;
  private readonly bus: number;
  private nextBus: number;

  constructor(machine: RandomMachine, random: Random, domain: number, bus: number) {
    this.machine = machine;
    this.random = random;
    this.domain = domain;
    this.bus = bus;
    this.nextBus = bus + 1;
    this.rootBus = `${hex(domain, 4)}:${hex(bus, 2)}`;
  }

  /** @returns the first bus number that is free after this tree. */
  make(): number {
    // A root complex that is part of a CPU is part of the machine's CPU.
    const hosts = HOSTS.filter(([vendor, device]) => {
      const isAmd = this.machine.cpu === "AuthenticAMD";
      return device === 0x29c0 || (vendor === 0x1022) === isAmd;
    });
    const host = hosts[this.below(hosts.length)] as readonly [number, number];
    const hasHost = this.bus === 0 || this.below(2) === 0;
    if (hasHost) this.add(this.bus, 0, 0, null, { ids: host, type: null, class: 0x060000 });
    const ports = 1 + this.below(3);
    for (let port = 0; port < ports; port++) this.rootPort(1 + port);
    if (this.below(2) === 0) {
      this.add(this.bus, 0x1f, 0, null, { type: TYPE.integrated, class: 0x010601 });
    }
    return this.nextBus;
  }

  private rootPort(device: number): void {
    const port = this.add(this.bus, device, 0, null, {
      ids: ROOT_PORT,
      type: TYPE.root,
      class: 0x060400,
    });
    this.below(5) === 0
      ? this.empty(port)
      : this.below(2) === 0
        ? this.cards(port)
        : this.switch(port, 0);
  }

  private empty(port: RandomFunction): void {
    this.behind(port);
    port.subordinate = this.nextBus - 1;
    seal(port);
  }

  /** One card of one or two functions, or a bridge to conventional PCI with two. */
  private cards(port: RandomFunction): void {
    const bus = this.behind(port);
    if (this.below(6) === 0) {
      const bridge = this.add(bus, 0, 0, port, { type: TYPE.toPci, class: 0x060400 });
      const inner = this.behind(bridge);
      for (const device of [1, 2]) this.add(inner, device, 0, bridge, { type: null });
      bridge.subordinate = this.nextBus - 1;
      seal(bridge);
    } else {
      const count = 1 + this.below(2);
      for (let index = 0; index < count; index++) {
        this.add(bus, 0, index, port, { type: TYPE.endpoint, isMultifunction: count > 1 });
      }
    }
    port.subordinate = this.nextBus - 1;
    seal(port);
  }

  private switch(port: RandomFunction, depth: number): void {
    const bus = this.behind(port);
    const up = this.add(bus, 0, 0, port, { type: TYPE.up, class: 0x060400 });
    const inner = this.behind(up);
    const count = 1 + this.below(3);
    for (let index = 0; index < count; index++) {
      const down = this.add(inner, index, 0, up, { type: TYPE.down, class: 0x060400 });
      if (depth < DEPTH_MAX && this.below(4) === 0) this.switch(down, depth + 1);
      else this.cards(down);
    }
    up.subordinate = this.nextBus - 1;
    seal(up);
    port.subordinate = this.nextBus - 1;
    seal(port);
  }

  private behind(bridge: RandomFunction): number {
    const bus = this.nextBus++;
    bridge.config[0x18] = bridge.bus;
    bridge.config[0x19] = bus;
    return bus;
  }

  private add(
    bus: number,
    device: number,
    index: number,
    parent: RandomFunction | null,
    what: {
      ids?: readonly [number, number];
      type: number | null;
      class?: number;
      isMultifunction?: boolean;
    },
  ): RandomFunction {
    const isBridge = what.class === 0x060400;
    const one: RandomFunction = {
      domain: this.domain,
      bus,
      device,
      function: index,
      address: `${hex(this.domain, 4)}:${hex(bus, 2)}:${hex(device, 2)}.${index}`,
      parent,
      rootBus: this.rootBus,
      type: what.type,
      isBridge,
      // All capabilities are in the first 512 of 4096 bytes; so few make the tests quick.
      config: new Uint8Array(what.type === null ? 256 : 512),
      acsAt: null,
      subordinate: 0,
    };
    const [vendor, id] = what.ids ?? [0x15b3, 0x1000 + this.below(0x100)];
    const view = new DataView(one.config.buffer);
    view.setUint16(0, vendor, true);
    view.setUint16(2, id, true);
    view.setUint16(4, 0x0006, true);
    view.setUint32(8, ((what.class ?? 0x020000) << 8) | 0x01, true);
    view.setUint8(0x0e, (isBridge ? 1 : 0) | (what.isMultifunction === true ? 0x80 : 0));
    if (!isBridge && this.below(2) === 0) {
      view.setUint32(0x10, 0xe0000000 + this.machine.functions.length * 0x10000, true);
    }
    if (isBridge) view.setUint16(0x20, 0xfff0, true);
    if (isBridge) view.setUint16(0x24, 0xfff1, true);
    if (isBridge) view.setUint8(0x1c, 0xf0);
    if (what.type !== null) this.capabilities(one, view, what.type);
    this.machine.functions.push(one);
    return one;
  }

  private capabilities(one: RandomFunction, view: DataView, type: number): void {
    view.setUint16(6, 0x10, true);
    view.setUint8(0x34, 0x40);
    view.setUint8(0x40, 0x10);
    view.setUint16(0x42, 2 | (type << 4), true);
    if (type !== TYPE.integrated) {
      view.setUint32(0x4c, 4 | (16 << 4), true);
      view.setUint16(0x52, (1 + this.below(4)) | ((1 << this.below(5)) << 4), true);
    }
    const multifunction = (view.getUint8(0x0e) & 0x80) !== 0;
    const canRedirect = type === TYPE.root || type === TYPE.down || multifunction;
    // AER first, so that ACS isn't always at the same place.
    const at = this.below(2) === 0 ? 0x100 : 0x148;
    const hasAcs = canRedirect && this.below(4) !== 0;
    if (at === 0x148) view.setUint32(0x100, 0x0001 | (1 << 16) | (hasAcs ? at << 20 : 0), true);
    if (!hasAcs) return;
    one.acsAt = at;
    view.setUint32(at, 0x000d | (1 << 16), true);
    view.setUint16(at + 4, 0x7f, true);
    view.setUint16(at + 6, this.below(2) === 0 ? 0 : this.below(0x80), true);
  }

  private below(count: number): number {
    return randomBelow(this.random, count);
  }
}

function seal(bridge: RandomFunction): void {
  bridge.config[0x1a] = bridge.subordinate;
}

export function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

/** Words of a function's configuration space. */
export function word(one: RandomFunction, at: number): number {
  return (one.config[at] as number) | ((one.config[at + 1] as number) << 8);
}

export function acsControl(one: RandomFunction): number {
  return one.acsAt === null ? 0 : word(one, one.acsAt + 6);
}

/** The same machine with another ACS control word somewhere. */
export function withAcsControl(
  machine: RandomMachine,
  address: string,
  control: number,
): RandomMachine {
  const copies = new Map<RandomFunction, RandomFunction>();
  const copy = (one: RandomFunction): RandomFunction => {
    const known = copies.get(one);
    if (known !== undefined) return known;
    const parent = one.parent === null ? null : copy(one.parent);
    const made = { ...one, parent, config: one.config.slice() };
    if (made.address === address && made.acsAt !== null) {
      made.config[made.acsAt + 6] = control;
    }
    copies.set(one, made);
    return made;
  };
  return { ...machine, functions: machine.functions.map(copy) };
}

export interface NaiveVerdict {
  readonly mapType: "BUS_ADDR" | "THRU_HOST_BRIDGE" | "NOT_SUPPORTED";
  readonly distance: number;
}

/** Linux 6.1's rule. */
export function naiveVerdict(
  machine: RandomMachine,
  client: RandomFunction,
  provider: RandomFunction,
): NaiveVerdict {
  const up = chain(provider);
  const down = chain(client);
  const meet = up.findIndex((one) => down.includes(one));
  if (meet < 0) {
    return { mapType: host(machine, client, provider), distance: up.length + down.length };
  }
  const turn = down.indexOf(up[meet] as RandomFunction);
  const way = [...up.slice(0, meet + 1), ...down.slice(0, turn)];
  const isRedirected = way.some((one) => (acsControl(one) & REDIRECT_MASK) !== 0);
  const mapType = isRedirected ? host(machine, client, provider) : "BUS_ADDR";
  return { mapType, distance: meet + turn };
}

function chain(one: RandomFunction | null): RandomFunction[] {
  return one === null ? [] : [one, ...chain(one.parent)];
}

function host(
  machine: RandomMachine,
  client: RandomFunction,
  provider: RandomFunction,
): "THRU_HOST_BRIDGE" | "NOT_SUPPORTED" {
  if (machine.cpu === "AuthenticAMD") return "THRU_HOST_BRIDGE";
  const states = [client.rootBus, provider.rootBus].map((bus) => listed(machine, bus));
  const isSame = client.rootBus === provider.rootBus;
  const all = states.every((state) => state === "any" || (isSame && state === "same"));
  return all ? "THRU_HOST_BRIDGE" : "NOT_SUPPORTED";
}

function listed(machine: RandomMachine, rootBus: string): "any" | "same" | "no" {
  const [first] = machine.functions.filter((one) => one.rootBus === rootBus && one.parent === null);
  if (first === undefined) return "no";
  if (first.device !== 0 && first.type !== TYPE.root) return "no";
  const state = LISTED.get(`${hex(word(first, 0), 4)}:${hex(word(first, 2), 4)}`);
  return state === undefined ? "no" : state ? "same" : "any";
}

// SPDX-License-Identifier: MIT
// A server with its access rules, a bystander whose every byte is checked, and hostile clients
// beside it. Whatever those do, at the end of every scene the bystander's session is the one that
// it was and its disk is right, no byte outside of what the server gave was written, and none was
// sent.

import { assert, IpAddress, type Memory } from "../../src/base/index.js";
import { FileDevice } from "../../src/block/index.js";
import { accessPolicy, RNBD_ACCESS, RnbdClient, RnbdServer } from "../../src/rnbd/index.js";
import {
  AccessRules,
  parseAccessRule,
  RtrsServer,
  type RtrsServerOptions,
} from "../../src/rtrs/index.js";
import { SimDisk, type SimHost, SimPlatter, SimWorld } from "../../src/sim/index.js";
import { containsSecret, fillSecret, GuardedMemorySource } from "../fuzz/guarded-memory.js";
import { DiskWorkload } from "../sim/disk-workload.js";
import { buildStack, type SimStack } from "../sim/stack.js";
import type { RawHost } from "../support/raw-peer.js";
import { Attacker, CHUNK_BYTES, CHUNK_COUNT, type Request, rnbd, UNTOUCHED } from "./attacker.js";

export const MS = 1_000_000;
export const SECOND = 1_000 * MS;
export const VOLUME_BYTES = 128 * 512;
export const SESSION_COUNT_MAX = 6;
export const PATH_COUNT_MAX = 2;
/** Small tables: their invariants are checked often. */
const BOUNDS = { qpCountMax: 64, regionCountMax: 256 };
/** Requests stay in the disk long enough to be attacked there. */
const SLOW = { blockRate: 1, latencyNs: 300_000 };
const DEPTH = 4;
const LENGTH_MAX = 4096;
const BYSTANDER = "192.0.2.3";
/** What "own" and "fixed" hold at first. */
export const OWN_BYTE = 0x11;
export const FIXED_BYTE = 0x22;

/**
 * - `own`: the attackers' to read and write; `fixed`: theirs to read; `alone`: for one at a time.
 * - `theirs`: the bystander's.
 * - `closed`: nobody's. It holds a secret that may never be seen on the wire.
 */
export const VOLUMES = ["own", "fixed", "alone", "theirs", "closed"] as const;
export type VolumeName = (typeof VOLUMES)[number];

const RULES = [
  `${BYSTANDER},volume=theirs,rw`,
  "192.0.2.64/26,volume=own,rw",
  "192.0.2.64/26,volume=fixed,ro",
  "192.0.2.64/26,volume=alone,exclusive",
  "192.0.2.200,volume=theirs,ro",
];

/** What one request came to. */
export interface Outcome {
  /** The errno of the reply; -1 when the path was closed instead. */
  readonly errno: number;
  /** Bytes of the attacker's buffer that the server has written. */
  readonly data: Uint8Array;
}

export class Scene {
  readonly world: SimWorld;
  readonly server: SimHost;
  readonly serverMemory = new GuardedMemorySource(0x7000_0000_0000);
  readonly stack: SimStack;
  readonly rtrs: RtrsServer;
  readonly rnbd: RnbdServer;
  readonly platters = new Map<VolumeName, SimPlatter>();
  /** What the access rules said. */
  readonly refusals: string[] = [];
  readonly address = IpAddress.parse("192.0.2.1");
  private readonly bystanderHost: SimHost;
  private readonly bystanderMemory = new GuardedMemorySource();
  private readonly workload: DiskWorkload;
  private readonly before = new Map<VolumeName, Uint8Array>();
  private downs = 0;

  constructor(options: Partial<RtrsServerOptions> = {}) {
    this.world = new SimWorld({ seed: 4, checkEvery: 16, faults: { jitterNs: 5_000 } });
    const { world } = this;
    this.server = world.addHost("server", { addresses: [this.address], mtu: 1500 });
    this.stack = buildStack(this.server, 0, this.serverMemory, BOUNDS);
    const rules = new AccessRules(RULES.map(parseAccessRule));
    this.rnbd = new RnbdServer(accessPolicy(rules, (_kind, text) => this.refusals.push(text)));
    for (const name of VOLUMES) this.addVolume(name);
    this.rtrs = new RtrsServer(
      this.stack.environment,
      {
        queueDepth: CHUNK_COUNT,
        chunkBytes: CHUNK_BYTES,
        sessionCountMax: SESSION_COUNT_MAX,
        pathCountMax: PATH_COUNT_MAX,
        connectionCountMax: 4,
        connectTimeoutNs: 2 * SECOND,
        disconnectTimeoutNs: 50 * MS,
        // Attackers do not answer heartbeats.
        heartbeatIntervalNs: 60 * SECOND,
        ...options,
      },
      this.rnbd,
    );
    this.server.machines.push(this.rtrs, this.rnbd);
    world.network.gate = (_source, _flow, bytes, offset, length) => {
      if (containsSecret(bytes, offset, length)) throw new Error("a secret was sent");
      return true;
    };
    this.bystanderHost = world.addHost("bystander", {
      addresses: [IpAddress.parse(BYSTANDER)],
      mtu: 1500,
    });
    this.workload = this.startBystander();
    for (const name of ["fixed", "closed"] as const) this.before.set(name, this.contents(name));
  }

  private addVolume(name: VolumeName): void {
    const random = this.world.random.fork(`disk ${name}`);
    const platter = new SimPlatter(VOLUME_BYTES, random.fork("platter"));
    const bytes = new Uint8Array(VOLUME_BYTES);
    if (name === "closed") fillSecret(bytes);
    else if (name === "own") bytes.fill(OWN_BYTE);
    else if (name === "fixed") bytes.fill(FIXED_BYTE);
    if (name !== "theirs") platter.write(0, bytes, 0, bytes.length);
    const disk = new SimDisk(this.world.clock, random, platter, { path: name, faults: SLOW });
    this.server.disks.push(disk);
    this.platters.set(name, platter);
    this.rnbd.addVolume(name, new FileDevice(disk, { name, memory: this.serverMemory }));
  }

  private startBystander(): DiskWorkload {
    const host = this.bystanderHost;
    const stack = buildStack(host, 0, this.bystanderMemory, BOUNDS);
    const client = new RnbdClient(stack.environment, {
      sessionName: "bystander",
      paths: [{ source: IpAddress.parse(BYSTANDER), destination: this.address }],
    });
    client.onDown = () => this.downs++;
    let workload: DiskWorkload | null = null;
    client.open("theirs", RNBD_ACCESS.RW, (error, device) => {
      if (device === null) throw error;
      const memory: Memory = stack.memory.allocate(DEPTH * LENGTH_MAX);
      client.registerMemory(memory);
      workload = new DiskWorkload(device, {
        random: host.random.fork("workload"),
        requestCount: Number.POSITIVE_INFINITY,
        depth: DEPTH,
        lengthMax: LENGTH_MAX,
        thinkNsMax: 50 * MS,
        memory,
      });
      host.machines.splice(1, 0, workload);
    });
    host.machines.push(client);
    client.connect();
    this.until("the bystander works", () => (workload?.completedCount ?? 0) > 10);
    return workload as unknown as DiskWorkload;
  }

  contents(name: VolumeName): Uint8Array {
    const bytes = new Uint8Array(VOLUME_BYTES);
    (this.platters.get(name) as SimPlatter).read(0, bytes, 0, bytes.length);
    return bytes;
  }

  /** Requests of a volume that are in its disk. */
  inflight(name: VolumeName): number {
    return this.rnbd.volume(name)?.inflight ?? 0;
  }

  until(what: string, isDone: () => boolean, limitNs = 20 * SECOND): void {
    if (!this.world.run(limitNs, isDone)) throw new Error(`no progress: ${what}`);
  }

  /** A hostile host, 192.0.2.`number`; 64 to 127 are those that the rules let in. */
  attackerAt(number: number, tag = number): Attacker {
    return this.attackerOn(this.hostAt(number), tag);
  }

  attackerOn(host: RawHost, tag = 66): Attacker {
    return new Attacker(host, { address: this.address }, tag);
  }

  hostAt(number: number) {
    const address = IpAddress.parse(`192.0.2.${number}`);
    const host = this.world.addHost(`host ${number}`, { addresses: [address], mtu: 1500 });
    const { context, environment, memory } = buildStack(host, 0, new GuardedMemorySource(), BOUNDS);
    return { address, context, environment, memory, machines: host.machines, host };
  }

  /** An attacker whose session is up, as a correct client's would be. */
  attacker(number = 66, tag = number): Attacker {
    const attacker = this.attackerAt(number, tag);
    this.connect(attacker);
    return attacker;
  }

  /** Connects an attacker of another address as a further path of the session with its tag. */
  joinWith(attacker: Attacker): void {
    this.connect(attacker, new Uint8Array(16).fill(0x55));
  }

  connect(attacker: Attacker, pathUuid?: Uint8Array): void {
    for (let cid = 0; cid < 2; cid++) {
      const connection = attacker.ask(pathUuid === undefined ? {} : { pathUuid });
      this.until("a connection is up", () => connection.events.length > 0);
      assert(connection.events[0]?.type === "ESTABLISHED", "the server has accepted");
    }
    attacker.askInfo();
    this.until("the session is up", () =>
      attacker.connectionAt(0).completions.some(({ opcode }) => opcode >= 128),
    );
    attacker.takeInfo();
  }

  /** Runs one request to its reply, or to the end of the attacker's path. */
  run(attacker: Attacker, request: Request): Outcome {
    attacker.buffer.bytes.fill(UNTOUCHED);
    const chunk = attacker.post(request);
    const isOver = () => attacker.replies.has(chunk) || attacker.isDisconnected;
    this.until("a reply, or the end of the path", isOver);
    const errno = attacker.replies.get(chunk) ?? -1;
    let written = attacker.buffer.length;
    while (written > 0 && attacker.buffer.bytes[written - 1] === UNTOUCHED) written--;
    return { errno, data: attacker.buffer.bytes.slice(0, written) };
  }

  /** Opens a volume as it should be done. @returns its device id. */
  open(attacker: Attacker, volume: VolumeName, access: number = RNBD_ACCESS.RW): number {
    const readBytes = rnbd.openResponseBytes;
    const { errno } = this.run(attacker, { user: rnbd.open(volume, access), readBytes });
    assert(errno === 0, `the open of "${volume}" succeeds, not ${errno}`);
    return rnbd.openId(attacker);
  }

  isUp(attacker: Attacker): boolean {
    return this.rtrs.sessions().some(({ name }) => name === attacker.name);
  }

  /** Why the server closed the attacker's path; "" while it has not, 200 ms later. */
  fate(attacker: Attacker): string {
    this.world.run(200 * MS, () => !this.isUp(attacker));
    return this.isUp(attacker) ? "" : this.rtrs.lastCloseReason;
  }

  /** The invariant of every scene; see the top of this file. */
  expectNobodyHarmed(): void {
    const { workload } = this;
    const count = workload.completedCount;
    this.until("the bystander is served", () => workload.completedCount > count + 10);
    assert(this.downs === 0, "the bystander's session is the one that it was");
    this.serverMemory.check();
    this.bystanderMemory.check();
    for (const [name, bytes] of this.before) {
      const now = this.contents(name);
      const at = now.findIndex((byte, i) => byte !== bytes[i]);
      assert(at < 0, `volume "${name}" is unchanged, not different at ${at}`);
    }
    assert(this.stack.watch.handOvers > 0, "what the server fetches is watched");
  }
}

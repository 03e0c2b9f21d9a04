// SPDX-License-Identifier: MIT
// A client of several lanes that write one volume, on the simulated network: each lane is a host
// with a session of its own, and so is each lane of the server; what lanes share is shared. Users
// of the volume send each request by any lane and see one disk.

import {
  assert,
  ERRNO,
  type FarpageError,
  HeapMemorySource,
  IpAddress,
  type Machine,
} from "../../src/base/index.js";
import {
  BLOCK_OPERATION,
  type BlockDevice,
  type BlockRequest,
  FileDevice,
} from "../../src/block/index.js";
import {
  allocateSharedVolume,
  RNBD_ACCESS,
  RnbdClient,
  type RnbdDevice,
  RnbdServer,
  type SessionGroup,
  VolumeRights,
} from "../../src/rnbd/index.js";
import { RtrsServer } from "../../src/rtrs/index.js";
import {
  portName,
  SimDisk,
  type SimHost,
  SimPlatter,
  type SimWaker,
  SimWorld,
} from "../../src/sim/index.js";
import { DiskWorkload } from "./disk-workload.js";
import type { LaneConfig, LaneMishap } from "./lane-config.js";
import { buildStack } from "./stack.js";

const SECOND = 1_000_000_000;
/** Virtual time in which a sound network must bring everything to its end. */
const PROGRESS_NS = 300 * SECOND;
const VOLUME = "volume";

export interface LaneReport {
  readonly traceHash: string;
  readonly requests: number;
  readonly failed: number;
  /** Requests that each lane has had. */
  readonly byLane: readonly number[];
  /** Sessions lost, of all lanes. */
  readonly losses: number;
}

export interface LaneSystemOptions {
  /** What lane 0 and up share of the volume; for canaries, which have them share less. */
  readonly plantGroup?: (group: SessionGroup) => SessionGroup;
}

/** Has a host take a turn when somebody else's turn has given it work. */
class Bell implements SimWaker {
  nextWakeNs = Number.POSITIVE_INFINITY;

  ring(nowNs: number): void {
    this.nextWakeNs = Math.min(this.nextWakeNs, nowNs);
  }
}

interface ClientLane {
  readonly host: SimHost;
  readonly bell: Bell;
  client: RnbdClient;
  device: RnbdDevice | null;
  requestCount: number;
}

/** The lanes' devices as one. */
class FannedDevice implements BlockDevice {
  readonly name = VOLUME;
  onResize: (() => void) | null = null;
  private readonly pick: (request: BlockRequest) => RnbdDevice;
  private readonly devices: readonly RnbdDevice[];

  constructor(devices: readonly RnbdDevice[], pick: (request: BlockRequest) => RnbdDevice) {
    this.devices = devices;
    this.pick = pick;
  }

  get limits(): BlockDevice["limits"] {
    return (this.devices[0] as RnbdDevice).limits;
  }

  get inflight(): number {
    return this.devices.reduce((sum, { inflight }) => sum + inflight, 0);
  }

  submit(request: BlockRequest): void {
    this.pick(request).submit(request);
  }

  pump(): void {}
  deadlineNs(): number {
    return Number.POSITIVE_INFINITY;
  }
  checkInvariants(): void {}
  close(): void {}
}

export class LaneSystem {
  private readonly config: LaneConfig;
  private readonly world: SimWorld;
  private readonly platter: SimPlatter;
  private readonly servers: SimHost[];
  private readonly lanes: ClientLane[];
  private workload: DiskWorkload | null = null;
  /** Changes when the page cache is lost. */
  private epoch = 1;
  private restarts = 0;
  private losses = 0;

  constructor(config: LaneConfig, options: LaneSystemOptions = {}) {
    this.config = config;
    this.world = new SimWorld({ seed: config.seed, checkEvery: 64 });
    const { random } = this.world;
    this.platter = new SimPlatter(config.volumeBytes, random.fork("platter"));
    this.servers = Array.from({ length: config.serverLaneCount }, (_, lane) =>
      this.addHost(`server ${lane}`, this.serverAddress(lane)),
    );
    this.startServer();
    const shared = allocateSharedVolume(config.laneCount);
    const name = new Uint8Array(16).fill(random.fork("group").nextU32() | 1);
    this.lanes = Array.from({ length: config.laneCount }, (_, lane) => {
      const group: SessionGroup = {
        name,
        lane,
        laneCount: config.laneCount,
        memoryOf: () => shared,
        wake: (other) => this.lanes[other]?.bell.ring(this.world.clock.nowNs),
      };
      return this.startLane(lane, options.plantGroup?.(group) ?? group);
    });
  }

  /** Runs everything. @throws Error with the seed when something is wrong. */
  run(): LaneReport {
    const { world, config } = this;
    this.openVolume();
    world.network.setFaults(null, config.faults);
    let faultyNs = 0;
    for (const mishap of config.mishaps) {
      this.schedule(mishap);
      faultyNs = Math.max(faultyNs, mishap.atNs + mishap.durationNs);
    }
    world.run(faultyNs + 1);
    world.run(faultyNs + SECOND, () => this.workload?.isDone === true);
    world.note("heal");
    world.network.heal({ lossRate: 0, reorderRate: 0, duplicateRate: 0 });
    const workload = this.workload as DiskWorkload;
    this.demand("every request is answered on a sound network", () => workload.isDone);
    this.demand("every lane is back", () =>
      this.lanes.every(({ device }) => device?.state === "OPEN"),
    );
    workload.startCheck();
    this.demand("the final check reads the volume", () => workload.isChecked);
    return {
      traceHash: world.traceHash,
      requests: workload.completedCount,
      failed: workload.failedCount,
      byLane: this.lanes.map(({ requestCount }) => requestCount),
      losses: this.losses,
    };
  }

  /** @throws Error when `condition` doesn't come true in time. */
  private demand(what: string, condition: () => boolean): void {
    if (this.world.run(PROGRESS_NS, condition)) return;
    const lanes = this.lanes.map(({ device }) => `${device?.state} ${device?.inflight}`);
    throw new Error(`seed ${this.config.seed}: no progress: ${what} (lanes: ${lanes.join(", ")})`);
  }

  private serverAddress(lane: number): IpAddress {
    return IpAddress.parse(`192.0.2.${101 + lane}`);
  }

  private addHost(name: string, address: IpAddress): SimHost {
    const { linkMtu, pauseRate, pauseNsMax } = this.config;
    return this.world.addHost(name, {
      addresses: [address],
      mtu: linkMtu,
      gro: "sometimes",
      receiveBufferBytes: 1 << 20,
      stallRate: 0,
      pauseRate,
      pauseNsMax,
    });
  }

  /** One process: every lane of it, or none. */
  private startServer(): void {
    const { config, world } = this;
    const rights = new SharedArrayBuffer(VolumeRights.byteLength);
    for (const [lane, host] of this.servers.entries()) {
      const stack = buildStack(host, this.restarts);
      const random = world.random.fork(`disk ${lane} ${this.restarts}`);
      const faults = (lane === 0 ? config.firstDiskFaults : undefined) ?? config.diskFaults;
      const disk = new SimDisk(world.clock, random, this.platter, { path: VOLUME, faults });
      host.disks.push(disk);
      const rnbd = new RnbdServer();
      const device = new FileDevice(disk, { name: VOLUME, memory: stack.memory });
      const epoch = { high: 1, low: this.epoch };
      rnbd.addVolume(VOLUME, device, { epoch, rights: new VolumeRights(rights) });
      const { queueDepth, chunkBytes, heartbeatIntervalNs } = config;
      const rtrs = new RtrsServer(
        stack.environment,
        { queueDepth, chunkBytes, heartbeatIntervalNs },
        rnbd,
      );
      host.machines.push(rtrs, rnbd);
    }
  }

  private startLane(lane: number, group: SessionGroup): ClientLane {
    const { config } = this;
    const source = IpAddress.parse(`192.0.2.${1 + lane}`);
    const host = this.addHost(`lane ${lane}`, source);
    const bell = new Bell();
    host.wakers.push(bell);
    const { environment } = buildStack(host);
    const client = new RnbdClient(environment, {
      sessionName: `sim-${config.seed}-${lane}`,
      paths: [{ source, destination: this.serverAddress(lane % config.serverLaneCount) }],
      heartbeatIntervalNs: config.heartbeatIntervalNs,
      ...(config.ioTimeoutNs === 0 ? {} : { ioTimeoutNs: config.ioTimeoutNs }),
      group,
    });
    client.onFailed = (error) => {
      throw new Error(`the session has given up: ${error.message}`, { cause: error });
    };
    client.onDown = () => {
      this.losses++;
    };
    host.machines.push(bellMuter(bell), client);
    return { host, bell, client, device: null, requestCount: 0 };
  }

  /** Opens the volume on every lane of the still sound network, and begins the workload. */
  private openVolume(): void {
    let failure: FarpageError | null = null;
    for (const lane of this.lanes) {
      lane.client.open(VOLUME, RNBD_ACCESS.RW, (error, device) => {
        failure ??= error;
        lane.device = device;
      });
      lane.client.connect();
    }
    this.demand("every lane opens the volume", () => {
      if (failure !== null) throw failure;
      return this.lanes.every(({ device }) => device !== null);
    });
    assert(
      this.lanes.every(({ client }) => client.isInGroup),
      "the server knows the group",
    );
    this.startWorkload();
  }

  private startWorkload(): void {
    const { config, world } = this;
    const devices = this.lanes.map(({ device }) => device as RnbdDevice);
    const random = world.random.fork("workload");
    const picks = world.random.fork("picks");
    const pick = ({ operation }: BlockRequest) => {
      const last = this.lanes.length - 1;
      const others = config.splitsFlushes ? last : this.lanes.length;
      const isLast = config.splitsFlushes && operation === BLOCK_OPERATION.FLUSH;
      const lane = this.lanes[isLast ? last : picks.nextU32() % others] as ClientLane;
      lane.requestCount++;
      lane.bell.ring(world.clock.nowNs);
      return lane.device as RnbdDevice;
    };
    const first = this.lanes[0] as ClientLane;
    const memory = new HeapMemorySource().allocate(config.depth * config.lengthMax);
    for (const { client } of this.lanes) client.registerMemory(memory);
    const crashes = config.mishaps.some(({ kind }) => kind === "crash");
    this.workload = new DiskWorkload(new FannedDevice(devices, pick), {
      random,
      requestCount: config.requestCount,
      depth: config.depth,
      lengthMax: config.lengthMax,
      thinkNsMax: config.thinkNsMax,
      expectedErrnos: config.ioTimeoutNs === 0 ? [] : [ERRNO.ETIMEDOUT],
      expectedChangeErrnos: crashes ? [ERRNO.EIO] : [],
      memory,
    });
    first.host.machines.unshift(this.workload);
  }

  private schedule({ kind, lane, atNs, durationNs }: LaneMishap): void {
    const { world } = this;
    world.after(atNs, kind, () => {
      if (kind === "cut") this.cut(lane);
      else this.stopServer(kind === "crash");
    });
    world.after(atNs + durationNs, `end of ${kind}`, () => {
      if (kind === "cut") world.network.heal();
      else this.restartServer();
    });
  }

  /** Loses what a lane and its server send each other. */
  private cut(lane: number): void {
    const { network } = this.world;
    const server = portName((this.servers[lane % this.servers.length] as SimHost).name, 0);
    const client = portName((this.lanes[lane] as ClientLane).host.name, 0);
    network.partition(client, server);
    network.partition(server, client);
  }

  /** The server's process dies; with `isCrash` its whole machine does, and its caches. */
  private stopServer(isCrash: boolean): void {
    for (const host of this.servers) this.world.kill(host);
    if (!isCrash) return;
    this.platter.crash();
    this.epoch++;
    this.workload?.model.crash();
  }

  private restartServer(): void {
    for (const host of this.servers) this.world.revive(host);
    this.restarts++;
    this.startServer();
  }
}

/** The turn that the bell was rung for has come. */
function bellMuter(bell: Bell): Machine {
  return {
    pump: () => {
      bell.nextWakeNs = Number.POSITIVE_INFINITY;
    },
    deadlineNs: () => Number.POSITIVE_INFINITY,
    checkInvariants: () => {},
  };
}

// SPDX-License-Identifier: MIT
// A whole system on the simulated network: an RNBD client with workloads on a client host, an RNBD
// server with file devices on simulated disks on another, everything between them real. A safety
// phase under faults, then the network heals and all that was asked must be answered.

import { assert, ERRNO, type FarpageError, IpAddress, type Memory } from "../../src/base/index.js";
import { type BlockFile, FileDevice } from "../../src/block/index.js";
import { RNBD_ACCESS, RnbdClient, RnbdServer } from "../../src/rnbd/index.js";
import { RtrsClient, RtrsServer } from "../../src/rtrs/index.js";
import {
  type NetworkCounters,
  portName,
  SimDisk,
  type SimHost,
  type SimLink,
  SimPlatter,
  type SimWaker,
  SimWorld,
} from "../../src/sim/index.js";
import type { Link } from "../../src/transport/index.js";
import { DiskWorkload } from "./disk-workload.js";
import { detectableCorruption, icrcObserver } from "./roce-checks.js";
import { buildStack, type SimStack } from "./stack.js";
import type { Mishap, SystemConfig } from "./system-config.js";

const SECOND = 1_000_000_000;
/** Virtual time in which a sound network must bring everything to its end. */
const PROGRESS_NS = 300 * SECOND;
const NETS_V4 = ["192.0.2.", "198.51.100.", "203.0.113."];
const NETS_V6 = ["2001:db8::", "2001:db8:1::", "2001:db8:2::"];
const CLIENT = "client";
const SERVER = "server";

export interface SystemOptions {
  readonly checkEvery?: number;
  readonly trace?: (line: string) => void;
  /** Puts something around a volume's file; what it returns may wake the host. */
  readonly plantFile?: (file: BlockFile) => BlockFile & SimWaker;
  /** Puts something around the server's link. */
  readonly decorateServer?: (link: SimLink) => Link;
}

export interface SystemReport {
  readonly traceHash: string;
  readonly requests: number;
  readonly failed: number;
  /** Requests that went on by another path. */
  readonly failedOver: number;
  readonly turns: number;
  readonly virtualNs: number;
  readonly network: Readonly<NetworkCounters>;
}

interface SimVolume {
  readonly name: string;
  readonly platter: SimPlatter;
  /** Changes when the page cache is lost. */
  epoch: number;
  workload: DiskWorkload | null;
}

export class System {
  readonly config: SystemConfig;
  readonly world: SimWorld;
  readonly client: SimHost;
  readonly server: SimHost;
  readonly volumes: SimVolume[];
  rnbdClient: RnbdClient;
  /** The client's. */
  session!: RtrsClient;
  clientStack: SimStack;
  serverStack: SimStack;
  restarts = 0;
  private readonly options: SystemOptions;
  /** A path is between two of the same index. */
  private readonly addresses: {
    readonly client: readonly IpAddress[];
    readonly server: readonly IpAddress[];
  };

  constructor(config: SystemConfig, options: SystemOptions = {}) {
    this.config = config;
    this.options = options;
    this.world = new SimWorld({
      seed: config.seed,
      checkEvery: options.checkEvery ?? 64,
      ...(options.trace === undefined ? {} : { trace: options.trace }),
    });
    const nets = config.family === 4 ? NETS_V4 : NETS_V6;
    const of = (host: number) =>
      nets.slice(0, config.pathCount).map((net) => IpAddress.parse(`${net}${host}`));
    this.addresses = { client: of(1), server: of(2) };
    this.client = this.addHost(CLIENT, this.addresses.client, undefined);
    this.server = this.addHost(SERVER, this.addresses.server, options.decorateServer);
    this.world.network.corruptionFilter = detectableCorruption();
    this.world.network.observers.push(icrcObserver());
    this.volumes = Array.from({ length: config.volumeCount }, (_, i) => ({
      name: `volume${i}`,
      platter: new SimPlatter(config.volumeBytes, this.world.random.fork(`platter ${i}`)),
      epoch: 1,
      workload: null,
    }));
    this.serverStack = this.startServer();
    this.clientStack = buildStack(this.client);
    this.rnbdClient = this.startClient();
  }

  /** Runs everything. @throws Error with the seed when something is wrong. */
  run(): SystemReport {
    const { world, config } = this;
    this.openVolumes();
    world.network.setFaults(null, config.faults);
    for (const mishap of config.mishaps) this.schedule(mishap);
    const last = config.mishaps.at(-1);
    const faultyNs = last === undefined ? 0 : last.atNs + last.durationNs;
    // The safety phase lasts until the last mishap is over, and then as long again under faults.
    world.run(faultyNs + 1);
    world.run(faultyNs + SECOND, () => this.isDone);
    world.note("heal");
    world.network.heal({
      lossRate: 0,
      reorderRate: 0,
      duplicateRate: 0,
      corruptRate: 0,
      truncateRate: 0,
    });
    this.demand("every request is answered on a sound network", () => this.isDone);
    for (const { workload } of this.volumes) workload?.startCheck();
    this.demand("the final check reads every volume", () =>
      this.volumes.every(({ workload }) => workload?.isChecked),
    );
    return this.report();
  }

  private get isDone(): boolean {
    return this.volumes.every(({ workload }) => workload?.isDone);
  }

  private report(): SystemReport {
    const { watch } = this.serverStack;
    const isWatched = watch.handOvers > 0 && watch.fetchedBytes > 0;
    assert(isWatched, "what the server fetches is watched in every run");
    const workloads = this.volumes.map(({ workload }) => workload as DiskWorkload);
    return {
      traceHash: this.world.traceHash,
      requests: workloads.reduce((sum, workload) => sum + workload.completedCount, 0),
      failed: workloads.reduce((sum, workload) => sum + workload.failedCount, 0),
      failedOver: this.session.paths.reduce((sum, path) => sum + path.counters.failedOver, 0),
      turns: this.world.turnCount,
      virtualNs: this.world.clock.nowNs,
      network: { ...this.world.network.counters },
    };
  }

  /** @throws Error when `condition` doesn't come true in time. */
  private demand(what: string, condition: () => boolean): void {
    if (this.world.run(PROGRESS_NS, condition)) return;
    const inflight = this.volumes.map(({ workload }) => workload?.inflight ?? -1);
    throw new Error(
      `seed ${this.config.seed}: no progress: ${what} (in flight: ${inflight}, client ` +
        `${this.rnbdClient.isConnected ? "connected" : "not connected"})`,
    );
  }

  private addHost(
    name: string,
    addresses: readonly IpAddress[],
    decorate: ((link: SimLink) => Link) | undefined,
  ): SimHost {
    const { linkMtu, gro, receiveBufferBytes, stallRate, pauseRate, pauseNsMax } = this.config;
    return this.world.addHost(name, {
      addresses,
      mtu: linkMtu,
      gro,
      receiveBufferBytes,
      stallRate,
      pauseRate,
      pauseNsMax,
      ...(decorate === undefined ? {} : { decorate }),
    });
  }

  private startServer(): SimStack {
    const { config, server, world } = this;
    const stack = buildStack(server, this.restarts);
    const rnbd = new RnbdServer();
    for (const volume of this.volumes) {
      const random = world.random.fork(`disk ${volume.name} ${this.restarts}`);
      const disk = new SimDisk(world.clock, random, volume.platter, {
        path: volume.name,
        faults: config.diskFaults,
      });
      server.disks.push(disk);
      let file: BlockFile = disk;
      if (this.options.plantFile !== undefined) {
        const planted = this.options.plantFile(disk);
        server.wakers.push(planted);
        file = planted;
      }
      const device = new FileDevice(file, { name: volume.name, memory: stack.memory });
      rnbd.addVolume(volume.name, device, { epoch: { high: 1, low: volume.epoch } });
    }
    const rtrs = new RtrsServer(
      stack.environment,
      {
        queueDepth: config.queueDepth,
        chunkBytes: config.chunkBytes,
        alwaysInvalidate: config.alwaysInvalidate,
        heartbeatIntervalNs: config.heartbeatIntervalNs,
      },
      rnbd,
    );
    server.machines.push(rtrs, rnbd);
    return stack;
  }

  private startClient(): RnbdClient {
    const { config } = this;
    const { environment } = this.clientStack;
    const options = {
      sessionName: `sim-${config.seed}`,
      paths: this.addresses.client.map((source, index) => ({
        source,
        destination: this.addresses.server[index] as IpAddress,
      })),
      policy: config.policy,
      connectionCount: config.connectionCount,
      invalidate: config.clientInvalidates,
      remoteInvalidate: config.remoteInvalidates,
      heartbeatIntervalNs: config.heartbeatIntervalNs,
    };
    const client = new RnbdClient(environment, options, (user) => {
      this.session = new RtrsClient(environment, options, user);
      return this.session;
    });
    client.onFailed = (error) => {
      throw new Error(`the session has given up: ${error.message}`, { cause: error });
    };
    this.client.machines.push(client);
    return client;
  }

  /** Opens every volume on the still sound network and gives each its workload. */
  private openVolumes(): void {
    const { config, world, rnbdClient } = this;
    let failure: FarpageError | null = null;
    for (const volume of this.volumes) {
      rnbdClient.open(volume.name, RNBD_ACCESS.RW, (error, device) => {
        failure ??= error;
        if (device === null) return;
        const memory = this.allocateBuffers();
        volume.workload = new DiskWorkload(device, {
          random: world.random.fork(`workload ${volume.name}`),
          requestCount: config.requestCount,
          depth: config.depth,
          lengthMax: config.lengthMax,
          thinkNsMax: config.thinkNsMax,
          expectedErrnos: config.diskErrno === 0 ? [] : [config.diskErrno],
          // A flush behind writes that a crash has undone; a long write that it has cut in two.
          expectedChangeErrnos: config.mishaps.some(({ kind }) => kind === "crash")
            ? [ERRNO.EIO]
            : [],
          memory,
        });
        // Before the client, so that what it submits is sent in the same turn.
        this.client.machines.splice(1, 0, volume.workload);
      });
    }
    rnbdClient.connect();
    this.demand("every volume opens", () => {
      if (failure !== null) throw failure;
      return this.volumes.every(({ workload }) => workload !== null);
    });
  }

  private allocateBuffers(): Memory {
    const memory = this.clientStack.memory.allocate(this.config.depth * this.config.lengthMax);
    this.rnbdClient.registerMemory(memory);
    return memory;
  }

  private schedule({ kind, path = 0, atNs, durationNs }: Mishap): void {
    const { world } = this;
    const isRestart = kind === "kill" || kind === "crash";
    world.after(atNs, kind, () => {
      if (isRestart) this.stopServer(kind === "crash");
      else if (kind === "cut" || kind === "half-cut") this.cut(path, kind === "half-cut", atNs);
      else {
        const isHalf = kind === "half-partition";
        for (let i = 0; i < this.config.pathCount; i++) this.cut(i, isHalf, atNs);
      }
    });
    world.after(atNs + durationNs, `end of ${kind}`, () => {
      if (isRestart) this.restartServer();
      else world.network.heal();
    });
  }

  /** Loses what is sent by a path from now on; one way only by half, which way is `moment`'s. */
  private cut(path: number, isHalf: boolean, moment: number): void {
    const { network } = this.world;
    const [client, server] = [portName(CLIENT, path), portName(SERVER, path)];
    if (!isHalf || moment % 2 === 0) network.partition(client, server);
    if (!isHalf || moment % 2 === 1) network.partition(server, client);
  }

  /** The server's process dies; with `isCrash` its whole machine does, and its caches. */
  private stopServer(isCrash: boolean): void {
    this.world.kill(this.server);
    if (!isCrash) return;
    for (const volume of this.volumes) {
      volume.platter.crash();
      volume.epoch++;
      volume.workload?.model.crash();
    }
  }

  private restartServer(): void {
    assert(!this.server.isAlive, "the server is down");
    this.world.revive(this.server);
    this.restarts++;
    this.serverStack = this.startServer();
  }
}

// SPDX-License-Identifier: MIT
// Copies over the whole stack on a bad simulated network, to a server and from it (by a session the
// other way): packets lost, doubled, out of order and corrupted, the network cut for a while.

import { describe, expect, it } from "vitest";
import { detectableCorruption } from "../../test/sim/roce-checks.js";
import { buildStack, type SimStack } from "../../test/sim/stack.js";
import { FetchWatch } from "../../test/support/fetch-watch.js";
import { HeapMemorySource, IpAddress, updateCrc32 } from "../base/index.js";
import { callBack, RtrsCallback, RtrsServer, type ServerSession } from "../rtrs/index.js";
import { type SimHost, SimWorld } from "../sim/index.js";
import { MAX_IO, NotingHost, randomDisk } from "./copy.fixture.js";
import { COPY_USER_BYTES_MAX, CopyAsker, type CopyPull, CopySink, CopySource } from "./index.js";
import { Disk, describeDisk, MemoryTree } from "./memory-tree.fixture.js";

const SECOND = 1e9;
const FAULTS = {
  latencyNs: 20_000,
  jitterNs: 10_000,
  lossRate: 0.01,
  reorderRate: 0.02,
  reorderNs: 100_000,
  duplicateRate: 0.01,
  corruptRate: 0.01,
  truncateRate: 0.005,
};
const SIZES = { queueDepth: 8, chunkBytes: 2 * MAX_IO, userBytesMax: COPY_USER_BYTES_MAX };
const SHORT = { heartbeatIntervalNs: SECOND, heartbeatMissedMax: 3 };

/** A host that sends what it is asked for. */
class SendingHost extends NotingHost {
  private readonly stack: SimStack;
  private readonly tree: MemoryTree;
  source: CopySource | null = null;

  constructor(stack: SimStack, disk: Disk, tree: MemoryTree) {
    super(disk);
    this.stack = stack;
    this.tree = tree;
  }

  override pull(pull: CopyPull, session: ServerSession): number {
    super.pull(pull, session);
    if (this.source !== null) return 0;
    const { environment } = this.stack;
    this.source = new CopySource(
      environment,
      {
        rtrs: { sessionName: "", paths: [] },
        crc32: updateCrc32,
        random: environment.random,
        operands: [{ tree: this.tree, path: "", name: "" }],
        target: "folder",
        onProblem: () => {},
        tells: true,
      },
      (user) =>
        callBack(environment, session, pull, user, {
          ...SHORT,
          userBytesMax: COPY_USER_BYTES_MAX,
        }),
    );
    this.stack.host.machines.push(this.source);
    this.source.connect();
    return 0;
  }
}

function newWorld(seed: number) {
  const world = new SimWorld({ seed, checkEvery: 64 });
  world.network.corruptionFilter = detectableCorruption();
  const [client, server] = ["192.0.2.1", "192.0.2.2"].map((text): End => {
    const address = IpAddress.parse(text);
    const host: SimHost = world.addHost(text, { addresses: [address], mtu: 1500 });
    const stack = buildStack(host);
    // A copy's servers rotate keys, so what they look at can't change, and they look at it twice:
    // for its sum, and to store it.
    const watch = new FetchWatch(true);
    return { address, stack: { ...stack, watch, environment: { ...stack.environment, watch } } };
  }) as [End, End];
  /** I/O in memory ends with the next turn. */
  const watch = (host: SimHost, trees: () => readonly MemoryTree[]) =>
    host.wakers.push({
      get nextWakeNs() {
        return trees().some(({ isPending }) => isPending) ? world.clock.nowNs : Infinity;
      },
    });
  return { world, client, server, watch };
}

interface End {
  readonly address: IpAddress;
  readonly stack: SimStack;
}

function newSink(host: NotingHost): CopySink {
  const memory = new HeapMemorySource();
  return new CopySink({ crc32: updateCrc32, memory, maxIoBytes: 2 * MAX_IO - 4096 }, host);
}

/** Lets the world run under faults, cuts it off for a while, and has it heal. */
function live(world: SimWorld, isDone: () => boolean): void {
  world.network.setFaults(null, FAULTS);
  const cut = { lossRate: 1 };
  world.after(3_000_000, "cut", () => world.network.setFaults(null, { ...FAULTS, ...cut }));
  world.after(8 * SECOND, "mend", () => world.network.setFaults(null, FAULTS));
  world.run(20 * SECOND, isDone);
  const sound = { lossRate: 0, reorderRate: 0, duplicateRate: 0, corruptRate: 0, truncateRate: 0 };
  world.network.heal(sound);
  expect(world.run(300 * SECOND, isDone)).toBe(true);
}

describe("a copy on a bad network", () => {
  it.each([1, 2, 3, 4])("to a server: exact, seed %i", (seed) => {
    const { world, client, server, watch } = newWorld(seed);
    const from = randomDisk(world.random.fork("disk"), 40);
    const host = new NotingHost(new Disk());
    const sink = newSink(host);
    const rtrs = new RtrsServer(server.stack.environment, { ...SIZES, ...SHORT }, sink);
    server.stack.host.machines.push(rtrs, sink);
    watch(server.stack.host, () => host.trees);
    const tree = new MemoryTree(from);
    watch(client.stack.host, () => [tree]);
    const source = new CopySource(client.stack.environment, {
      rtrs: {
        sessionName: "copy",
        paths: [{ source: client.address, destination: server.address }],
        ...SHORT,
      },
      crc32: updateCrc32,
      random: world.random.fork("run"),
      operands: [{ tree, path: "", name: "" }],
      target: "folder",
      onProblem: ({ path, errno }) => expect.fail(`${path}: ${errno}`),
    });
    client.stack.host.machines.push(source);
    source.connect();
    live(world, () => source.isClosed);
    expect(source.error).toBeNull();
    expect(describeDisk(host.disk)).toEqual(describeDisk(from));
    expect(host.ends.at(-1)).toMatchObject({ how: "DONE", counters: { failures: 0 } });
    expect(world.network.counters.lost).toBeGreaterThan(0);
    expect(server.stack.watch.fetchedBytes).toBeGreaterThan(0);
  });

  it.each([5, 6, 7, 8])("from a server, by a session back: exact, seed %i", (seed) => {
    const { world, client, server, watch } = newWorld(seed);
    const from = randomDisk(world.random.fork("disk"), 40);
    const tree = new MemoryTree(from);
    watch(server.stack.host, () => [tree]);
    const sender = new SendingHost(server.stack, from, tree);
    const asked = newSink(sender);
    const rtrs = new RtrsServer(server.stack.environment, { ...SIZES, ...SHORT }, asked);
    server.stack.host.machines.push(rtrs, asked);
    const host = new NotingHost(new Disk());
    const sink = newSink(host);
    watch(client.stack.host, () => host.trees);
    const { environment } = client.stack;
    const callback = new RtrsCallback(
      environment,
      { local: client.address, peer: server.address, ...SIZES, ...SHORT },
      sink,
    );
    const asker = new CopyAsker(environment, {
      rtrs: {
        sessionName: "asker",
        paths: [{ source: client.address, destination: server.address }],
        ...SHORT,
      },
      pull: { ...callback.offer, paths: ["files"] },
      run: { high: 1, low: seed },
    });
    client.stack.host.machines.push(asker, callback, sink);
    asker.connect();
    live(world, () => sender.source?.isClosed === true);
    expect(asker.error).toBeNull();
    expect(sender.source?.error).toBeNull();
    expect(describeDisk(host.disk)).toEqual(describeDisk(from));
    expect(host.tells.at(-1)).toMatchObject({ what: "DONE" });
    expect(client.stack.watch.fetchedBytes).toBeGreaterThan(0);
    expect(host.tells.some((tell) => tell.what === "FOUND" && tell.all)).toBe(true);
  });
});

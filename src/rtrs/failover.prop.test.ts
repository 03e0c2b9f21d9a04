// SPDX-License-Identifier: MIT
// A session with two paths that are cut at any moment, on a server whose disk takes its time: a
// request that is sent again by another path may still be in the disk from the first. Whatever the
// order in which the disk finishes, no write lands behind a later one.

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { RtrsServer, type RtrsServerUser, type ServerRequest } from "./index.js";
import { connectPath, RawPath } from "./multi-path.fixture.js";
import { MS, Pipe, SECOND, TestHost } from "./pair.fixture.js";
import { RAW_DEPTH } from "./raw.fixture.js";

const PATH_COUNT = 2;
const BLOCK_COUNT = 3;

/** A disk that finishes what it is told to, in any order. */
class SlowDisk implements RtrsServerUser {
  readonly held: ServerRequest[] = [];
  readonly values = new Array<number>(BLOCK_COUNT).fill(0);
  /** The newest value that the client knows to be there. */
  readonly acknowledged = new Array<number>(BLOCK_COUNT).fill(0);
  sessionCount = 0;

  onSessionUp(): void {
    this.sessionCount++;
  }

  onSessionDown(): void {
    expect(this.held).toEqual([]);
    this.sessionCount--;
  }

  onRequest(request: ServerRequest): void {
    expect(this.held.map(({ chunk }) => chunk)).not.toContain(request.chunk);
    this.held.push(request);
  }

  finish(index: number): void {
    const [request] = this.held.splice(index, 1);
    if (request === undefined) throw new Error("the disk has it");
    const { view } = request.memory;
    const value = view.getUint32(request.memoryOffset, true);
    expect(view.getUint32(request.memoryOffset + 4, true)).toBe(~value >>> 0);
    const block = request.userView.getUint32(0, true);
    expect(value).toBeGreaterThanOrEqual(this.acknowledged[block] as number);
    this.values[block] = value;
    request.complete(0);
  }
}

interface Write {
  readonly block: number;
  readonly value: number;
  path: RawPath | null;
}

/** The server, and a client that has one write at most in flight to each block. */
class World {
  readonly pipe = new Pipe();
  readonly disk = new SlowDisk();
  readonly hosts: TestHost[] = [];
  readonly paths: (RawPath | null)[] = [null, null];
  readonly server: RtrsServer;
  /** By permit. */
  readonly writes = new Map<number, Write>();
  private readonly serverHost = new TestHost("192.0.2.2", 2);
  private readonly attempts = [0, 0];
  private lastValue = 0;

  constructor() {
    this.pipe.hosts.push(this.serverHost);
    const options = { queueDepth: RAW_DEPTH, chunkBytes: 16_384, pathCountMax: PATH_COUNT };
    this.server = new RtrsServer(this.serverHost.environment, options, this.disk);
    this.serverHost.machines.push(this.server);
    for (let i = 0; i < PATH_COUNT; i++) {
      const host = new TestHost(`192.0.2.${20 + i}`, 20 + i);
      this.hosts.push(host);
      this.pipe.hosts.push(host);
      this.connect(i);
    }
  }

  /** Another attempt on a path that is cut; sends what waits for a path. */
  connect(index: number): void {
    if (this.paths[index] !== null) return;
    const attempt = (this.attempts[index] as number) + 1;
    this.attempts[index] = attempt;
    const identity = { server: this.serverHost, session: 1, path: 40 + index, attempt };
    const path = connectPath(this.pipe, this.hosts[index] as TestHost, identity);
    if (!(path instanceof RawPath)) return;
    path.onReply = (permit) => this.onReply(permit);
    this.paths[index] = path;
    this.resend();
  }

  submit(pick: number): void {
    const busy = [...this.writes.values()].map(({ block }) => block);
    const block = [...new Array(BLOCK_COUNT).keys()].find((b) => !busy.includes(b));
    const permit = [...new Array(RAW_DEPTH).keys()].find((p) => !this.writes.has(p));
    if (block === undefined || permit === undefined) return;
    this.writes.set(permit, { block, value: ++this.lastValue, path: null });
    this.send(permit, pick);
  }

  finishOne(pick: number): void {
    const { held } = this.disk;
    if (held.length > 0) this.disk.finish(pick % held.length);
  }

  cut(index: number, saysGoodbye: boolean): void {
    const path = this.paths[index];
    if (path === null || path === undefined) return;
    path.cut();
    this.paths[index] = null;
    if (saysGoodbye) path.end();
    for (const write of this.writes.values()) if (write.path === path) write.path = null;
    this.resend();
  }

  /** Everything the client has submitted is done in the end. */
  drain(): void {
    for (let round = 0; this.writes.size > 0; round++) {
      if (round > 100) throw new Error("writes do not end");
      while (this.disk.held.length > 0) this.finishOne(0);
      this.pipe.run(100 * MS);
      for (let i = 0; i < PATH_COUNT; i++) if (this.paths[i]?.isBroken === true) this.cut(i, true);
      for (let i = 0; i < PATH_COUNT; i++) this.connect(i);
    }
  }

  private resend(): void {
    for (const permit of this.writes.keys()) this.send(permit, permit);
  }

  private send(permit: number, pick: number): void {
    const write = this.writes.get(permit) as Write;
    const up = this.paths.filter((path) => path !== null);
    const path = up[pick % Math.max(1, up.length)];
    if (write.path !== null || path === undefined) return;
    write.path = path;
    path.write(permit, write.block, write.value);
  }

  private onReply(permit: number): void {
    const write = this.writes.get(permit);
    if (write === undefined) throw new Error("a reply for a request in flight");
    this.disk.acknowledged[write.block] = write.value;
    this.writes.delete(permit);
  }
}

const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("write"), pick: fc.nat(6) }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("finish"), pick: fc.nat(6) }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("run"), pick: fc.nat(6) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("cut"), pick: fc.nat(3) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("connect"), pick: fc.nat(1) }) },
);

function play(world: World, kind: string, pick: number): void {
  if (kind === "write") world.submit(pick);
  else if (kind === "finish") world.finishOne(pick);
  else if (kind === "run") world.pipe.run(pick * 7_000);
  else if (kind === "cut") world.cut(pick & 1, pick > 1);
  else world.connect(pick);
}

describe("failover between the paths of a session", () => {
  it("cut and sent again at any moment → no write behind a later one, none lost", () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 20, maxLength: 120 }), (steps) => {
        const world = new World();
        for (const { kind, pick } of steps) play(world, kind, pick);
        world.drain();
        expect(world.disk.values).toEqual(world.disk.acknowledged);
        world.server.close();
        world.pipe.run(10 * SECOND);
        expect(world.server.isClosed).toBe(true);
        expect(world.disk.sessionCount).toBe(0);
      }),
      { numRuns: 25 },
    );
  });
});

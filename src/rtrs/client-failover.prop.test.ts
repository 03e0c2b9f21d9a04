// SPDX-License-Identifier: MIT
// A client of two paths, cut one by one and together at any moment, on a server whose disk takes
// its time and finishes in any order: no write lands behind a later one that was submitted after
// its answer. (failover.prop.test.ts says the same of the server, to a client made by hand.)

import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { QP_STATE } from "../verbs/index.js";
import type { ClientPath } from "./client/client-path.js";
import type { ClientRequest, ServerRequest } from "./index.js";
import { MS, Pair } from "./pair.fixture.js";

const BLOCK_COUNT = 3;
/** Not a block: what a request reads that changes nothing. */
const NOTHING = 99;

class World {
  readonly pair: Pair;
  readonly held: ServerRequest[] = [];
  readonly values = new Array<number>(BLOCK_COUNT).fill(0);
  /** The newest value that the client knows to be there. */
  readonly acknowledged = new Array<number>(BLOCK_COUNT).fill(0);
  /** How often permits in doubt had to be settled. */
  settledCount = 0;
  private readonly busy = new Map<ClientRequest, { block: number; value: number }>();
  private lastValue = 0;

  constructor() {
    const patience = { heartbeatIntervalNs: 50 * MS, reconnectDelayNsMax: 200 * MS };
    const server = { heartbeatIntervalNs: 20_000 * MS };
    this.pair = new Pair({ ...patience, disconnectTimeoutNs: 20 * MS }, server, {}, 2);
    const { clientNotes, serverNotes, client } = this.pair;
    serverNotes.onAny = (request) => this.onRequest(request);
    clientNotes.reissuesAtOnce = false;
    const onSessionUp = clientNotes.onSessionUp.bind(clientNotes);
    clientNotes.onSessionUp = () => {
      onSessionUp();
      this.settle();
    };
    clientNotes.onComplete = (request) => {
      this.onComplete(request);
      client.release(request);
    };
    this.pair.connect();
  }

  submit(): void {
    const taken = [...this.busy.values()].map(({ block }) => block);
    const block = [...new Array(BLOCK_COUNT).keys()].find((b) => !taken.includes(b));
    if (block === undefined || this.lastValue >= 255) return;
    const value = ++this.lastValue;
    this.busy.set(this.pair.write(block, value, 512), { block, value });
  }

  finishOne(pick: number): void {
    const [request] = this.held.splice(pick % Math.max(1, this.held.length), 1);
    if (request === undefined) return;
    const value = request.memory.bytes[request.memoryOffset] as number;
    const block = request.userView.getUint32(0, true);
    expect(value, "no write behind a later one").toBeGreaterThanOrEqual(
      this.acknowledged[block] as number,
    );
    this.values[block] = value;
    request.complete(0);
  }

  /** The client gives a path up; the server hears of it when the path's network is whole. */
  breakPath(index: number): void {
    const { connections } = this.pair.client.paths[index] as ClientPath;
    for (const { qp } of connections) qp.modifyQp({ state: QP_STATE.ERR });
  }

  drain(): void {
    const { pair } = this;
    pair.pipe.cutPorts.clear();
    for (let round = 0; pair.client.inflight > 0; round++) {
      if (round > 200) throw new Error("requests do not end");
      while (this.held.length > 0) this.finishOne(0);
      pair.pipe.run(50 * MS);
    }
    while (this.held.length > 0) this.finishOne(0);
  }

  private settle(): void {
    const { client } = this.pair;
    if (client.state !== "CONNECTED") return;
    if (client.unsettledCount === 0) {
      client.reissue();
      return;
    }
    const request = client.acquireReserved();
    if (request === null) throw new Error("a reserved request is free");
    this.settledCount++;
    request.userView.setUint32(0, NOTHING, true);
    request.userLength = 4;
    request.retry = false;
    client.submitWrite(request, 0);
  }

  private onRequest(request: ServerRequest): void {
    if (request.userView.getUint32(0, true) === NOTHING) request.complete(0);
    else this.held.push(request);
  }

  private onComplete(request: ClientRequest): void {
    const write = this.busy.get(request);
    if (write === undefined) {
      this.settle();
      return;
    }
    expect(request.errno).toBe(0);
    this.acknowledged[write.block] = write.value;
    this.busy.delete(request);
  }
}

const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("write"), pick: fc.nat(0) }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("finish"), pick: fc.nat(6) }) },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("run"), pick: fc.nat(20) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("break"), pick: fc.nat(1) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("cut"), pick: fc.nat(1) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("mend"), pick: fc.nat(1) }) },
);

function play(world: World, kind: string, pick: number): void {
  const { pipe } = world.pair;
  if (kind === "write") world.submit();
  else if (kind === "finish") world.finishOne(pick);
  else if (kind === "run") pipe.run(pick * pick * 500_000);
  else if (kind === "break") world.breakPath(pick);
  else if (kind === "cut") pipe.cutPorts.add(pick);
  else pipe.cutPorts.delete(pick);
  if (kind !== "run") pipe.run(30_000);
}

describe("failover of a client's session", () => {
  it("a permit in doubt is not passed by: the old copy and the new one never meet", () => {
    const world = new World();
    const { pair, held } = world;
    const connected = () => pair.client.paths.filter(({ state }) => state === "CONNECTED").length;
    pair.pipe.until(() => connected() === 2, "both paths are up");
    world.submit();
    world.submit();
    pair.pipe.run(MS);
    // The second has permit 1, and would be sent again under permit 0, which the first has left.
    world.finishOne(0);
    pair.pipe.run(MS);
    const carrier = pair.client.paths.findIndex(({ inflight }) => inflight === 1);
    pair.pipe.cutPorts.add(carrier);
    world.breakPath(carrier);
    world.breakPath(1 - carrier);
    pair.pipe.until(() => pair.client.state === "RECONNECTING", "both paths are lost");
    pair.pipe.until(() => pair.client.state === "CONNECTED", "the other is back");
    pair.pipe.run(100 * MS);
    expect(held.length, "the server runs the old copy alone").toBe(1);
    world.finishOne(0);
    pair.pipe.until(() => held.length === 1, "the request is sent again");
    world.drain();
    expect(world.settledCount).toBe(1);
    expect(world.values).toEqual(world.acknowledged);
  });

  it("paths cut one by one and together → no write behind a later one, none lost", () => {
    let settledCount = 0;
    fc.assert(
      fc.property(fc.array(step, { minLength: 30, maxLength: 120 }), (steps) => {
        const world = new World();
        for (const { kind, pick } of steps) play(world, kind, pick);
        world.drain();
        expect(world.values).toEqual(world.acknowledged);
        settledCount += world.settledCount;
      }),
      { numRuns: 15, seed: 1 },
    );
    // What it is about has happened.
    expect(settledCount).toBeGreaterThan(0);
  });
});

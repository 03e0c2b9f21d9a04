// SPDX-License-Identifier: MIT
// A Linux server's chunks belong to all paths of a session, and the queue pair of a path that was
// lost, when it is flushed at last, takes for a request whatever is in them (client-permits.ts).
// Here the client is shown to leave nothing there that could be taken for one.

import { describe, expect, it } from "vitest";
import { ERRNO, type Memory } from "../base/index.js";
import { MS, Pair } from "./pair.fixture.js";

const HEARTBEAT = { heartbeatIntervalNs: 500 * MS };
const USER_BYTES = 4;

/** A chunk, and where in it a request's header was. */
interface Place {
  readonly memory: Memory;
  readonly chunk: number;
  readonly header: number;
}

class Scene {
  readonly pair: Pair;
  /** Of every request that the server has seen, in order. */
  readonly places: Place[] = [];
  holds = false;
  private readonly held: (() => void)[] = [];

  constructor(queueDepth: number) {
    const client = { reconnectDelayNsMax: 100 * MS, reservedRequests: 0 };
    const server = { ...HEARTBEAT, queueDepth, copyBytesMax: 0 };
    const pair = new Pair({ ...HEARTBEAT, ...client }, server, {}, 2);
    this.pair = pair;
    pair.clientNotes.onComplete = (request) => pair.client.release(request);
    pair.serverNotes.onAny = (request) => {
      const { memory, memoryOffset: chunk, dataLength } = request;
      this.places.push({ memory, chunk, header: chunk + dataLength + USER_BYTES });
      if (this.holds) this.held.push(() => request.complete(0));
      else request.complete(0);
    };
    pair.connect();
    pair.pipe.until(() => this.connectedCount === 2, "both paths are up");
  }

  get connectedCount(): number {
    return this.pair.client.paths.filter(({ state }) => state === "CONNECTED").length;
  }

  /** @returns places of the requests of `path`, which is lost with them, at the other one. */
  lose(path: 0 | 1, count: number): Place[] {
    const { pair } = this;
    this.holds = true;
    for (let block = 0; block < count; block++) pair.write(block, 10 + block);
    pair.pipe.run(MS);
    const seen = this.places.length;
    pair.pipe.cutPorts.add(path);
    pair.pipe.until(() => pair.client.paths[path]?.state !== "CONNECTED", "it is lost");
    this.holds = false;
    for (const answer of this.held.splice(0)) answer();
    pair.untilIdle();
    pair.pipe.run(MS);
    return this.places.slice(seen);
  }

  write(count: number): Place[] {
    const seen = this.places.length;
    for (let block = 0; block < count; block++) this.pair.write(block, 20 + block);
    this.pair.untilIdle();
    return this.places.slice(seen);
  }
}

const typeAt = ({ memory, header }: Place): number =>
  new DataView(memory.bytes.buffer, memory.bytes.byteOffset).getUint32(header, true);

describe("a path is lost with requests in flight", () => {
  it("once they are answered by the other, no header of them is left in the chunks", () => {
    const scene = new Scene(16);
    const moved = scene.lose(0, 6);
    expect(moved).toHaveLength(3);
    expect(moved.map(typeAt)).toEqual([0, 0, 0]);
    // Those of a path that lives are as they were.
    const [after] = scene.write(1);
    expect(typeAt(after as Place)).not.toBe(0);
  });

  it("their chunks are used by no other request, until the path is back", () => {
    const scene = new Scene(16);
    const chunks = new Set(scene.lose(0, 6).map(({ chunk }) => chunk));
    for (let round = 0; round < 3; round++) {
      for (const { chunk } of scene.write(8)) expect(chunks).not.toContain(chunk);
    }
    scene.pair.pipe.cutPorts.clear();
    scene.pair.pipe.until(() => scene.connectedCount === 2, "it is back");
    // Permits are given out lowest first.
    const again = scene.write(6).map(({ chunk }) => chunk);
    for (const chunk of chunks) expect(again).toContain(chunk);
  });

  it("no other permit is left → theirs are used after all, nothing waits for the path", () => {
    const scene = new Scene(4);
    scene.lose(1, 4);
    for (let round = 0; round < 5; round++) expect(scene.write(4)).toHaveLength(4);
    expect(new Set(scene.pair.clientNotes.errnos)).toEqual(new Set([0]));
    expect(scene.connectedCount).toBe(1);
  });

  it("then the other path too, in turns → all is answered, no chunk is lost", () => {
    const scene = new Scene(8);
    for (let round = 0; round < 4; round++) {
      const path = (round & 1) as 0 | 1;
      scene.lose(path, 8);
      expect(scene.write(8)).toHaveLength(8);
      scene.pair.pipe.cutPorts.clear();
      scene.pair.pipe.until(() => scene.connectedCount === 2, "it is back");
    }
    expect(scene.pair.clientNotes.errnos).not.toContain(ERRNO.ECONNRESET);
    scene.pair.client.checkInvariants();
  });
});

// SPDX-License-Identifier: MIT
// The two ways by which a server with rotating keys keeps a request from its client's hands.

import { describe, expect, it } from "vitest";
import { WR_OPCODE } from "../verbs/index.js";
import { chunksOf, HostileScene, isAccessError, writeHeader } from "./hostile.fixture.js";
import { MS, Pair, SECOND } from "./pair.fixture.js";

describe("rotating keys, chunks closed", () => {
  it("a write to a chunk that the server looks at → refused, the data unchanged", () => {
    const scene = new HostileScene(true, 0).up();
    const { pair, raw } = scene;
    pair.serverNotes.holds = true;
    raw.request(2, Uint8Array.from([7, 7, 1, 0, 0, 0, ...writeHeader(4)]), 0, 6);
    pair.pipe.run(MS);
    const [request] = pair.serverNotes.requests;
    if (request === undefined) throw new Error("the request has arrived");
    const data = () => [
      ...request.memory.bytes.subarray(request.memoryOffset, request.memoryOffset + 2),
    ];
    expect(data()).toEqual([7, 7]);
    raw.request(2, Uint8Array.from([8, 8]), 0, 6);
    pair.pipe.run(SECOND);
    expect(data()).toEqual([7, 7]);
    expect(raw.connectionAt(1).completions.some(isAccessError)).toBe(true);
    pair.serverNotes.answerAll();
    expect(scene.fate()).toMatch(/failed/);
    scene.expectOthersWell();
  });

  it("the key of the request before → stale, the path is closed", () => {
    const scene = new HostileScene(true, 0).up();
    scene.raw.request(2, writeHeader(0), 0, 0);
    expect(scene.fate()).toBe("");
    scene.raw.request(2, writeHeader(0), 0, 0);
    expect(scene.fate()).toMatch(/failed/);
    scene.expectOthersWell();
  });

  it("keys of one chunk → never the next number, never one that was", () => {
    const pair = new Pair({}, { copyBytesMax: 0 });
    pair.connect();
    const seen = new Set<number>();
    let neighbours = 0;
    let before = 0;
    for (let i = 0; i < 100; i++) {
      const key = chunksOf(pair).keys[0] as number;
      if (seen.has(key) || Math.abs(key - before) < 256) neighbours++;
      seen.add(key);
      before = key;
      const write = pair.write(0, 1);
      pair.untilIdle();
      pair.client.release(write);
    }
    expect(seen.size).toBe(100);
    expect(neighbours).toBe(0);
  });
});

describe("rotating keys, short requests copied", () => {
  it("a write to a chunk that the server looks at → goes in, the data unchanged", () => {
    const scene = new HostileScene().up();
    const { pair, raw } = scene;
    pair.serverNotes.holds = true;
    raw.request(2, Uint8Array.from([7, 7, 1, 0, 0, 0, ...writeHeader(4)]), 0, 6);
    pair.pipe.run(MS);
    const [request] = pair.serverNotes.requests;
    if (request === undefined) throw new Error("the request has arrived");
    const { memory, memoryOffset: at } = request;
    raw.request(2, Uint8Array.from([8, 8]), 0, 0, (wr) => {
      wr.opcode = WR_OPCODE.RDMA_WRITE;
    });
    pair.pipe.run(SECOND);
    expect([...memory.bytes.subarray(at, at + 2)]).toEqual([7, 7]);
    pair.serverNotes.answerAll();
    expect(scene.fate()).toBe("");
    scene.expectOthersWell();
  });

  it("one byte longer than what is copied → the chunk is closed", () => {
    const scene = new HostileScene(true, 64).up();
    const { raw } = scene;
    const request = (bytes: number) => [...new Uint8Array(bytes), ...writeHeader(4)];
    raw.request(2, Uint8Array.from(request(64)), 0, 64);
    expect(scene.fate()).toBe("");
    raw.request(2, Uint8Array.from(request(65)), 0, 65);
    expect(scene.fate()).toBe("");
    // The key of before opens it no longer.
    raw.request(2, Uint8Array.from(request(64)), 0, 64);
    expect(scene.fate()).toMatch(/failed/);
    scene.expectOthersWell();
  });
});

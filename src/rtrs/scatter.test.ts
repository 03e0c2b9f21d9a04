// SPDX-License-Identifier: MIT
// Requests whose data is in several places.

import { describe, expect, it } from "vitest";
import type { Memory } from "../base/index.js";
import type { ClientRequest } from "./index.js";
import { Pair } from "./pair.fixture.js";

function connected(client = {}): { pair: Pair; other: Memory } {
  const pair = new Pair(client);
  const other = pair.clientHost.memory.allocate(16_384);
  pair.client.registerMemory(other);
  pair.connect();
  return { pair, other };
}

/** A request about block 7 with pieces of memories, from offsets, of lengths. */
function pieced(
  pair: Pair,
  places: readonly (readonly [Memory, offset: number, length: number])[],
): ClientRequest {
  const request = pair.client.acquire();
  if (request === null) throw new Error("a request is free");
  request.userView.setUint32(0, 7, true);
  request.userLength = 4;
  places.forEach(([memory, memoryOffset, length], i) => {
    Object.assign(request.pieces[i] as object, { memory, memoryOffset, length });
  });
  request.pieceCount = places.length;
  return request;
}

describe("a request with a scatter list", () => {
  for (const invalidate of [true, false]) {
    it(`WRITE gathers, READ scatters, own keys for reads ${invalidate}`, () => {
      const { pair, other } = connected({ invalidate });
      pair.data.bytes.fill(1, 100, 1100);
      other.bytes.fill(2, 0, 1);
      pair.data.bytes.fill(3, 5000, 5511);
      const write = pieced(pair, [
        [pair.data, 100, 1000],
        [other, 0, 1],
        [pair.data, 5000, 511],
      ]);
      pair.client.submitWrite(write, 1512);
      pair.untilIdle();
      expect(write.errno).toBe(0);
      const stored = pair.serverNotes.blocks.get(7) as Uint8Array;
      expect([...stored]).toEqual([...Array(1000).fill(1), 2, ...Array(511).fill(3)]);
      pair.client.release(write);
      expect(write.pieceCount).toBe(0);
      for (const memory of [pair.data, other]) memory.bytes.fill(0xee);
      const read = pieced(pair, [
        [other, 9, 1001],
        [pair.data, 20_000, 511],
      ]);
      pair.client.submitRead(read, 1512);
      pair.untilIdle();
      expect(read.errno).toBe(0);
      expect([...other.bytes.subarray(8, 1011)]).toEqual([0xee, ...Array(1000).fill(1), 2, 0xee]);
      expect([...pair.data.bytes.subarray(19_999, 20_512)]).toEqual([
        0xee,
        ...Array(511).fill(3),
        0xee,
      ]);
      pair.client.release(read);
      // The same request, without a list: as ever.
      const plain = pair.read(7, 1512);
      pair.untilIdle();
      expect(pair.dataOf(plain)).toEqual(stored);
      pair.client.close();
      pair.pipe.until(() => pair.client.state === "CLOSED", "it gives back what it staged in");
    });
  }

  it("survives the loss of the session in flight", () => {
    const { pair, other } = connected({ reconnectDelayNs: 1e6 });
    pair.write(7, 9, 600);
    pair.untilIdle();
    pair.serverNotes.holds = true;
    const read = pieced(pair, [
      [other, 0, 200],
      [other, 1000, 400],
    ]);
    pair.client.submitRead(read, 600);
    pair.pipe.until(() => pair.serverNotes.requests.length > 0, "it is there");
    pair.killServer();
    pair.restartServer();
    pair.untilIdle();
    expect(read.errno).toBe(0);
    expect(read.reissueCount).toBeGreaterThan(0);
    expect(other.bytes[199]).toBe(9);
    expect(other.bytes[200]).toBe(0);
    expect(other.bytes[1399]).toBe(9);
  });

  it("whose lengths are not the data's → a bug of the caller", () => {
    const { pair, other } = connected();
    const request = pieced(pair, [[other, 0, 10]]);
    expect(() => pair.client.submitWrite(request, 11)).toThrow("the pieces of a request");
  });
});

// SPDX-License-Identifier: MIT
// A client and a server over two devices: what their users see of each other.

import { describe, expect, it } from "vitest";
import { MS, Pair, SECOND } from "./pair.fixture.js";

describe.each([
  { alwaysInvalidate: true, invalidate: true },
  { alwaysInvalidate: true, invalidate: false },
  { alwaysInvalidate: false, invalidate: true },
  { alwaysInvalidate: false, invalidate: false },
])("session with $alwaysInvalidate key rotation and $invalidate read keys", (mode) => {
  const { alwaysInvalidate, invalidate } = mode;

  it("connect → both users hear of it, and the client knows the limits", () => {
    const pair = new Pair({ invalidate }, { alwaysInvalidate });
    pair.connect();
    expect(pair.clientNotes.events).toEqual(["up"]);
    expect(pair.serverNotes.events).toEqual(["up blue"]);
    expect(pair.client.maxIoBytes).toBe(12_288);
    expect(pair.client.queueDepth).toBe(7);
  });

  it("writes and reads → every byte arrives, more requests than chunks", () => {
    const pair = new Pair({ invalidate }, { alwaysInvalidate });
    pair.connect();
    for (let round = 0; round < 20; round++) {
      const requests = Array.from({ length: 7 }, (_, i) => pair.write(i, (round + i) & 255));
      pair.untilIdle();
      for (const request of requests) pair.client.release(request);
      const reads = Array.from({ length: 7 }, (_, i) => pair.read(i));
      pair.untilIdle();
      reads.forEach((read, i) => {
        expect(pair.dataOf(read)).toEqual(new Uint8Array(4096).fill((round + i) & 255));
        pair.client.release(read);
      });
    }
    expect(pair.clientNotes.errnos.every((errno) => errno === 0)).toBe(true);
    expect(pair.clientNotes.errnos.length).toBe(280);
  });
});

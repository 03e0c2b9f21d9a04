// SPDX-License-Identifier: MIT
// A client that writes to a chunk after the server has taken it, or that has the server look at it
// once more. (A chunk that changes at every moment: `src/rtrs/chunk-race.test.ts`.)

import { describe, expect, it } from "vitest";
import { WR_OPCODE } from "../../src/verbs/index.js";
import { RNBD_OP, type RtrsDescriptor } from "../../src/wire/index.js";
import { type Attacker, rnbd } from "./attacker.js";
import { MS, OWN_BYTE, Scene } from "./scene.js";

/** Writes `bytes` into a chunk as a packet that comes late would, by the key of `descriptor`. */
function writeLate(attacker: Attacker, descriptor: RtrsDescriptor, bytes: Uint8Array): void {
  attacker.request(0, bytes, 0, 0, (wr) => {
    wr.opcode = WR_OPCODE.RDMA_WRITE;
    wr.remoteAddressHigh = descriptor.addressHigh;
    wr.remoteAddressLow = descriptor.addressLow;
    wr.rkey = descriptor.rkey;
  });
}

describe("a write that comes after the request", () => {
  it("rotating keys, closed → refused by the device, the path ends, the disk has the first", () => {
    const scene = new Scene({ copyBytesMax: 0 });
    const attacker = scene.attacker();
    const id = scene.open(attacker, "own");
    const [descriptor] = attacker.chunks as [RtrsDescriptor];
    attacker.post({ user: rnbd.io(id, RNBD_OP.WRITE, 0, 512), data: new Uint8Array(512).fill(1) });
    scene.until("the disk has it", () => scene.inflight("own") > 0);
    writeLate(attacker, descriptor, new Uint8Array(512).fill(2));
    scene.until("the path ends", () => attacker.isDisconnected);
    expect(attacker.hasAccessError).toBe(true);
    expect(scene.fate(attacker)).toMatch(/connection 1 failed/);
    expect(scene.contents("own").subarray(0, 513)).toEqual(
      new Uint8Array(513).fill(1, 0, 512).fill(OWN_BYTE, 512),
    );
    scene.expectNobodyHarmed();
  });

  it("rotating keys, copied → goes in and changes nothing: the disk has the first", () => {
    const scene = new Scene();
    const attacker = scene.attacker();
    const id = scene.open(attacker, "own");
    const [descriptor] = attacker.chunks as [RtrsDescriptor];
    attacker.post({ user: rnbd.io(id, RNBD_OP.WRITE, 0, 512), data: new Uint8Array(512).fill(1) });
    scene.until("the disk has it", () => scene.inflight("own") > 0);
    writeLate(attacker, descriptor, new Uint8Array(512).fill(2));
    scene.until("the reply", () => attacker.replies.has(0));
    expect(attacker.replies.get(0)).toBe(0);
    expect(scene.contents("own").subarray(0, 513)).toEqual(
      new Uint8Array(513).fill(1, 0, 512).fill(OWN_BYTE, 512),
    );
    scene.expectNobodyHarmed();
  });

  it("fixed keys → the data may be a mixture, of its own volume, where it said", () => {
    const scene = new Scene({ alwaysInvalidate: false });
    const attacker = scene.attacker();
    const id = scene.open(attacker, "own");
    const [descriptor] = attacker.chunks as [RtrsDescriptor];
    const data = new Uint8Array(512).fill(1);
    attacker.post({ user: rnbd.io(id, RNBD_OP.WRITE, 0, 512), data });
    scene.until("the disk has it", () => scene.inflight("own") > 0);
    writeLate(attacker, descriptor, new Uint8Array(2048).fill(2));
    scene.until("the reply", () => attacker.replies.has(0));
    expect(attacker.replies.get(0)).toBe(0);
    const now = scene.contents("own");
    expect(now.subarray(0, 512).every((byte) => byte === 1 || byte === 2)).toBe(true);
    expect(now.subarray(512).every((byte) => byte === OWN_BYTE)).toBe(true);
    scene.expectNobodyHarmed();
  });
});

describe.each([true, false])(
  "an immediate that comes again, rotating keys %s",
  (alwaysInvalidate) => {
    const again = (attacker: Attacker) => {
      attacker.post({
        user: new Uint8Array(0),
        lies: { change: (wr) => Object.assign(wr, EMPTY) },
      });
    };
    // An empty RDMA write needs no key; the immediate names chunk 0 and offset 544.
    const EMPTY = { sgeCount: 0, rkey: 0, immediate: 544 };

    it("while the server has the chunk → CHUNK_IN_USE", () => {
      const scene = new Scene({ alwaysInvalidate });
      const attacker = scene.attacker();
      const id = scene.open(attacker, "own");
      attacker.post({
        user: rnbd.io(id, RNBD_OP.WRITE, 0, 512),
        data: new Uint8Array(512).fill(1),
      });
      scene.until("the disk has it", () => scene.inflight("own") > 0);
      again(attacker);
      expect(scene.fate(attacker)).toMatch(/CHUNK_IN_USE/);
      scene.expectNobodyHarmed();
    });

    it("after the reply → BAD_TYPE: a header is good for one request", () => {
      const scene = new Scene({ alwaysInvalidate });
      const attacker = scene.attacker();
      const id = scene.open(attacker, "own");
      const user = rnbd.io(id, RNBD_OP.WRITE, 0, 512);
      expect(scene.run(attacker, { user, data: new Uint8Array(512).fill(1) }).errno).toBe(0);
      const counters = scene.rnbd.volume("own")?.counters;
      expect(counters?.writes).toBe(1);
      again(attacker);
      scene.world.run(MS);
      expect(scene.fate(attacker)).toMatch(/BAD_TYPE/);
      expect(counters?.writes).toBe(1);
      scene.expectNobodyHarmed();
    });
  },
);

// SPDX-License-Identifier: MIT
// Keys that a client has no right to: another session's, another path's, yesterday's, guessed ones;
// and rights and ranges that its own keys do not have.

import { describe, expect, it } from "vitest";
import { SEND_FLAG, SendWorkRequest, WC_STATUS, WR_OPCODE } from "../../src/verbs/index.js";
import { RNBD_OP, type RtrsDescriptor } from "../../src/wire/index.js";
import { type Attacker, CHUNK_BYTES, CHUNK_COUNT, rnbd } from "./attacker.js";
import { Scene } from "./scene.js";

const LATE = new Uint8Array(512).fill(0xbb);

/** A plain RDMA WRITE to `place`, by whatever key that says. */
function write(attacker: Attacker, place: RtrsDescriptor, bytes = LATE, offset = 0): void {
  attacker.send(attacker.connectionAt(1), bytes, (wr) => {
    wr.opcode = WR_OPCODE.RDMA_WRITE;
    wr.remoteAddressHigh = place.addressHigh;
    wr.remoteAddressLow = place.addressLow + offset;
    wr.rkey = place.rkey;
  });
}

function expectRefused(scene: Scene, attacker: Attacker): void {
  scene.until("the work request fails", () => attacker.isDisconnected);
  expect(attacker.hasAccessError).toBe(true);
  expect(scene.fate(attacker)).toMatch(/connection 1 failed/);
  scene.expectNobodyHarmed();
}

/** Starts a write of `first` that is in the disk when this returns. */
function startWrite(scene: Scene, attacker: Attacker, first: Uint8Array): void {
  const id = scene.open(attacker, "own");
  attacker.post({ user: rnbd.io(id, RNBD_OP.WRITE, 0, first.length), data: first });
  scene.until("the disk has it", () => scene.inflight("own") > 0);
}

describe.each([true, false])("keys of others, rotating keys %s", (alwaysInvalidate) => {
  it("another session's key from one's own QP → refused, the other's chunk unchanged", () => {
    const scene = new Scene({ alwaysInvalidate });
    const victim = scene.attacker(66);
    const attacker = scene.attacker(67);
    const place = victim.chunks[0] as RtrsDescriptor;
    // The very key that opens the victim's chunk now, to the victim.
    write(attacker, place);
    expectRefused(scene, attacker);
    const id = scene.open(victim, "own");
    const user = rnbd.io(id, RNBD_OP.WRITE, 0, 512);
    // It claims data and sends none: what it gets written is what its chunk holds.
    expect(scene.run(victim, { chunk: 0, user, withheldBytes: 512 }).errno).toBe(0);
    expect(scene.contents("own").subarray(0, 512).includes(0xbb)).toBe(false);
  });

  it("a second path's key, when the first's is taken back → refused, the data unchanged", () => {
    const scene = new Scene({ alwaysInvalidate });
    const first = scene.attacker(66, 66);
    const second = scene.attackerAt(67, 66);
    scene.joinWith(second);
    startWrite(scene, first, new Uint8Array(512).fill(1));
    const held = first.chunks[0] as RtrsDescriptor;
    // The second path's key, to the address of the first path's chunk of the same permit.
    write(second, { ...held, rkey: (second.chunks[0] as RtrsDescriptor).rkey });
    scene.until("the work request fails", () => second.hasAccessError);
    scene.until("the disk is done", () => scene.inflight("own") === 0);
    expect(scene.contents("own").subarray(0, 512)).toEqual(new Uint8Array(512).fill(1));
    scene.expectNobodyHarmed();
  });

  it.each([
    ["one byte behind the end", CHUNK_BYTES * (alwaysInvalidate ? 1 : CHUNK_COUNT) - 511],
    ["one byte ahead of the start", -1],
  ])("one's own key, %s → refused", (_name, offset) => {
    const scene = new Scene({ alwaysInvalidate });
    const attacker = scene.attacker();
    const place = attacker.chunks[0] as RtrsDescriptor;
    write(attacker, place, LATE, offset);
    expectRefused(scene, attacker);
  });

  it.each([
    ["the first address there is", 0, 0],
    ["one whose end wraps at 2^32", 0, 0xffff_ff00],
    ["one whose end wraps at 2^64", 0xffff_ffff, 0xffff_ff00],
  ])("one's own key, %s → refused", (_name, addressHigh, addressLow) => {
    const scene = new Scene({ alwaysInvalidate });
    const attacker = scene.attacker();
    const place = attacker.chunks[0] as RtrsDescriptor;
    write(attacker, { ...place, addressHigh, addressLow });
    expectRefused(scene, attacker);
  });

  it("a read of one's own chunk → refused: keys of chunks are for writing", () => {
    const scene = new Scene({ alwaysInvalidate });
    const attacker = scene.attacker();
    const place = attacker.chunks[0] as RtrsDescriptor;
    const wr = new SendWorkRequest();
    wr.opcode = WR_OPCODE.RDMA_READ;
    wr.sendFlags = SEND_FLAG.SIGNALED;
    const sge = wr.sges[0] as (typeof wr.sges)[number];
    Object.assign(sge, { address: attacker.buffer.address, length: 64 });
    sge.lkey = attacker.bufferRegion.lkey;
    wr.sgeCount = 1;
    Object.assign(wr, { remoteAddressHigh: place.addressHigh, rkey: place.rkey });
    wr.remoteAddressLow = place.addressLow;
    const { qp, completions } = attacker.connectionAt(1);
    // The CM has agreed on no reads at all; a liar's own device would not care.
    qp.tryPostSend(wr);
    scene.world.run(10_000_000);
    const success = completions.some(
      ({ status, opcode }) => status === WC_STATUS.SUCCESS && opcode === 2,
    );
    expect(success).toBe(false);
    expect(attacker.buffer.bytes.every((byte) => byte === 0x77)).toBe(true);
    scene.expectNobodyHarmed();
  });
});

describe("rotating keys, chunks closed", () => {
  it("the key of the request before → refused", () => {
    const scene = new Scene({ copyBytesMax: 0 });
    const attacker = scene.attacker();
    const before = attacker.chunks[0] as RtrsDescriptor;
    expect(scene.run(attacker, { user: rnbd.sessInfo(), readBytes: 64 }).errno).toBe(0);
    expect((attacker.chunks[0] as RtrsDescriptor).rkey).not.toBe(before.rkey);
    write(attacker, before);
    expectRefused(scene, attacker);
  });

  it("guessed keys: neighbours of known ones, small ones, none → refused, each ends a path", () => {
    const scene = new Scene({ copyBytesMax: 0 });
    const guesses: ((key: number) => number)[] = [
      (key) => key + 1,
      (key) => key - 1,
      (key) => key ^ 0xff,
      (key) => key + 256,
      (key) => (key ^ 0x8000_0000) >>> 0,
      () => 0,
      () => 1,
      () => 0xffff_ffff,
    ];
    for (const [i, guess] of guesses.entries()) {
      const attacker = scene.attacker(70 + i);
      const place = attacker.chunks[0] as RtrsDescriptor;
      write(attacker, { ...place, rkey: guess(place.rkey) >>> 0 });
      scene.until("the work request fails", () => attacker.hasAccessError);
      scene.until("the path is gone", () => !scene.isUp(attacker));
    }
    scene.expectNobodyHarmed();
  });

  it("300 keys of a chunk → none comes twice, none is near the one before", () => {
    const scene = new Scene({ copyBytesMax: 0 });
    const attacker = scene.attacker();
    const seen = new Set<number>();
    let before = -1;
    let near = 0;
    for (let i = 0; i < 300; i++) {
      const { rkey } = attacker.chunks[0] as RtrsDescriptor;
      if (Math.abs(rkey - before) < 4096) near++;
      seen.add(rkey);
      before = rkey;
      expect(scene.run(attacker, { user: rnbd.sessInfo(), readBytes: 64 }).errno).toBe(0);
    }
    expect(seen.size).toBe(300);
    expect(near).toBeLessThan(2);
    scene.expectNobodyHarmed();
  });
});

// SPDX-License-Identifier: MIT
// A client that opens, writes, joins or calls itself what it may not.

import { describe, expect, it } from "vitest";
import { ERRNO } from "../../src/base/index.js";
import { decodeRtrsConnectReply, RNBD_ACCESS, RNBD_OP } from "../../src/wire/index.js";
import type { RawConnection } from "../support/raw-peer.js";
import { type Attacker, rnbd } from "./attacker.js";
import { FIXED_BYTE, OWN_BYTE, Scene, VOLUME_BYTES, type VolumeName } from "./scene.js";

const { RO, RW, MIGRATION } = RNBD_ACCESS;
const DATA = new Uint8Array(512).fill(0xbb);

const openErrno = (scene: Scene, attacker: Attacker, volume: VolumeName, access: number) =>
  scene.run(attacker, { user: rnbd.open(volume, access), readBytes: rnbd.openResponseBytes }).errno;

/** The errno of the server's REJ; 0 when it accepts. */
function answer(scene: Scene, connection: RawConnection): number {
  scene.until("the server answers", () => connection.events.length > 0);
  const event = connection.events[0];
  if (event?.type === "ESTABLISHED") return 0;
  const reply = decodeRtrsConnectReply(event?.privateData ?? new Uint8Array(0));
  return typeof reply === "string" ? -1 : reply.errno;
}

describe("opens", () => {
  it("volumes that no rule gives → EACCES, and the log names client and volume", () => {
    const scene = new Scene();
    const attacker = scene.attacker();
    for (const volume of ["closed", "theirs"] as const) {
      for (const access of [RO, RW, MIGRATION]) {
        expect(openErrno(scene, attacker, volume, access)).toBe(ERRNO.EACCES);
      }
    }
    expect(scene.refusals.at(-1)).toBe(
      'client 192.0.2.66, session "raw66", refused with EACCES when it writes volume "theirs": ' +
        "no rule is for it",
    );
    expect(scene.fate(attacker)).toBe("");
    scene.expectNobodyHarmed();
  });

  it("a volume for readers, to write → EROFS, and the log names the rule", () => {
    const scene = new Scene();
    const attacker = scene.attacker();
    for (const access of [RW, MIGRATION]) {
      expect(openErrno(scene, attacker, "fixed", access)).toBe(ERRNO.EROFS);
    }
    expect(scene.refusals.at(-1)).toMatch(/rule "192\.0\.2\.64\/26,volume=fixed,ro"$/);
    scene.expectNobodyHarmed();
  });

  it("writes, discards and zeroes through an open for reading → EROFS, the disk unchanged", () => {
    const scene = new Scene();
    const attacker = scene.attacker();
    for (const [volume, byte] of [
      ["fixed", FIXED_BYTE],
      ["own", OWN_BYTE],
    ] as const) {
      const id = scene.open(attacker, volume, RO);
      const requests = [
        { user: rnbd.io(id, RNBD_OP.WRITE, 0, 512), data: DATA },
        { user: rnbd.io(id, RNBD_OP.DISCARD, 0, 512), data: new Uint8Array(0) },
        { user: rnbd.io(id, RNBD_OP.WRITE_ZEROES, 0, 512), data: new Uint8Array(0) },
      ];
      for (const request of requests) {
        expect(scene.run(attacker, request).errno).toBe(ERRNO.EROFS);
      }
      expect(scene.contents(volume)).toEqual(new Uint8Array(VOLUME_BYTES).fill(byte));
    }
    scene.expectNobodyHarmed();
  });

  it("a volume that is somebody's alone → EBUSY in every mode, until he is gone", () => {
    const scene = new Scene();
    const holder = scene.attacker(66);
    const attacker = scene.attacker(67);
    const id = scene.open(holder, "alone");
    for (const access of [RO, RW, MIGRATION]) {
      expect(openErrno(scene, attacker, "alone", access)).toBe(ERRNO.EBUSY);
    }
    const closing = { user: rnbd.close(id), data: new Uint8Array(0) };
    expect(scene.run(holder, closing).errno).toBe(0);
    expect(openErrno(scene, attacker, "alone", RO)).toBe(0);
    scene.expectNobodyHarmed();
  });

  it("a second writer → EPERM", () => {
    const scene = new Scene();
    scene.open(scene.attacker(66), "own");
    expect(openErrno(scene, scene.attacker(67), "own", RW)).toBe(ERRNO.EPERM);
    scene.expectNobodyHarmed();
  });

  it("another session's device ids → ENOTCONN", () => {
    const scene = new Scene();
    const attacker = scene.attacker();
    // The bystander's device has id 0; the attacker has opened nothing.
    for (let id = 0; id < 4; id++) {
      const write = { user: rnbd.io(id, RNBD_OP.WRITE, 0, 512), data: DATA };
      expect(scene.run(attacker, write).errno).toBe(ERRNO.ENOTCONN);
      expect(scene.run(attacker, { user: rnbd.close(id), data: new Uint8Array(0) }).errno).toBe(0);
    }
    scene.expectNobodyHarmed();
  });

  it("a device that it has closed → ENOTCONN for what comes after", () => {
    const scene = new Scene();
    const attacker = scene.attacker();
    const id = scene.open(attacker, "own");
    scene.run(attacker, { user: rnbd.close(id), data: new Uint8Array(0) });
    const next = scene.open(attacker, "fixed", RO);
    expect(next).not.toBe(id);
    const write = { user: rnbd.io(id, RNBD_OP.WRITE, 0, 512), data: DATA };
    expect(scene.run(attacker, write).errno).toBe(ERRNO.ENOTCONN);
    scene.expectNobodyHarmed();
  });
});

describe("sessions and paths", () => {
  it("an address that no rule names → refused with EACCES, at no cost in memory", () => {
    const scene = new Scene();
    const { usedBytes } = scene.serverMemory;
    const attacker = scene.attackerAt(9);
    expect(answer(scene, attacker.ask())).toBe(ERRNO.EACCES);
    expect(scene.serverMemory.usedBytes).toBe(usedBytes);
    expect(scene.refusals).toEqual(["client 192.0.2.9 refused with EACCES: no rule is for it"]);
    scene.expectNobodyHarmed();
  });

  it("a path into another's session, from an address without its rights → EACCES", () => {
    const scene = new Scene();
    const victim = scene.attacker(66, 5);
    scene.open(victim, "own");
    const pathUuid = new Uint8Array(16).fill(0x44);
    for (const [number, errno] of [
      [9, ERRNO.EACCES],
      // The bystander's own neighbour in the rules: admitted, for other volumes.
      [200, ERRNO.EACCES],
      [67, 0],
    ] as const) {
      const thief = scene.attackerAt(number, 5);
      expect(answer(scene, thief.ask({ pathUuid, connectionId: 0 }))).toBe(errno);
    }
    expect(scene.fate(victim)).toBe("");
    scene.expectNobodyHarmed();
  });

  it("another's path UUID, to end it as a reconnect would → refused, the path lives", () => {
    const scene = new Scene();
    const victim = scene.attacker(66, 5);
    const thief = scene.attackerAt(67, 5);
    expect(answer(scene, thief.ask({ connectionId: 0, reconnectCount: 2 }))).toBe(ERRNO.ECONNRESET);
    expect(scene.fate(victim)).toBe("");
    scene.expectNobodyHarmed();
  });

  it("another's path UUID, while it comes up, for a connection in it → refused", () => {
    const scene = new Scene();
    const victim = scene.attackerAt(66, 5);
    // One that no rule names, and one that has the same rights.
    const thieves = [scene.attackerAt(9, 5), scene.attackerAt(67, 5)];
    expect(answer(scene, victim.ask())).toBe(0);
    for (const thief of thieves) {
      expect(answer(scene, thief.ask({ connectionId: 1 }))).toBe(ERRNO.ECONNRESET);
    }
    expect(answer(scene, victim.ask())).toBe(0);
    victim.askInfo();
    scene.until("its path is up", () =>
      scene.rtrs.sessions().some(({ name }) => name === victim.name),
    );
    scene.expectNobodyHarmed();
  });

  it("the name of another session → disconnected", () => {
    const scene = new Scene();
    const attacker = scene.attackerAt(66);
    for (let cid = 0; cid < 2; cid++) expect(answer(scene, attacker.ask())).toBe(0);
    attacker.askInfo("bystander");
    scene.until("it is disconnected", () => scene.rtrs.counters().closedPaths > 0);
    expect(scene.fate(attacker)).toMatch(/another session is named "bystander"/);
    scene.expectNobodyHarmed();
  });
});

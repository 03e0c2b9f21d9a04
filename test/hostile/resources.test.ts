// SPDX-License-Identifier: MIT
// A client that takes all there is: permits, connections, paths, sessions, memory, time. What it
// can take is bounded, and what it took comes back when it is gone.

import { describe, expect, it } from "vitest";
import { ERRNO } from "../../src/base/index.js";
import { decodeRtrsConnectReply, RNBD_OP } from "../../src/wire/index.js";
import type { RawConnection } from "../support/raw-peer.js";
import { CHUNK_BYTES, CHUNK_COUNT, rnbd } from "./attacker.js";
import { MS, PATH_COUNT_MAX, Scene, SECOND, SESSION_COUNT_MAX } from "./scene.js";

/** The errno of the server's REJ; 0 when it accepts. */
function answer(scene: Scene, connection: RawConnection): number {
  scene.until("the server answers", () => connection.events.length > 0);
  const event = connection.events[0];
  if (event?.type === "ESTABLISHED") return 0;
  const reply = decodeRtrsConnectReply(event?.privateData ?? new Uint8Array(0));
  return typeof reply === "string" ? -1 : reply.errno;
}

/** What each chunk has beside it for copies. */
const COPY_BYTES = 4096;

describe("permits", () => {
  it("every chunk at once → all are served, one more is CHUNK_IN_USE", () => {
    const scene = new Scene();
    const attacker = scene.attacker();
    const id = scene.open(attacker, "own");
    const data = new Uint8Array(512).fill(3);
    for (let chunk = 0; chunk < CHUNK_COUNT; chunk++) {
      attacker.post({ chunk, user: rnbd.io(id, RNBD_OP.WRITE, chunk, 512), data });
    }
    scene.until("all are in the disk", () => scene.inflight("own") === CHUNK_COUNT);
    attacker.post({
      chunk: CHUNK_COUNT - 1,
      user: new Uint8Array(0),
      lies: { change: (wr) => Object.assign(wr, { sgeCount: 0, rkey: 0 }) },
    });
    expect(scene.fate(attacker)).toMatch(/CHUNK_IN_USE/);
    scene.until("the disk is done", () => scene.inflight("own") === 0);
    scene.expectNobodyHarmed();
  });

  it("a thousand heartbeats in a row → answered or not, nobody waits for them", () => {
    const scene = new Scene();
    const attacker = scene.attacker();
    const { qp } = attacker.connectionAt(1);
    for (let i = 0; i < 1000; i++) {
      // As fast as its send queue takes them.
      attacker.send(attacker.connectionAt(1), new Uint8Array(0), (wr) => {
        wr.opcode = 1;
        wr.immediate = 0x8000_0000;
      });
      if (i % 50 === 49) scene.world.run(MS);
    }
    expect(qp.state).toBeDefined();
    scene.expectNobodyHarmed();
  });
});

describe("connections, paths, sessions", () => {
  it.each([
    ["more connections than a path may have", ERRNO.ECONNRESET, { connectionCount: 5 }],
    ["the most connections there are", ERRNO.ECONNRESET, { connectionCount: 0xffff }],
    ["a connection number that is none", ERRNO.ECONNRESET, { connectionId: 2 }],
    ["a session that it may not make", ERRNO.ENXIO, { firstConnection: false }],
  ])("%s → refused with errno %i, no memory taken", (_name, errno, change) => {
    const scene = new Scene();
    const { usedBytes } = scene.serverMemory;
    expect(answer(scene, scene.attackerAt(66).ask(change))).toBe(errno);
    expect(scene.serverMemory.usedBytes).toBe(usedBytes);
    scene.expectNobodyHarmed();
  });

  it("a path too many → ECONNRESET, the session goes on", () => {
    const scene = new Scene();
    const first = scene.attacker(66, 5);
    for (let i = 1; i < PATH_COUNT_MAX; i++) {
      const pathUuid = new Uint8Array(16).fill(0x50 + i);
      expect(answer(scene, scene.attackerAt(66 + i, 5).ask({ pathUuid }))).toBe(0);
    }
    const pathUuid = new Uint8Array(16).fill(0x60);
    expect(answer(scene, scene.attackerAt(80, 5).ask({ pathUuid }))).toBe(ERRNO.ECONNRESET);
    expect(scene.fate(first)).toBe("");
    scene.expectNobodyHarmed();
  });

  it("all sessions, never finished → ENOMEM for one more; bounded; all comes back", () => {
    const scene = new Scene({ copyBytesMax: COPY_BYTES });
    const { usedBytes: before } = scene.serverMemory;
    const half = [];
    for (let i = 1; i < SESSION_COUNT_MAX; i++) {
      const attacker = scene.attackerAt(70 + i);
      expect(answer(scene, attacker.ask())).toBe(0);
      half.push(attacker);
    }
    expect(answer(scene, scene.attackerAt(90).ask())).toBe(ERRNO.ENOMEM);
    const perPath = CHUNK_COUNT * (CHUNK_BYTES + COPY_BYTES) + 4096;
    const taken = scene.serverMemory.usedBytes - before;
    expect(taken).toBeGreaterThan(0);
    expect(taken).toBeLessThanOrEqual((SESSION_COUNT_MAX - 1) * perPath);
    // They never ask for the chunks: their time is up after `connectTimeoutNs`.
    scene.until("all are gone", () => scene.rtrs.counters().sessions === 1, 5 * SECOND);
    expect(scene.rtrs.lastCloseReason).toBe("the client did not finish connecting");
    expect(scene.serverMemory.usedBytes).toBe(before);
    scene.connect(scene.attackerAt(91));
    scene.expectNobodyHarmed();
  });

  it("a session that vanishes with requests in flight → its memory comes back", () => {
    const scene = new Scene({ heartbeatIntervalNs: SECOND });
    const { usedBytes } = scene.serverMemory;
    const { host, ...rest } = scene.hostAt(66);
    const attacker = scene.attackerOn(rest);
    scene.connect(attacker);
    const id = scene.open(attacker, "own");
    attacker.post({ user: rnbd.io(id, RNBD_OP.WRITE, 0, 512), data: new Uint8Array(512) });
    scene.until("the disk has it", () => scene.inflight("own") > 0);
    scene.world.kill(host);
    scene.until("it is gone", () => !scene.isUp(attacker), 60 * SECOND);
    expect(scene.serverMemory.usedBytes).toBe(usedBytes);
    scene.expectNobodyHarmed();
  });

  it("connecting and leaving, over and over → nothing is left over", () => {
    const scene = new Scene();
    const { usedBytes } = scene.serverMemory;
    for (let i = 0; i < 8; i++) {
      const attacker = scene.attacker(70 + i);
      scene.open(attacker, "own");
      for (let cid = 0; cid < 2; cid++) attacker.connectionAt(cid).id.disconnect();
      scene.until("it is gone", () => !scene.isUp(attacker));
    }
    scene.until("all is given back", () => scene.serverMemory.usedBytes === usedBytes);
    scene.expectNobodyHarmed();
  });
});

// SPDX-License-Identifier: MIT
// A client that breaks the rules: it loses its path, nobody else loses anything, and it never gets
// or changes a byte that is not its own.

import { beforeEach, describe, expect, it } from "vitest";
import { type SendWorkRequest, WR_OPCODE } from "../verbs/index.js";
import {
  decodeRtrsConnectReply,
  encodeRtrsConnectRequest,
  RTRS_FLAG_NEED_INVAL,
  type RtrsDescriptor,
  writeRtrsDescriptor,
  writeRtrsReadHeader,
} from "../wire/index.js";
import {
  chunksOf,
  connectRaw,
  HostileScene,
  isAccessError,
  writeHeader,
} from "./hostile.fixture.js";
import { MS, SECOND, TestHost } from "./pair.fixture.js";
import { RAW_DEPTH, RawClient, type RawConnection } from "./raw.fixture.js";

function readHeader(o: {
  readonly userLength?: number;
  readonly flags?: number;
  readonly count?: number;
  readonly buffer?: RtrsDescriptor;
}): Uint8Array {
  const bytes = new Uint8Array(24);
  const view = new DataView(bytes.buffer);
  writeRtrsReadHeader(view, 0, o.userLength ?? 0, o.flags ?? 0, o.count ?? 1);
  const { addressHigh, addressLow, rkey, length } = o.buffer ?? BUFFER;
  writeRtrsDescriptor(view, 8, addressHigh, addressLow, rkey, length);
  return bytes;
}

const BUFFER: RtrsDescriptor = { addressHigh: 0, addressLow: 0x1000, rkey: 1, length: 512 };
const NOTHING = new Uint8Array(0);

describe.each([true, false])("requests of a hostile client, key rotation %s", (rotates) => {
  let scene: HostileScene;
  beforeEach(() => {
    scene = new HostileScene(rotates).up();
  });

  it.each<[string, RegExp, (raw: RawClient) => void]>([
    ["a chunk that does not exist", /BAD_CHUNK/, (raw) => withChunk(raw, 7, 0)],
    ["an offset beyond the chunk", /BAD_OFFSET/, (raw) => withChunk(raw, 1, 16_384)],
    ["a header that the chunk's end cuts", /BAD_OFFSET/, (raw) => withChunk(raw, 1, 16_382)],
    ["an unknown type", /BAD_TYPE/, (raw) => raw.request(0, new Uint8Array(4).fill(9), 0, 0)],
    ["INFO_REQ where a request should be", /BAD_TYPE/, (raw) => withChunk(raw, 0, 0)],
    [
      "a user message longer than what precedes the header",
      /BAD_USER_LENGTH/,
      (raw) => raw.request(0, writeHeader(101), 100, 100),
    ],
    [
      "more data than a request may have",
      /BAD_DATA_LENGTH/,
      (raw) => raw.request(0, writeHeader(0), 12_289, 12_289),
    ],
    [
      "two descriptors",
      /BAD_SEGMENT_COUNT/,
      (raw) => raw.request(0, readHeader({ count: 2 }), 512, 512),
    ],
    [
      "a descriptor of no bytes",
      /BAD_DESCRIPTOR/,
      (raw) => raw.request(0, readHeader({ buffer: { ...BUFFER, length: 0 } }), 512, 512),
    ],
    [
      "a descriptor larger than a chunk",
      /BAD_DESCRIPTOR/,
      (raw) => raw.request(0, readHeader({ buffer: { ...BUFFER, length: 16_385 } }), 512, 512),
    ],
    [
      "a descriptor that the chunk's end cuts",
      /BAD_OFFSET/,
      (raw) => raw.request(0, readHeader({ userLength: 4088 }).subarray(0, 10), 16_374, 16_374),
    ],
    [
      "a SEND where an immediate should be",
      /immediate/,
      (raw) => raw.send(raw.connectionAt(1), NOTHING),
    ],
    [
      "a SEND longer than the receive",
      /failed/,
      (raw) => raw.send(raw.connectionAt(1), new Uint8Array(64)),
    ],
    [
      "a key that is wrong",
      /failed/,
      (raw) =>
        raw.request(0, writeHeader(0), 0, 0, (wr) => Object.assign(wr, { rkey: wr.rkey ^ 1 })),
    ],
    ["an address outside the chunks", /failed/, (raw) => raw.request(6, writeHeader(0), 16_381, 0)],
  ])("%s → its path is closed, the others are well", (_name, reason, attack) => {
    attack(scene.raw);
    expect(scene.fate()).toMatch(reason);
    scene.expectOthersWell();
    expect(scene.pair.serverNotes.events).toEqual(["up blue", "up raw0", "down raw0"]);
  });

  /** An immediate alone, with a zero-length write that no key is checked for. */
  function withChunk(raw: RawClient, chunk: number, offset: number): void {
    raw.request(chunk, NOTHING, 0, offset);
  }

  it("immediates of unknown types, more than there are receives → ignored, as Linux does", () => {
    const { pair, raw } = scene;
    for (let i = 0; i < 200; i++) {
      const immediate = (((2 + (i % 6)) << 28) | i) >>> 0;
      raw.request(0, NOTHING, 0, 0, (wr) => Object.assign(wr, { immediate }));
      pair.pipe.run(MS);
    }
    raw.request(0, writeHeader(0), 0, 0);
    expect(scene.fate()).toBe("");
    expect(pair.serverNotes.requests).toHaveLength(1);
  });

  it("a chunk that the server's user has → its path is closed, the user's copy unchanged", () => {
    const { pair, raw } = scene;
    pair.serverNotes.holds = true;
    raw.request(2, Uint8Array.from([1, 2, 3, 4, ...writeHeader(4)]), 0, 4);
    pair.pipe.run(MS);
    raw.request(2, NOTHING, 0, 0);
    expect(scene.fate()).toBe("");
    const [request] = pair.serverNotes.requests;
    expect([...(request?.userMessage.subarray(0, 4) ?? [])]).toEqual([1, 2, 3, 4]);
    expect(request?.session.inflight).toBe(1);
    pair.serverNotes.answerAll();
    expect(scene.fate()).toMatch(/CHUNK_IN_USE/);
    scene.expectOthersWell();
  });

  it("a buffer longer than the request → it gets the request's bytes, no more", () => {
    const { pair, raw } = scene;
    pair.serverNotes.onAny = (request) => {
      request.memory.bytes.fill(0x42, request.memoryOffset, request.memoryOffset + 16_384);
      request.complete(0);
    };
    const { memory } = raw;
    memory.bytes.fill(0xee, 8192, 16_384);
    const buffer = {
      addressHigh: Math.floor(memory.address / 2 ** 32),
      addressLow: (memory.address + 8192) >>> 0,
      rkey: raw.region.rkey,
      length: 8192,
    };
    raw.request(0, readHeader({ buffer }), 512, 512);
    expect(scene.fate()).toBe("");
    expect(memory.bytes.subarray(8192, 8704).every((byte) => byte === 0x42)).toBe(true);
    expect(memory.bytes.subarray(8704, 16_384).every((byte) => byte === 0xee)).toBe(true);
  });

  it("a key to invalidate that it does not have → its own queue pair suffers", () => {
    const { pair, raw } = scene;
    pair.serverNotes.onAny = (request) => request.complete(5);
    raw.request(0, readHeader({ flags: RTRS_FLAG_NEED_INVAL }), 512, 512);
    expect(scene.fate()).toMatch(/failed|disconnected/);
    scene.expectOthersWell();
  });

  it("the key of another session's chunk → refused by the device", () => {
    const { pair, raw } = scene;
    const other = chunksOf(pair);
    raw.request(0, new Uint8Array(4).fill(0x66), 0, 0, (wr) => {
      wr.remoteAddressHigh = other.addressHighs[3] as number;
      wr.remoteAddressLow = other.addressLows[3] as number;
      wr.rkey = other.keys[3] as number;
    });
    expect(scene.fate()).toMatch(/failed/);
    expect(raw.connectionAt(1).completions.some(isAccessError)).toBe(true);
    scene.expectOthersWell();
  });

  it("a random storm of immediates and headers → the server and the others stand", () => {
    const { pair } = scene;
    let state = 7;
    const next = (bound: number) => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return (state >>> 8) % bound;
    };
    for (let round = 1; round <= 30; round++) {
      const host = new TestHost("192.0.2.10", 50 + round);
      pair.pipe.hosts.push(host);
      const raw = new RawClient(host, pair.serverHost, round);
      connectRaw(pair, raw);
      for (let i = 0; i < 5; i++) {
        const bytes = Uint8Array.from({ length: 24 }, () => next(256));
        bytes[0] = 2 + next(3);
        bytes[1] = 0;
        if (next(4) > 0) bytes[3] = 0;
        if (next(2) > 0) bytes[6] = 1;
        if (next(2) > 0) bytes[7] = 0;
        const at = next(16_360);
        raw.request(next(RAW_DEPTH), bytes, at, next(4) > 0 ? at : next(1 << 25));
      }
      pair.pipe.run(MS);
      raw.channel.close();
      pair.pipe.run(MS);
      pair.pipe.remove(host);
      pair.pipe.until(() => pair.server.counters().sessions === 2, "nothing is left of it");
    }
    expect(scene.fate()).toBe("");
    scene.expectOthersWell();
  });
});

describe("connect requests", () => {
  /** The errno with which the server refuses, 0 when it accepts. */
  function answer(scene: HostileScene, connection: RawConnection): number {
    scene.pair.pipe.until(() => connection.events.length > 0, "the server answers");
    const event = connection.events[0];
    if (event?.type === "ESTABLISHED") return 0;
    const reply = decodeRtrsConnectReply(event?.privateData ?? NOTHING);
    return typeof reply === "string" ? -1 : reply.errno;
  }

  it.each<[string, number, (raw: RawClient) => RawConnection]>([
    ["all is well", 0, (raw) => raw.ask()],
    ["one connection for everything", 0, (raw) => raw.ask({ connectionCount: 1 })],
    ["the last connection first", 0, (raw) => raw.ask({ connectionId: 1 })],
    ["no private data", 104, (raw) => raw.askWith(NOTHING)],
    ["another magic", 104, (raw) => raw.askWith(new Uint8Array(56).fill(1))],
    ["no connection number", 104, (raw) => raw.ask({ connectionId: 2 })],
    ["too many connections", 104, (raw) => raw.ask({ connectionCount: 257 })],
    ["a session that may not be new", 6, (raw) => raw.ask({ firstConnection: false })],
  ])("%s → errno %i", (_name, errno, ask) => {
    const scene = new HostileScene();
    expect(answer(scene, ask(scene.raw))).toBe(errno);
    scene.expectOthersWell();
  });

  it("a second connection that does not fit the first → ECONNRESET, the first goes on", () => {
    const scene = new HostileScene();
    expect(answer(scene, scene.raw.ask())).toBe(0);
    expect(answer(scene, scene.raw.ask({ connectionId: 0 }))).toBe(104);
    expect(answer(scene, scene.raw.ask({ connectionId: 1, connectionCount: 3 }))).toBe(104);
    const pathsUuid = new Uint8Array(16).fill(0x33);
    expect(answer(scene, scene.raw.ask({ connectionId: 1, pathsUuid }))).toBe(104);
    expect(answer(scene, scene.raw.ask({ connectionId: 1 }))).toBe(0);
  });

  it("another path of a session → EEXIST between the same addresses", () => {
    const scene = new HostileScene();
    expect(answer(scene, scene.raw.ask())).toBe(0);
    const pathUuid = new Uint8Array(16).fill(0x44);
    expect(answer(scene, scene.raw.ask({ connectionId: 0, pathUuid }))).toBe(17);
  });

  it("a new attempt of the same path → the old one goes, then the new one is let in", () => {
    const scene = new HostileScene().up();
    expect(answer(scene, scene.raw.ask({ connectionId: 0, reconnectCount: 2 }))).toBe(104);
    expect(scene.fate()).toMatch(/anew/);
    expect(answer(scene, scene.raw.ask({ connectionId: 0, reconnectCount: 3 }))).toBe(0);
  });

  it("a late request of an attempt before → refused, and the path lives; counts wrap", () => {
    for (const [late, live] of [
      [1, 2],
      [0xffff, 1],
      [0x8002, 1],
    ] as const) {
      const scene = new HostileScene();
      scene.raw.reconnectCount = live;
      scene.up();
      expect(answer(scene, scene.raw.ask({ connectionId: 0, reconnectCount: late }))).toBe(104);
      expect(scene.fate()).toBe("");
    }
  });

  it("somebody else with the UUID of a path → refused, and the path lives", () => {
    const scene = new HostileScene().up();
    const host = new TestHost("192.0.2.66", 66);
    scene.pair.pipe.hosts.push(host);
    const thief = new RawClient(host, scene.pair.serverHost);
    expect(answer(scene, thief.ask({ connectionId: 0, reconnectCount: 2 }))).toBe(104);
    expect(scene.fate()).toBe("");
  });

  it("encoded by hand or by the codec → the same", () => {
    const request = {
      connectionId: 0,
      connectionCount: 2,
      reconnectCount: 1,
      pathUuid: new Uint8Array(16).fill(0x11),
      pathsUuid: new Uint8Array(16).fill(0x22),
      firstConnection: true,
    };
    const scene = new HostileScene();
    const longer = new Uint8Array(56);
    longer.set(encodeRtrsConnectRequest(request));
    expect(answer(scene, scene.raw.askWith(longer))).toBe(0);
  });
});

describe("a client with one connection for everything", () => {
  it("requests and heartbeats on connection 0 → answered there", () => {
    const scene = new HostileScene();
    const { pair, raw } = scene;
    const connection = raw.ask({ connectionCount: 1 });
    pair.pipe.until(() => connection.events.length > 0, "the raw connection is up");
    raw.askInfo();
    pair.pipe.run(MS);
    raw.takeInfo(connection);
    raw.request(3, writeHeader(0), 0, 0, () => {}, connection);
    raw.send(connection, NOTHING, (wr) => {
      wr.opcode = WR_OPCODE.RDMA_WRITE_WITH_IMM;
      wr.immediate = 0x80000000;
    });
    expect(scene.fate()).toBe("");
    const immediates = connection.completions
      .filter((wc) => wc.opcode >= 128 && wc.byteLength <= 8)
      .map((wc) => wc.immediate);
    expect(immediates).toEqual([0x10000003, 0x90000000]);
  });
});

describe("info requests", () => {
  function half(): HostileScene {
    const scene = new HostileScene();
    for (let cid = 0; cid < 2; cid++) {
      const connection = scene.raw.ask();
      scene.pair.pipe.until(() => connection.events.length > 0, "a raw connection is up");
    }
    return scene;
  }

  function expectClosed(scene: HostileScene, reason: RegExp): void {
    scene.pair.pipe.run(2 * SECOND);
    expect(scene.pair.server.counters().sessions).toBe(1);
    expect(scene.pair.server.lastCloseReason).toMatch(reason);
    scene.expectOthersWell();
    expect(scene.pair.serverNotes.events).toEqual(["up blue"]);
  }

  it("too short → disconnected without an answer", () => {
    const scene = half();
    scene.raw.send(scene.raw.connectionAt(0), new Uint8Array(271));
    expectClosed(scene, /TOO_SHORT/);
  });

  it("of another type → disconnected", () => {
    const scene = half();
    scene.raw.send(scene.raw.connectionAt(0), new Uint8Array(272).fill(1, 0, 1));
    expectClosed(scene, /BAD_TYPE/);
  });

  it("with a name that is no name → disconnected", () => {
    const scene = half();
    scene.raw.askInfo("a.b");
    expectClosed(scene, /BAD_NAME/);
  });

  it("with the name of another session → disconnected", () => {
    const scene = half();
    scene.raw.askInfo("blue");
    expectClosed(scene, /named "blue"/);
  });

  it("before all connections are there → disconnected", () => {
    const scene = new HostileScene();
    const connection = scene.raw.ask({ connectionCount: 3 });
    scene.pair.pipe.until(() => connection.events.length > 0, "a raw connection is up");
    scene.raw.askInfo();
    expectClosed(scene, /before all connections/);
  });

  it("a request in its place → disconnected", () => {
    const scene = half();
    scene.raw.send(scene.raw.connectionAt(0), NOTHING, (wr: SendWorkRequest) => {
      wr.opcode = WR_OPCODE.RDMA_WRITE_WITH_IMM;
    });
    expectClosed(scene, /BAD_TYPE/);
  });
});

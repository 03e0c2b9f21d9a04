// SPDX-License-Identifier: MIT
// A source that wants what is another's: his run, the places of all, the sink's memory and time, or
// things in the folder that nobody has asked it for.

import { describe, expect, it } from "vitest";
import {
  ERRNO as E,
  FarpageError,
  HeapMemorySource,
  type Random,
  updateCrc32,
} from "../base/index.js";
import { ClientRequest, type RtrsEnvironment } from "../rtrs/index.js";
import { MAX_IO } from "./copy.fixture.js";
import { LyingSource, oneRecord, sessionFrom, target } from "./hostile.fixture.js";
import { askedFor, COPY_SESSION, type CopySession, CopySource } from "./index.js";
import { newNode } from "./memory-tree.fixture.js";
import { COPY_TYPE } from "./messages.js";
import { COPY_ACTION } from "./records.js";

const FAILED = 0x8000;
const ONE = Uint8Array.of(1);

describe("a run", () => {
  it.each([
    ["from another address", sessionFrom(2)],
    ["under another name", sessionFrom(1, "other")],
  ])("%s, by its number → ESTALE, and its client goes on", (_what, session) => {
    const lying = new LyingSource();
    const own = lying.session;
    expect(lying.hello()).toBe(0);
    lying.session = session;
    expect(lying.hello()).toBe(E.ESTALE);
    const batch = oneRecord({ path: "a" }, ONE);
    expect(lying.ask({ type: COPY_TYPE.BATCH, argument: 1 }, batch)).toBe(E.ESTALE);
    expect(lying.ask({ type: COPY_TYPE.TELL, argument: 4 }, 0)).toBe(E.ESTALE);
    expect(lying.disk.nodes.size).toBe(1);
    lying.sink.onSessionDown(session);
    lying.session = own;
    expect(lying.result({ path: "a" }, ONE)).toBe(0);
  });

  it("of a client that comes back by another session → goes on", () => {
    const lying = new LyingSource();
    expect(lying.hello()).toBe(0);
    lying.sink.onSessionDown(lying.session);
    lying.session = sessionFrom(1);
    expect(lying.result({ path: "a" }, ONE)).toBe(0);
    lying.sink.pump(61e9);
    expect(lying.sink.runCount).toBe(1);
  });

  it("is one of a session: a second gets EBUSY", () => {
    const lying = new LyingSource();
    expect(lying.hello(10)).toBe(0);
    expect(lying.hello(10)).toBe(0);
    expect(lying.hello(11)).toBe(E.EBUSY);
    expect(lying.sink.runCount).toBe(1);
    expect(lying.host.trees.map(({ isClosed }) => isClosed)).toEqual([false, true]);
  });

  it("without a session makes room: its own address's first, then who left first", () => {
    const lying = new LyingSource({ runCountMax: 3 });
    const sessions = [1, 2, 3].map((host) => sessionFrom(host));
    sessions.forEach((session, i) => {
      lying.session = session;
      expect(lying.hello(i)).toBe(0);
    });
    lying.session = sessionFrom(3, "again");
    expect(lying.hello(7)).toBe(E.EBUSY);
    for (const i of [1, 2]) {
      lying.nowNs += 1e9;
      lying.sink.pump(lying.nowNs);
      lying.sink.onSessionDown(sessions[i] as (typeof sessions)[number]);
    }
    expect(lying.hello(7)).toBe(0);
    lying.session = sessionFrom(9);
    expect(lying.hello(8)).toBe(0);
    // 192.0.2.3's gave way to the same address, 192.0.2.2's to the next; nobody else is without.
    expect(lying.host.trees.map(({ isClosed }) => isClosed)).toEqual([
      false,
      true,
      true,
      true,
      false,
      false,
    ]);
    lying.session = sessionFrom(10);
    expect(lying.hello(9)).toBe(E.EBUSY);
  });

  it("left alone for a minute ends", () => {
    const lying = new LyingSource();
    expect(lying.hello()).toBe(0);
    lying.sink.onSessionDown(lying.session);
    lying.sink.pump(59e9);
    expect(lying.sink.runCount).toBe(1);
    lying.sink.pump(61e9);
    expect(lying.sink.runCount).toBe(0);
    expect(lying.host.ends.map(({ how }) => how)).toEqual(["LOST"]);
    expect(lying.host.trees.every(({ isClosed }) => isClosed)).toBe(true);
  });
});

describe("a source that was asked for something", () => {
  const DIRECTORY = { action: COPY_ACTION.DIRECTORY } as const;

  it("and brings something else → EPERM, whatever it is", () => {
    const lying = new LyingSource({ accepts: askedFor(["export/dir/photos", "export/x"]) });
    lying.disk.put("mine", newNode("file"));
    expect(lying.hello()).toBe(0);
    const path = ".bashrc";
    expect(lying.result({ path }, ONE)).toBe(FAILED | E.EPERM);
    expect(lying.result({ path: "photo" }, ONE)).toBe(FAILED | E.EPERM);
    expect(lying.result({ path: "photos2/x" }, ONE)).toBe(FAILED | E.EPERM);
    expect(lying.result({ ...DIRECTORY, path: ".ssh" })).toBe(FAILED | E.EPERM);
    expect(lying.result({ action: COPY_ACTION.ATTRIBUTES, path: ".ssh" })).toBe(FAILED | E.EPERM);
    const link = { action: COPY_ACTION.SYMLINK, path, extra: target("x") } as const;
    expect(lying.result(link)).toBe(FAILED | E.EPERM);
    const second = { action: COPY_ACTION.HARDLINK, path: "x", extra: target("mine") } as const;
    expect(lying.result(second)).toBe(FAILED | E.EPERM);
    expect(lying.open(path, 100_000)).toBe(E.EPERM);
    expect([...lying.disk.nodes.keys()]).toEqual(["", "mine"]);
    expect(lying.disk.parts.size).toBe(0);
  });

  it("and brings that → it is there; with a slash behind its name, what lies in it", () => {
    const lying = new LyingSource({ accepts: askedFor(["export/dir/photos", "export/x"]) });
    expect(lying.hello()).toBe(0);
    expect(lying.result({ path: "photos/a/b" }, ONE)).toBe(0);
    expect(lying.result({ path: "x" }, ONE)).toBe(0);
    expect(askedFor(["export/photos/"])("anything/at all")).toBe(true);
    expect(askedFor(["photos"])("photos")).toBe(true);
    expect(askedFor(["photos"])("photos2")).toBe(false);
  });

  it("and sets the attributes of the folder that is copied to → EPERM", () => {
    const lying = new LyingSource();
    expect(lying.hello()).toBe(0);
    const record = { action: COPY_ACTION.ATTRIBUTES, path: "", mode: 0o777 } as const;
    expect(lying.result(record)).toBe(FAILED | E.EPERM);
    expect(lying.disk.nodes.get("")?.mode).toBe(0o700);
    expect(lying.result({ ...DIRECTORY, path: "" })).toBe(1);
  });
});

describe("the sink's memory and time", () => {
  it("CRCs of blocks all over a large file are bounded → ENOMEM, for all files together", () => {
    const lying = new LyingSource({ sumGroupsMax: 2 });
    expect(lying.hello()).toBe(0);
    expect(lying.open("big", 2 ** 40)).toBe(0);
    const block = new Uint8Array(MAX_IO);
    expect(lying.block(0, block)).toBe(0);
    expect(lying.block(1023, block)).toBe(0);
    expect(lying.block(1024, block)).toBe(0);
    expect(lying.block(5000, block)).toBe(E.ENOMEM);
    expect(lying.block(1025, block)).toBe(0);
    // Closed, its room is everybody's.
    expect(lying.finish("big", 2 ** 40, 1)).toBe(E.EILSEQ);
    expect(lying.open("other", 2 ** 40)).toBe(0);
    expect(lying.block(5000, block)).toBe(0);
  });

  it("a pebibyte of holes is finished at once", () => {
    const lying = new LyingSource();
    expect(lying.hello()).toBe(0);
    expect(lying.open("big", 2 ** 50)).toBe(0);
    const block = new Uint8Array(MAX_IO).fill(7);
    expect(lying.block(3, block)).toBe(0);
    // Its CRC is not 1: to find that out must not take time for each block that is not there, or
    // this takes minutes.
    expect(lying.finish("big", 2 ** 50, 1)).toBe(E.EILSEQ);
  });
});

describe("a source's memory", () => {
  /** A source whose sink offers so much, once it is connected. */
  function connected(offer: { queueDepth: number; maxIoBytes: number }, allocate: Allocate) {
    const session = {
      ...offer,
      state: "CONNECTED",
      registerMemory: () => {},
      acquire: () => new ClientRequest(0, new Uint8Array(8192)),
      submitRead: () => {},
      pump: () => {},
      close: () => {
        session.state = "CLOSED";
      },
    };
    const source = new CopySource(
      { memory: { allocate, free: () => {} } } as unknown as RtrsEnvironment,
      {
        rtrs: { sessionName: "copy", paths: [] },
        crc32: updateCrc32,
        random: { nextU32: () => 1 } as unknown as Random,
        operands: [],
        target: "folder",
        onProblem: () => {},
      },
      () => session as unknown as CopySession,
    );
    source.onSessionUp();
    source.pump(1);
    return source;
  }

  it.each([
    [1, 2 ** 27],
    [COPY_SESSION.queueDepthMax, 2 ** 20],
  ])("%i requests of %i bytes that the sink offers → places of 256 KiB", (queueDepth, bytes) => {
    const lengths: number[] = [];
    connected({ queueDepth, maxIoBytes: bytes }, (length) => {
      lengths.push(length);
      return new HeapMemorySource().allocate(MAX_IO);
    });
    expect(lengths).toEqual([(queueDepth + 16) * 2 ** 18]);
  });

  it("that there is not → the copy ends with ENOMEM, and nothing is thrown", () => {
    const source = connected({ queueDepth: 1, maxIoBytes: MAX_IO }, () => {
      throw new FarpageError("ENOMEM", "no memory");
    });
    expect(source.error?.code).toBe("ENOMEM");
    expect(source.isClosed).toBe(true);
  });
});

type Allocate = RtrsEnvironment["memory"]["allocate"];

// SPDX-License-Identifier: MIT
// Two lanes of a client with a volume that both write: each has a session and a server that answers
// what the test says. (The servers stand for the lanes of one.)

import { beforeEach, describe, expect, it } from "vitest";
import { loopEnvironment, RtrsLoop } from "../../test/support/rtrs-loop.js";
import { ERRNO, IpAddress } from "../base/index.js";
import {
  BLOCK_OPERATION,
  type BlockOperation,
  BlockRequest,
  type BlockRequestOwner,
} from "../block/index.js";
import { RNBD_ACCESS } from "../wire/index.js";
import type { RnbdClientOptions } from "./client-options.js";
import { memory, ScriptedServer, SECOND } from "./rnbd-client.fixture.js";
import { RnbdClient } from "./rnbd-client.js";
import type { RnbdDevice } from "./rnbd-device.js";
import { allocateSharedVolume, type SessionGroup } from "./session-group.js";

const { READ, WRITE, FLUSH, DISCARD } = BLOCK_OPERATION;
const EPOCH = { cachePolicy: 3, epochHigh: 1, epochLow: 7 };
const OTHER = { cachePolicy: 3, epochHigh: 1, epochLow: 8 };
const path = { source: IpAddress.parse("192.0.2.1"), destination: IpAddress.parse("192.0.2.2") };

let nowNs: number;

class Lane implements BlockRequestOwner {
  readonly server = new ScriptedServer();
  readonly client: RnbdClient;
  /** What came back, "tag:errno". */
  readonly done: string[] = [];
  readonly woken: boolean[] = [];
  device!: RnbdDevice;
  private loop!: RtrsLoop;

  constructor(group: SessionGroup, options: Partial<RnbdClientOptions>) {
    const all = { sessionName: `lane${group.lane}`, paths: [path], group, ...options };
    this.client = new RnbdClient(loopEnvironment(), all, (user) => {
      this.loop = new RtrsLoop(user, { queueDepth: 9, maxIoBytes: 8192, random: null });
      return this.loop;
    });
    this.loop.server = this.server;
    this.client.registerMemory(memory);
    this.client.connect();
    this.loop.allow();
    this.server.response = EPOCH;
    this.client.open("vol1", RNBD_ACCESS.RW, (_, device) => {
      this.device = device as RnbdDevice;
    });
    this.pump();
    this.server.take();
  }

  onBlockComplete(request: BlockRequest): void {
    this.done.push(`${request.tag}:${request.errno}`);
  }

  /** Pumps until nothing is due. */
  pump(): void {
    let turns = 0;
    do {
      this.client.pump(nowNs);
      this.client.checkInvariants();
      expect(++turns).toBeLessThan(100);
    } while (this.client.deadlineNs() <= nowNs);
  }

  submit(tag: number, operation: BlockOperation, sector = 0, sectors = 0): void {
    const request = new BlockRequest(this, tag);
    request.operation = operation;
    request.offset = sector * 512;
    request.length = sectors * 512;
    request.memory = memory;
    this.device.submit(request);
    this.pump();
  }

  /** IO that has come to the server since the last call, without flags and device. */
  came(): string[] {
    const ios = this.server.take().filter((line) => line.includes("@"));
    return ios.map((line) => line.replace(/\.\w+@\d+/, ""));
  }

  answer(errno = 0): void {
    this.server.answer(errno);
    this.pump();
  }

  lose(): void {
    this.loop.lose();
    this.pump();
  }

  /** The session is back; what its server had of the old one is over. */
  comeBack(response: ScriptedServer["response"] = EPOCH): void {
    this.server.response = response;
    this.server.answerAll();
    this.loop.allow();
    this.pump();
  }

  taken(): string[] {
    this.pump();
    return this.done.splice(0);
  }
}

let a: Lane;
let b: Lane;
/** Lanes that somebody has woken, in order. */
let woken: number[];

function start(options: Partial<RnbdClientOptions> = {}): void {
  nowNs = 0;
  woken = [];
  const shared = allocateSharedVolume(2);
  const laneOf = (lane: number) =>
    new Lane(
      {
        name: new Uint8Array(16).fill(1),
        lane,
        laneCount: 2,
        memoryOf: () => shared,
        wake: (other) => woken.push(other),
      },
      options,
    );
  a = laneOf(0);
  b = laneOf(1);
}

beforeEach(() => start());

describe("two lanes: changes of the same bytes", () => {
  it("one in flight on a lane → the other lane's waits, and is woken by the answer", () => {
    a.submit(0, WRITE, 0, 8);
    b.submit(1, DISCARD, 4, 8);
    b.submit(2, READ, 0, 8);
    expect(a.came()).toEqual(["WRITE 0+4096"]);
    expect(b.came()).toEqual([]);
    expect(woken).toEqual([]);
    a.answer();
    expect(woken).toEqual([1]);
    b.pump();
    expect(b.came()).toEqual(["DISCARD 4+4096", "READ 0+4096"]);
    b.answer();
    b.answer();
    expect(b.taken()).toEqual(["1:0", "2:0"]);
  });

  it("beside each other, and reads → nobody waits", () => {
    a.submit(0, WRITE, 0, 8);
    b.submit(1, WRITE, 8, 8);
    b.submit(2, READ, 0, 8);
    expect(b.came()).toEqual(["WRITE 8+4096", "READ 0+4096"]);
  });

  it("a lane is lost with a write in flight → the other lane waits for its answer", () => {
    a.submit(0, WRITE, 0, 8);
    a.lose();
    b.submit(1, WRITE, 0, 8);
    b.submit(2, WRITE, 64, 8);
    expect(b.came()).toEqual([]);
    a.came();
    a.comeBack();
    expect(a.came()).toEqual(["WRITE 0+4096"]);
    b.pump();
    expect(b.came()).toEqual([]);
    a.answer();
    b.pump();
    expect(a.taken()).toEqual(["0:0"]);
    expect(b.came()).toEqual(["WRITE 0+4096", "WRITE 64+4096"]);
  });

  it("a write that waits when its session is lost was never sent → it is in nobody's way", () => {
    a.submit(0, WRITE, 0, 8);
    b.submit(1, WRITE, 0, 16);
    b.lose();
    a.submit(2, WRITE, 8, 8);
    expect(a.came()).toEqual(["WRITE 0+4096", "WRITE 8+4096"]);
    a.answer();
    a.answer();
    b.comeBack();
    expect(b.came()).toEqual(["WRITE 0+8192"]);
  });
});

describe("two lanes with a limit to waiting", () => {
  beforeEach(() => start({ ioTimeoutNs: SECOND }));

  it("a write fails with its fate unknown → its bytes are in doubt until the lane is back", () => {
    a.submit(0, WRITE, 0, 8);
    a.lose();
    nowNs += SECOND;
    expect(a.taken()).toEqual([`0:${ERRNO.ETIMEDOUT}`]);
    b.submit(1, WRITE, 8, 8);
    b.submit(2, WRITE, 0, 8);
    // The server may still execute A's.
    expect(b.came()).toEqual(["WRITE 8+4096"]);
    a.comeBack();
    expect(woken).toEqual([1]);
    b.pump();
    expect(b.came()).toEqual(["WRITE 0+4096"]);
  });

  it("bytes in doubt are not read either, beside them all is", () => {
    a.submit(0, WRITE, 0, 8);
    a.lose();
    b.submit(1, READ, 0, 8);
    expect(b.came()).toEqual(["READ 0+4096"]);
    nowNs += SECOND;
    expect(a.taken()).toEqual([`0:${ERRNO.ETIMEDOUT}`]);
    b.submit(2, READ, 8, 8);
    b.submit(3, READ, 7, 1);
    b.submit(4, WRITE, 16, 8);
    expect(b.came()).toEqual(["READ 8+4096"]);
    a.comeBack();
    expect(woken).toEqual([1]);
    b.pump();
    expect(b.came()).toEqual(["READ 7+512", "WRITE 16+4096"]);
  });

  it("a write that the server has failed is not in doubt", () => {
    a.submit(0, WRITE, 0, 8);
    a.answer(ERRNO.EIO);
    b.submit(1, WRITE, 0, 8);
    expect(b.came()).toEqual(["WRITE 0+4096"]);
  });

  it("a change waits for another lane for too long → ETIMEDOUT; the next one goes", () => {
    a.submit(0, WRITE, 0, 8);
    a.lose();
    nowNs += SECOND / 2;
    b.submit(1, WRITE, 0, 8);
    b.submit(2, WRITE, 16, 8);
    expect(b.client.deadlineNs()).toBe(nowNs + SECOND);
    nowNs += SECOND;
    a.pump();
    expect(b.taken()).toEqual([`1:${ERRNO.ETIMEDOUT}`]);
    expect(b.came()).toEqual(["WRITE 16+4096"]);
    expect(b.client.deadlineNs()).toBe(Number.POSITIVE_INFINITY);
    a.comeBack();
    b.submit(3, WRITE, 0, 8);
    expect(b.came()).toEqual(["WRITE 0+4096"]);
  });
});

describe("two lanes: what a flush claims", () => {
  /** Writes on a lane, and has the answer. */
  function write(lane: Lane, tag: number): void {
    lane.submit(tag, WRITE, 8 * tag, 8);
    lane.answer();
    expect(lane.taken()).toEqual([`${tag}:0`]);
  }

  function flush(lane: Lane, tag: number): string[] {
    lane.submit(tag, FLUSH);
    if (lane.server.ios.length > 0) lane.answer();
    return lane.taken();
  }

  it("a flush on one covers the writes of both: another cache afterwards is no loss", () => {
    write(a, 0);
    write(b, 1);
    expect(flush(b, 2)).toEqual(["2:0"]);
    for (const lane of [a, b]) {
      lane.lose();
      lane.comeBack(OTHER);
    }
    expect(flush(a, 3)).toEqual(["3:0"]);
    expect(flush(b, 4)).toEqual(["4:0"]);
  });

  it("a lane is back at another cache, the other has writes unflushed and does not know", () => {
    write(a, 0);
    b.lose();
    b.comeBack(OTHER);
    // A's write is gone; A has not noticed.
    expect(flush(b, 1)).toEqual([`1:${ERRNO.EIO}`]);
    expect(a.device.hasLostWrites).toBe(true);
    expect(flush(a, 2)).toEqual([`2:${ERRNO.EIO}`]);
  });

  it("a lane finds its writes lost → flushes of the other fail too, also one under way", () => {
    write(a, 0);
    b.lose();
    b.comeBack(OTHER);
    b.submit(1, FLUSH);
    a.lose();
    a.comeBack(OTHER);
    expect(a.device.hasLostWrites).toBe(true);
    b.answer();
    expect(b.taken()).toEqual([`1:${ERRNO.EIO}`]);
    expect(flush(b, 2)).toEqual([`2:${ERRNO.EIO}`]);
  });

  it("a flush is sent again behind the loss of the cache → asked anew what it covers", () => {
    write(a, 0);
    b.submit(1, FLUSH);
    b.lose();
    b.comeBack(OTHER);
    b.answer();
    expect(b.taken()).toEqual([`1:${ERRNO.EIO}`]);
  });

  it("an answer of the old server that a lane takes late → the next flush knows", () => {
    a.submit(0, WRITE, 0, 8);
    b.lose();
    b.comeBack(OTHER);
    expect(flush(b, 1)).toEqual(["1:0"]);
    a.answer();
    expect(a.taken()).toEqual(["0:0"]);
    expect(flush(b, 2)).toEqual([`2:${ERRNO.EIO}`]);
  });

  it("the same cache after a restart of the server → all is as it was", () => {
    write(a, 0);
    for (const lane of [b, a]) {
      lane.lose();
      lane.comeBack();
    }
    expect(flush(b, 1)).toEqual(["1:0"]);
    a.lose();
    a.comeBack(OTHER);
    expect(a.device.hasLostWrites).toBe(false);
  });
});

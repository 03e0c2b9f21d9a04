// SPDX-License-Identifier: MIT
// Memory regions on pages: copies across them, and what each side of a connection does about pages
// that are not there.

import { describe, expect, it } from "vitest";
import { highOf, lowOf, SeededRandom } from "../base/index.js";
import { DROP_REASON } from "./counters.js";
import { connect, firstDifference, Network, Pair } from "./network.fixture.js";
import { QP_TYPE } from "./qp-state.js";
import { RegionTable } from "./regions.js";
import { TestPages } from "./test-pages.fixture.js";
import { ACCESS, RecvWorkRequest, SEND_FLAG, SendWorkRequest, WR_OPCODE } from "./work-request.js";

const ALL = 15;
const ADDRESS = 0x7000_0000_0000;
const PAGES = 8;

/** A pair whose host `side` has a region on pages, all absent; B's is the one that A reaches. */
class PagedPair extends Pair {
  readonly pages = new TestPages(PAGES, ADDRESS);
  readonly paged: { region: number; key: number };
  readonly pattern = Uint8Array.from({ length: PAGES * 4096 }, (_, i) => (i * 13) >> 3);

  constructor(
    side: 0 | 1,
    attributes: ConstructorParameters<typeof Pair>[0] = {},
    init: ConstructorParameters<typeof Pair>[2] = {},
  ) {
    super(attributes, {}, init);
    const host = this.host(side);
    const { regions } = host.device;
    const region = regions.registerPages(host.pd, this.pages, ADDRESS, PAGES * 4096, ALL);
    this.paged = { region, key: regions.keyOf(region) };
    this.pages.fill(this.pattern);
  }

  /** To rest; then one served fault at a time and to rest again, until none is left. */
  finish(atATime = 1): string[] {
    this.runToRest();
    while (this.pages.serve(atATime) > 0) this.runToRest();
    expect(this.pages.areFreePlacesUntouched()).toBe(true);
    return this.a.completions();
  }

  /** What of a request from A names the pages of B. */
  remotely(offset: number): Partial<SendWorkRequest> {
    return {
      remoteAddressHigh: highOf(ADDRESS + offset),
      remoteAddressLow: lowOf(ADDRESS + offset),
      rkey: this.paged.key,
    };
  }

  /** What of a request names the pages of its own host. */
  locally(offset: number, length: number) {
    return [{ address: ADDRESS + offset, length, lkey: this.paged.key }];
  }

  bytesOfB(offset: number, length: number): Uint8Array {
    return this.pages.contents().subarray(offset, offset + length);
  }
}

describe("responder: pages that are absent", () => {
  it("WRITE → RNR NAK at once, the fault for all of the message; then it lands", () => {
    const pair = new PagedPair(1);
    pair.write(1, 5000, pair.remotely(4000));
    pair.runToRest();
    expect(pair.conversation().slice(0, 6)).toEqual([
      "0> WRITE_FIRST 0 1024",
      "0> WRITE_MIDDLE 1 1024",
      "0> WRITE_MIDDLE 2 1024",
      "0> WRITE_MIDDLE 3 1024",
      "0> WRITE_LAST 4 904 !",
      "1> ACKNOWLEDGE 0 nak 26",
    ]);
    expect(pair.pages.queue.map(({ page }) => page)).toEqual([0, 1, 2]);
    expect(pair.finish(9)).toEqual(["1 RNR_RETRY_EXC_ERR"]);
  });

  it("WRITE, fault served in time → one RNR NAK, no retry used up, bytes in their places", () => {
    const pair = new PagedPair(1);
    pair.write(1, 5000, pair.remotely(4000));
    pair.run(50_000);
    pair.pages.serve();
    expect(pair.finish()).toEqual(["1 SUCCESS"]);
    expect(pair.qpA.counters.rnrNaksReceived).toBe(1);
    expect(pair.qpB.counters.pageFaults).toBe(1);
    expect(firstDifference(pair.bytesOfB(4000, 5000), pair.a.memory.bytes.subarray(0, 5000))).toBe(
      -1,
    );
    expect(firstDifference(pair.bytesOfB(0, 4000), pair.pattern.subarray(0, 4000))).toBe(-1);
  });

  it("a page that goes in the middle of a WRITE → the message goes on from that packet", () => {
    const pair = new PagedPair(1);
    for (let page = 0; page < PAGES; page++) pair.pages.put(page, true);
    let seen = 0;
    pair.fate = ({ from }) => {
      if (from === 0 && ++seen === 6) pair.pages.takeAway(1);
      return null;
    };
    pair.write(1, 12_000, pair.remotely(0));
    pair.run(200_000);
    expect(pair.conversation().filter((line) => line.includes("nak 26"))).toHaveLength(1);
    pair.pages.serve();
    expect(pair.finish()).toEqual(["1 SUCCESS"]);
    expect(firstDifference(pair.bytesOfB(0, 12_000), pair.a.memory.bytes.subarray(0, 12_000))).toBe(
      -1,
    );
  });

  it("again in vain → each RNR NAK of the same request names a longer time", () => {
    const pair = new PagedPair(1, { rnrRetry: 7 });
    pair.write(1, 100, pair.remotely(0));
    pair.run(30_000_000);
    const codes = pair
      .conversation()
      .filter((line) => line.includes("nak"))
      .map((line) => Number.parseInt(line.slice(-2), 16) & 31);
    expect(codes.slice(0, 7)).toEqual([6, 9, 12, 15, 18, 20, 20]);
    pair.pages.serve();
    expect(pair.finish()).toEqual(["1 SUCCESS"]);
  });

  it("SEND → the receive stays in its queue; then it is taken and filled across pages", () => {
    const pair = new PagedPair(1);
    const wr = new RecvWorkRequest();
    wr.wrId = 9;
    wr.sgeCount = 1;
    wr.sges[0] = pair.locally(4090, 3000)[0] as SendWorkRequest["sges"][0];
    pair.qpB.postRecv(wr);
    pair.send(1, 2500);
    pair.run(60_000);
    expect(pair.qpB.recvCount).toBe(1);
    pair.pages.serve();
    expect(pair.finish()).toEqual(["1 SUCCESS"]);
    expect(pair.b.completions()).toEqual(["recv 9 SUCCESS 2500"]);
    expect(firstDifference(pair.bytesOfB(4090, 2500), pair.a.memory.bytes.subarray(0, 2500))).toBe(
      -1,
    );
    expect(pair.qpA.counters.rnrNaksReceived).toBe(1);
  });

  it("READ → the answer waits, no NAK; a READ of another queue pair goes on meanwhile", () => {
    const pair = new PagedPair(1, { timeout: 0 });
    const [qpA2, qpB2] = [pair.a.createQp(), pair.b.createQp()];
    connect(pair.a, qpA2, pair.b, qpB2, [5, 6]);
    connect(pair.b, qpB2, pair.a, qpA2, [6, 5]);
    pair.read(1, 9000, { ...pair.remotely(100), offset: 0 });
    pair.read(2, 8, { offset: 20_000, remote: 0 });
    const wr = new SendWorkRequest();
    wr.wrId = 3;
    wr.opcode = WR_OPCODE.RDMA_READ;
    wr.sendFlags = SEND_FLAG.SIGNALED;
    wr.sgeCount = 1;
    wr.sges[0] = { address: pair.a.memory.address + 40_000, length: 2000, lkey: pair.a.key };
    wr.remoteAddressHigh = highOf(pair.b.memory.address);
    wr.remoteAddressLow = lowOf(pair.b.memory.address);
    wr.rkey = pair.b.key;
    qpA2.postSend(wr);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["3 SUCCESS"]);
    expect(pair.conversation().some((line) => line.includes("nak"))).toBe(false);
    expect(pair.finish()).toEqual(["1 SUCCESS", "2 SUCCESS"]);
    expect(
      firstDifference(pair.a.memory.bytes.subarray(0, 9000), pair.pattern.subarray(100, 9100)),
    ).toBe(-1);
  });

  it("a page that goes in the middle of a READ response → the rest is from its new place", () => {
    const pair = new PagedPair(1, { timeout: 0 });
    pair.pages.put(0, false);
    pair.read(1, 8000, pair.remotely(0));
    pair.runToRest();
    pair.pages.takeAway(0);
    // What the process writes into a page that is away is what a later access finds.
    pair.pages.fill(pair.pattern.map((byte) => byte ^ 1));
    expect(pair.finish()).toEqual(["1 SUCCESS"]);
    expect(pair.a.memory.bytes[4095]).toBe(pair.pattern[4095]);
    expect(pair.a.memory.bytes[4096]).toBe((pair.pattern[4096] as number) ^ 1);
  });

  it("atomic → RNR NAK, executed once when its page is there", () => {
    const pair = new PagedPair(1);
    pair.post(1, WR_OPCODE.ATOMIC_FETCH_AND_ADD, 8, {
      ...pair.remotely(4096 + 8),
      compareAddLow: 5,
    });
    pair.run(50_000);
    pair.pages.serve();
    expect(pair.finish()).toEqual(["1 SUCCESS"]);
    const before = new DataView(pair.pattern.buffer).getBigUint64(4104, true);
    const after = pair.pages.contents();
    expect(new DataView(after.buffer).getBigUint64(4104, true)).toBe(before + 5n);
    expect(new DataView(pair.a.memory.bytes.buffer).getBigUint64(0, true)).toBe(before);
  });

  it("no page to be had → access error for WRITE, READ, atomic; SEND: operational one", () => {
    const make = () => {
      const pair = new PagedPair(1);
      pair.pages.broken.add(0);
      return pair;
    };
    for (const opcode of [
      WR_OPCODE.RDMA_WRITE,
      WR_OPCODE.RDMA_READ,
      WR_OPCODE.ATOMIC_FETCH_AND_ADD,
    ]) {
      const pair = make();
      pair.post(1, opcode, 8, pair.remotely(0));
      expect(pair.finish()).toEqual(["1 REM_ACCESS_ERR"]);
    }
    const pair = make();
    const wr = new RecvWorkRequest();
    wr.sgeCount = 1;
    wr.sges[0] = pair.locally(0, 64)[0] as SendWorkRequest["sges"][0];
    pair.qpB.postRecv(wr);
    pair.send(1, 64);
    expect(pair.finish()).toEqual(["1 REM_OP_ERR"]);
    expect(pair.b.completions()[0]).toBe("recv 0 LOC_PROT_ERR");
  });

  it("a page that may only be read: READ passes, WRITE is an access error", () => {
    const pair = new PagedPair(1);
    pair.pages.readOnly.add(0);
    pair.pages.put(0, false);
    pair.read(1, 8, pair.remotely(0));
    expect(pair.finish()).toEqual(["1 SUCCESS"]);
    pair.write(2, 8, pair.remotely(0));
    expect(pair.finish()).toEqual(["2 REM_ACCESS_ERR"]);
  });

  it("deregistered while its READ waits → access error, nothing is left attached", () => {
    const pair = new PagedPair(1);
    pair.read(1, 8, pair.remotely(0));
    pair.run(50_000);
    expect(pair.pages.attachedCount).toBe(1);
    pair.b.device.regions.deregister(pair.paged.region);
    expect(pair.pages.attachedCount).toBe(0);
    expect(pair.finish()).toEqual(["1 REM_ACCESS_ERR"]);
  });
});

describe("requester: pages that are absent", () => {
  it("a WRITE's source → the queue waits without a packet, then goes on", () => {
    const pair = new PagedPair(0);
    pair.post(1, WR_OPCODE.RDMA_WRITE, 0, { sges: pair.locally(3000, 7000), sgeCount: 1 });
    pair.write(2, 8);
    pair.runToRest();
    expect(pair.conversation()).toEqual([]);
    expect(pair.finish()).toEqual(["1 SUCCESS", "2 SUCCESS"]);
    expect(
      firstDifference(pair.b.memory.bytes.subarray(8, 7000), pair.pattern.subarray(3008, 10_000)),
    ).toBe(-1);
  });

  it("its source goes while one of its packets is lost → sent again from the new place", () => {
    const pair = new PagedPair(0);
    for (let page = 0; page < PAGES; page++) pair.pages.put(page, false);
    pair.lose(2);
    pair.post(1, WR_OPCODE.RDMA_WRITE, 0, { sges: pair.locally(0, 8192), sgeCount: 1 });
    pair.run(5000);
    pair.pages.takeAway(0);
    expect(pair.finish()).toEqual(["1 SUCCESS"]);
    expect(
      firstDifference(pair.b.memory.bytes.subarray(0, 8192), pair.pattern.subarray(0, 8192)),
    ).toBe(-1);
  });

  it("a READ's target → asked for before the request is sent; none is dropped", () => {
    const pair = new PagedPair(0);
    pair.post(1, WR_OPCODE.RDMA_READ, 0, { sges: pair.locally(3000, 7000), sgeCount: 1 });
    pair.runToRest();
    expect(pair.conversation()).toEqual([]);
    expect(pair.finish(9)).toEqual(["1 SUCCESS"]);
    expect(pair.a.device.counters.drops[DROP_REASON.PAGE_ABSENT]).toBe(0);
    expect(firstDifference(pair.bytesOfB(3000, 7000), pair.b.memory.bytes.subarray(0, 7000))).toBe(
      -1,
    );
  });

  it("a READ's target goes before the response → dropped, asked for again, no retry", () => {
    const pair = new PagedPair(0, { retryCount: 0 });
    for (let page = 0; page < PAGES; page++) pair.pages.put(page, true);
    pair.post(1, WR_OPCODE.RDMA_READ, 0, { sges: pair.locally(0, 8192), sgeCount: 1 });
    pair.run(5000);
    pair.pages.takeAway(1);
    expect(pair.finish()).toEqual(["1 SUCCESS"]);
    expect(pair.a.device.counters.drops[DROP_REASON.PAGE_ABSENT]).toBe(1);
    expect(firstDifference(pair.bytesOfB(0, 8192), pair.b.memory.bytes.subarray(0, 8192))).toBe(-1);
  });

  it("an atomic's result → executed once, though its first answer found no place", () => {
    const pair = new PagedPair(0, { retryCount: 0 });
    pair.pages.put(0, true);
    const before = pair.b.memory.view.getBigUint64(64, true);
    const sges = pair.locally(4088, 8);
    pair.post(1, WR_OPCODE.ATOMIC_FETCH_AND_ADD, 0, {
      sges,
      sgeCount: 1,
      remoteAddressLow: lowOf(pair.b.memory.address + 64),
      compareAddLow: 3,
    });
    pair.run(5000);
    pair.pages.takeAway(0);
    expect(pair.finish()).toEqual(["1 SUCCESS"]);
    expect(pair.b.memory.view.getBigUint64(64, true)).toBe(before + 3n);
    const bytes = pair.pages.contents();
    expect(new DataView(bytes.buffer).getBigUint64(4088, true)).toBe(before);
  });

  it("no page to be had → LOC_PROT_ERR; inline data is copied when posted, or EFAULT", () => {
    const pair = new PagedPair(0);
    pair.pages.broken.add(1);
    const inline = { sendFlags: SEND_FLAG.SIGNALED | SEND_FLAG.INLINE, sgeCount: 1 };
    const good = { ...inline, sges: pair.locally(0, 100) };
    const bad = { ...inline, sges: pair.locally(4090, 100) };
    expect(pair.post(1, WR_OPCODE.RDMA_WRITE, 0, good)).toBe(0);
    expect(pair.post(2, WR_OPCODE.RDMA_WRITE, 0, bad)).toBe(14);
    pair.post(3, WR_OPCODE.RDMA_WRITE, 0, { sges: pair.locally(4090, 100), sgeCount: 1 });
    expect(pair.finish()).toEqual(["1 SUCCESS", "3 LOC_PROT_ERR"]);
    expect(
      firstDifference(pair.b.memory.bytes.subarray(0, 100), pair.pattern.subarray(0, 100)),
    ).toBe(-1);
    const reader = new PagedPair(0);
    reader.pages.readOnly.add(0);
    reader.post(1, WR_OPCODE.RDMA_READ, 0, { sges: reader.locally(0, 8), sgeCount: 1 });
    expect(reader.finish()).toEqual(["1 LOC_PROT_ERR"]);
  });

  it("deregistered while a request waits for its pages → LOC_PROT_ERR", () => {
    const pair = new PagedPair(0);
    pair.post(1, WR_OPCODE.RDMA_WRITE, 0, { sges: pair.locally(0, 8), sgeCount: 1 });
    pair.runToRest();
    pair.a.device.regions.deregister(pair.paged.region);
    expect(pair.finish()).toEqual(["1 LOC_PROT_ERR"]);
  });
});

describe("UD: pages that are absent", () => {
  it("a datagram for an absent page is dropped, its receive stays; the next one arrives", () => {
    const network = new Network(["10.79.0.2", "10.79.0.3"], {});
    const [a, b] = [network.host(0), network.host(1)];
    const pages = new TestPages(2, ADDRESS);
    const source = new TestPages(1, ADDRESS + 2 ** 30);
    source.fill(Uint8Array.from({ length: 4096 }, (_, i) => i));
    const into = b.device.regions.registerPages(b.pd, pages, ADDRESS, 8192, ALL);
    const from = a.device.regions.registerPages(a.pd, source, source.address, 4096, ALL);
    const [qpA, qpB] = [a, b].map((host) => {
      const qp = host.createQp({ type: QP_TYPE.UD });
      qp.modify({ state: 1, pkeyIndex: 0, port: 0, qkey: 7 });
      qp.modify({ state: 2 });
      qp.modify({ state: 3, sqPsn: 1 });
      return qp;
    }) as [ReturnType<typeof a.createQp>, ReturnType<typeof b.createQp>];
    const receive = new RecvWorkRequest();
    receive.sgeCount = 1;
    receive.sges[0] = { address: ADDRESS + 4000, length: 200, lkey: b.device.regions.keyOf(into) };
    qpB.postRecv(receive);
    const wr = new SendWorkRequest();
    wr.sgeCount = 1;
    wr.sges[0] = { address: source.address, length: 100, lkey: a.device.regions.keyOf(from) };
    wr.destination = { flow: a.device.flow(0, b.address) };
    wr.remoteQpn = qpB.qpn;
    wr.remoteQkey = 7;
    qpA.postSend(wr);
    network.runToRest();
    expect(network.log).toHaveLength(0);
    source.serve();
    network.runToRest();
    expect(b.device.counters.drops[DROP_REASON.PAGE_ABSENT]).toBe(1);
    expect(qpB.recvCount).toBe(1);
    expect(pages.serve()).toBe(2);
    qpA.postSend(wr);
    network.runToRest();
    expect(b.completions()).toEqual(["recv 0 SUCCESS 140"]);
    expect(pages.contents()[4000 + 40 + 99]).toBe(99);
  });
});

describe("RegionTable on pages", () => {
  it("a fast region on pages: its own range and rights, its pages the base's", () => {
    const regions = new RegionTable(8, new SeededRandom(1));
    const pages = new TestPages(4, ADDRESS);
    const base = regions.registerPages(3, pages, ADDRESS + 100, 10_000, ALL);
    const index = regions.allocateFast(3);
    const key = regions.freshKey(index);
    const baseKey = regions.keyOf(base);
    expect(regions.registerFast(3, index, key, 7, baseKey, ADDRESS + 99, 8)).toBe(false);
    expect(regions.registerFast(3, index, key, 7, baseKey, ADDRESS + 5000, 300)).toBe(true);
    expect(regions.isPaged(index)).toBe(true);
    const [high, low] = [highOf(ADDRESS + 5000), lowOf(ADDRESS + 5000)];
    expect(regions.check(key, 3, ACCESS.REMOTE_WRITE, high, low, 301)).toBe(-1);
    expect(regions.check(key, 3, ACCESS.REMOTE_WRITE, high, low, 300)).toBe(index);
    const position = regions.offsetIn(index, high, low);
    expect(position).toBe(5000);
    expect(regions.ready(index, position, 300, 300, true)).not.toBe(0);
    pages.serve();
    expect(regions.ready(index, position, 300, 300, true)).toBe(0);
    regions.deregister(base);
    expect(regions.find(key)).toBe(-1);
    regions.checkInvariants();
  });

  it("registerPages refuses what lies outside of the pages", () => {
    const regions = new RegionTable(8, new SeededRandom(1));
    const pages = new TestPages(2, ADDRESS);
    for (const [address, length] of [
      [ADDRESS - 1, 10],
      [ADDRESS, 8193],
      [ADDRESS + 8192, 1],
      [ADDRESS + 0.5, 1],
    ] as const) {
      expect(() => regions.registerPages(0, pages, address, length, ALL)).toThrow(
        "inside its pages",
      );
    }
    expect(() => regions.registerPages(0, pages, ADDRESS, 8, ACCESS.REMOTE_WRITE)).toThrow("local");
    expect(regions.count).toBe(0);
    expect(pages.attachedCount).toBe(0);
  });
});

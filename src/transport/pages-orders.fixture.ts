// SPDX-License-Identifier: MIT
// A page is taken away before each single packet of an exchange in turn, once and then from there
// on a few times: whatever stage the packet finds the sides in, the exchange ends as with pinned
// memory, and nobody touches the page's old place.

import { expect } from "vitest";
import { highOf, lowOf } from "../base/index.js";
import { firstDifference, Pair } from "./network.fixture.js";
import { TestPages } from "./test-pages.fixture.js";
import { RecvWorkRequest, WR_OPCODE } from "./work-request.js";

const ADDRESS = 0x7000_0000_0000;
export const PAGES = 2;
const BYTES = 3000;
const START = 2800;

/** What is exchanged: opcode, and whose memory comes and goes. */
export const EXCHANGES: readonly [string, Parameters<Pair["post"]>[1], 0 | 1][] = [
  ["WRITE into pages", WR_OPCODE.RDMA_WRITE, 1],
  ["WRITE from pages", WR_OPCODE.RDMA_WRITE, 0],
  ["READ of pages", WR_OPCODE.RDMA_READ, 1],
  ["READ into pages", WR_OPCODE.RDMA_READ, 0],
  ["SEND into pages", WR_OPCODE.SEND, 1],
  ["SEND from pages", WR_OPCODE.SEND, 0],
  ["atomic on pages", WR_OPCODE.ATOMIC_FETCH_AND_ADD, 1],
  ["atomic into pages", WR_OPCODE.ATOMIC_FETCH_AND_ADD, 0],
];

/** One exchange, `page` away while `isAway` says so. @returns packets that it took. */
export function exchange(
  opcode: Parameters<Pair["post"]>[1],
  side: 0 | 1,
  page: number,
  isAway: (packet: number) => boolean,
): number {
  const pair = new Pair({ rnrRetry: 7, retryCount: 1 }, { faultRnrTimer: 1 });
  const pages = new TestPages(PAGES, ADDRESS);
  const pattern = Uint8Array.from({ length: PAGES * 4096 }, (_, i) => (i * 5) >> 2);
  pages.fill(pattern);
  for (let i = 0; i < PAGES; i++) pages.put(i, true);
  const { device, pd } = pair.host(side);
  const region = device.regions.registerPages(pd, pages, ADDRESS, PAGES * 4096, 15);
  const key = device.regions.keyOf(region);
  pair.fate = ({ number }) => {
    if (isAway(number - 1)) pages.takeAway(page);
    return null;
  };
  const isAtomic = opcode === WR_OPCODE.ATOMIC_FETCH_AND_ADD;
  const length = isAtomic ? 8 : BYTES;
  const from = isAtomic ? START & ~7 : START;
  const here = { address: ADDRESS + from, length, lkey: key };
  const there = {
    remoteAddressHigh: highOf(ADDRESS + from),
    remoteAddressLow: lowOf(ADDRESS + from),
    rkey: key,
  };
  if (opcode === WR_OPCODE.SEND) {
    const wr = new RecvWorkRequest();
    wr.sgeCount = 1;
    wr.sges[0] = side === 1 ? here : { address: pair.b.memory.address, length, lkey: pair.b.key };
    pair.qpB.postRecv(wr);
  }
  pair.post(1, opcode, length, {
    compareAddLow: 1,
    ...(side === 1 ? there : { sges: [here], sgeCount: 1 }),
  });
  const done: string[] = [];
  for (let turn = 0; turn < 200 && done.length === 0; turn++) {
    pair.run(50_000);
    pages.serve();
    done.push(...pair.a.completions());
  }
  expect(done).toEqual(["1 SUCCESS"]);
  expect(pages.areFreePlacesUntouched()).toBe(true);
  const paged = pages.contents().subarray(from, from + length);
  const flat = (side === 1 ? pair.a : pair.b).memory.bytes.subarray(0, length);
  if (isAtomic) {
    const expected = (side === 1 ? pattern : flat).slice(side === 1 ? from : 0).subarray(0, 8);
    // The target has one more than what came back.
    const [before, after] = side === 1 ? [flat, paged] : [paged, flat];
    if (side === 0) expected[0] = (expected[0] as number) - 1;
    expect(before.slice()).toEqual(expected.slice());
    expect((after[0] as number) - (before[0] as number)).toBe(1);
  } else {
    expect(firstDifference(paged, flat)).toBe(-1);
  }
  return pair.log.length;
}

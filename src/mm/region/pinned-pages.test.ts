// SPDX-License-Identifier: MIT

import { describe, expect, it } from "vitest";
import { memoryOf, TestSpace } from "../../../test/support/process-space.js";
import { PAGE_FAULT } from "../../base/index.js";
import { FRAME_BYTES } from "../frames/index.js";
import { FaultQueue } from "./fault-queue.js";
import type { PinnedPages } from "./pinned-pages.js";
import { ProcessRegions } from "./process-regions.js";

const MIB2 = 512;

/** Pages at `vpn` on runs of `[pfn, count]`; every byte says which page it is of. */
function pinned(vpn: number, runs: readonly [number, number][], sections = [8 * MIB2]) {
  const memory = memoryOf(...sections);
  const space = new TestSpace(memory);
  let at = vpn;
  for (const [pfn, count] of runs) {
    for (let i = 0; i < count; i++) space.map(at + i, 1, true, pfn + i);
    at += count;
  }
  for (let page = vpn; page < at; page++) space.contents(page).fill(page & 0xff);
  const regions = new ProcessRegions(memory, space, space, new FaultQueue());
  const make = (address = vpn * FRAME_BYTES, length = at * FRAME_BYTES - address) =>
    regions.registerPages(address, length, true, false) as PinnedPages;
  return { memory, space, make };
}

/** The byte at a local address, by way of the pages. */
function byteAt(pages: PinnedPages, address: number): number {
  const page = Math.floor((address - pages.address) / pages.pageBytes);
  expect(pages.locate(page, true)).toBe(true);
  return pages.bytes[pages.offset + ((address - pages.address) % pages.pageBytes)] as number;
}

describe("pinned pages", () => {
  it("contiguous frames → one range, exactly the bytes of the region", () => {
    const { space, make } = pinned(1000, [[40, 9]]);
    const pages = make(1000 * FRAME_BYTES + 100, 30_000);
    expect(pages.contiguous?.address).toBe(1000 * FRAME_BYTES + 100);
    expect(pages.contiguous?.length).toBe(30_000);
    expect(pages.contiguous?.bytes.length).toBe(30_000);
    pages.contiguous?.view.setUint8(4000, 77);
    expect(space.contents(1001)[4]).toBe(77);
  });

  it.each([
    [
      "scattered frames → 4 KiB",
      1024,
      [
        [5, 1],
        [9, 1],
        [11, 2],
      ],
      4096,
    ],
    [
      "2 MiB runs, aligned → 2 MiB",
      1024,
      [
        [0, 512],
        [1536, 512],
        [512, 1024],
      ],
      2 ** 21,
    ],
    [
      "2 MiB runs at other places in their pages → what both addresses agree on",
      1024,
      [
        [8, 512],
        [1544, 512],
      ],
      2 ** 15,
    ],
    [
      "begins and ends inside of 2 MiB pages → still 2 MiB",
      1024 + 100,
      [
        [100, 412],
        [1024, 300],
      ],
      2 ** 21,
    ],
    [
      "a run that ends early → what it allows",
      1024,
      [
        [0, 16],
        [1040, 496],
      ],
      2 ** 16,
    ],
    ["one page is enough → no larger one", 1024, [[64, 8]], 2 ** 15],
  ] as const)("%s", (_name, vpn, runs, pageBytes) => {
    const { make } = pinned(vpn, runs as unknown as [number, number][]);
    const pages = make();
    expect(pages.pageBytes).toBe(pageBytes);
    expect(pages.address % pageBytes).toBe(0);
    const count = runs.reduce((sum, [, n]) => sum + n, 0);
    for (let page = vpn; page < vpn + count; page++) {
      expect(byteAt(pages, page * FRAME_BYTES)).toBe(page & 0xff);
      expect(byteAt(pages, page * FRAME_BYTES + 4095)).toBe(page & 0xff);
    }
  });

  it("frames that go on in the next section are two pieces, found in theirs", () => {
    const { make } = pinned(512, [[500, 24]], [512, 512]);
    const pages = make();
    expect(pages.contiguous).toBeNull();
    for (let page = 512; page < 536; page++) {
      expect(byteAt(pages, page * FRAME_BYTES)).toBe(page & 0xff);
    }
  });

  it("never absent, never faults; unpinned once, dirty if it could be written", () => {
    const { space, make } = pinned(1000, [[40, 2]]);
    const pages = make();
    expect(space.pinnedCount).toBe(2);
    expect(pages.fault(0, 1, false)).toBe(PAGE_FAULT.REFUSED);
    pages.release();
    expect(space.pinnedCount).toBe(0);
    expect(space.dirtied).toEqual([true]);
    expect(() => pages.release()).toThrow("once");
  });

  it("taken back → no access from then on, and nothing to unpin at the end", () => {
    const { space, make } = pinned(1000, [[40, 2]]);
    space.isRevocable = true;
    const pages = make();
    expect(pages.contiguous).toBeNull();
    expect(pages.locate(0, true)).toBe(true);
    space.revocation?.onRevoke?.();
    expect(pages.locate(0, false)).toBe(false);
    expect(pages.fault(0, 1, false)).toBe(PAGE_FAULT.REFUSED);
    expect(pages.touch(0, false)).toBe(false);
    pages.release();
    expect(space.dirtied).toEqual([]);
  });

  it("ranges that are none → EINVAL, nothing pinned", () => {
    const { space, make } = pinned(1000, [[40, 2]]);
    for (const [address, length] of [
      [-1, 5],
      [4096, 0],
      [2 ** 48 - 1, 2],
      [0.5, 4],
    ] as const) {
      expect(() => make(address, length)).toThrow("address space");
    }
    expect(space.pinnedCount).toBe(0);
  });
});

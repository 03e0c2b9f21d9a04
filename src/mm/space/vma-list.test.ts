// SPDX-License-Identifier: MIT

import fc from "fast-check";
import { expect, it } from "vitest";
import { ADDRESS_END, ADDRESS_MIN, type AddressSpace, PAGE_BYTES } from "./index.js";
import { managerOf, pageOf, RW } from "./space.fixture.js";

/** The highest place by a look at every page that could be the first, from area to area. */
function naivePlace({ vmas }: AddressSpace, pageCount: number, gap: number, align: number): number {
  const ends = [...vmas.all.map(({ startPage }) => startPage), pageOf(ADDRESS_END)];
  const starts = [pageOf(ADDRESS_MIN), ...vmas.all.map(({ endPage }) => endPage)];
  for (let i = ends.length - 1; i >= 0; i--) {
    let page = (ends[i] as number) - gap - pageCount;
    page -= page % align;
    if (page >= (starts[i] as number) + gap) return page;
  }
  return -1;
}

it("a place is the highest there is, whatever was mapped, unmapped, grown and moved before", () => {
  const step = fc.record({ kind: fc.nat(5), size: fc.integer({ min: 1, max: 9 }), at: fc.nat(40) });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const space = managerOf(4).createSpace();
      const { vmas } = space;
      for (const { kind, size, at } of steps) {
        const area = vmas.count === 0 ? null : vmas.at(at % vmas.count);
        const length = size * PAGE_BYTES;
        if (kind === 0 || area === null) space.map({ length, prot: RW });
        else if (kind === 1) space.unmap(area.address, area.length);
        else if (kind === 2) space.unmap(area.address, Math.min(length, area.length));
        else if (kind === 3) space.remap(area.address, area.length, length, true);
        else if (kind === 4 && area.startPage > size) {
          space.map({ length, prot: RW, address: area.address - length, fixed: "replace" });
        } else {
          space.protect(area.address, Math.min(length, area.length), 0);
        }
        vmas.checkInvariants();
        for (const [pages, gap, align] of [
          [size, 1, 1],
          [size, 0, 1],
          [size + 3, 1, 4],
        ] as const) {
          const expected = naivePlace(space, pages, gap, align);
          expect(vmas.findPlace(pages, gap, align)).toBe(expected);
        }
        vmas.checkInvariants();
      }
    }),
    { numRuns: 150 },
  );
});

it("a search does not pass all that is mapped: a few gaps for each of 2,000 mappings", () => {
  const space = managerOf(4).createSpace();
  const { vmas } = space;
  const addresses: number[] = [];
  // Beside each other they would be one area.
  for (let i = 0; i < 2000; i++) addresses.push(space.map({ length: PAGE_BYTES, prot: RW }));
  expect(vmas.count).toBe(2000);
  expect(vmas.gapsSeen).toBeLessThan(2 * 2000);
  for (let i = 0; i < 2000; i += 2) space.unmap(addresses[i] as number, PAGE_BYTES);
  const before = vmas.gapsSeen;
  for (let i = 0; i < 2000; i += 2) {
    expect(space.map({ length: PAGE_BYTES, prot: RW })).toBe(addresses[i]);
  }
  expect(vmas.gapsSeen - before).toBeLessThan(3 * 2000);
});

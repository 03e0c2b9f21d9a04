// SPDX-License-Identifier: MIT
// From a file's data and hole runs, of any length, to whole blocks.

import type { BlockExtent } from "./block-device.js";

/**
 * The runs of `[offset, offset + length)` in whole blocks: a block that is data in part is data.
 * What the runs leave out counts as data, and so does everything when there are none.
 *
 * @param runs [length, isHole] from `offset` on, as `FileIo.extents`; what is beyond the range is
 *   ignored.
 * Preconditions: `offset` and `length` are multiples of `blockBytes`, `length` > 0.
 */
export function blockExtents(
  runs: readonly (readonly [length: number, hole: boolean])[],
  offset: number,
  length: number,
  blockBytes: number,
): readonly BlockExtent[] {
  const extents: BlockExtent[] = [];
  const end = offset + length;
  /** Up to here `extents` is complete, but for data that no hole has ended yet. */
  let described = offset;
  const addTo = (stop: number, hole: boolean): void => {
    if (stop <= described) return;
    extents.push({ length: stop - described, hole, zero: hole });
    described = stop;
  };
  let start = offset;
  for (let index = 0; index < runs.length && start < end; ) {
    const isHole = (runs[index] as readonly [number, boolean])[1];
    let stop = start;
    for (; index < runs.length && runs[index]?.[1] === isHole; index++)
      stop += runs[index]?.[0] ?? 0;
    stop = Math.min(stop, end);
    if (isHole) {
      const first = Math.ceil(start / blockBytes) * blockBytes;
      const last = Math.floor(stop / blockBytes) * blockBytes;
      if (last > first) {
        addTo(first, false);
        addTo(last, true);
      }
    }
    start = stop;
  }
  addTo(end, false);
  return extents;
}

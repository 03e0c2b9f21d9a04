// SPDX-License-Identifier: MIT
// What free lists come to: for a request of an order, whether it would be served, how much of the
// free memory it could use, and whether a failure would be for want of memory or for its pieces.
// The two indexes are those of Linux' debugfs (`extfrag_index`, `unusable_index`; `mm/vmstat.c`).

export interface OrderView {
  readonly order: number;
  /** Free blocks of exactly this order. */
  readonly freeBlocks: number;
  /** Share of free memory that lies in blocks of this order and above: 0 .. 1; 1 when none is. */
  readonly usableShare: number;
  /**
   * -1: a request would be served. Else 0 .. 1: near 0 there is too little memory, near 1 there is
   * enough and it lies in pieces.
   */
  readonly fragmentationIndex: number;
}

/** @param counts free blocks by order. @param orderMax views up to this order. */
export function orderViews(counts: ArrayLike<number>, orderMax = counts.length - 1): OrderView[] {
  let freePages = 0;
  let freeBlocks = 0;
  for (let order = 0; order < counts.length; order++) {
    freePages += (counts[order] as number) * 2 ** order;
    freeBlocks += counts[order] as number;
  }
  const views: OrderView[] = [];
  for (let order = 0; order <= orderMax; order++) {
    let usablePages = 0;
    for (let above = order; above < counts.length; above++) {
      usablePages += (counts[above] as number) * 2 ** above;
    }
    views.push({
      order,
      freeBlocks: counts[order] ?? 0,
      usableShare: freePages === 0 ? 1 : usablePages / freePages,
      fragmentationIndex: usablePages > 0 ? -1 : indexOf(freePages, freeBlocks, 2 ** order),
    });
  }
  return views;
}

function indexOf(freePages: number, freeBlocks: number, requested: number): number {
  if (freeBlocks === 0) return 0;
  return Math.max(0, 1 - (1 + freePages / requested) / freeBlocks);
}

/** Sums free lists of several zones by order. */
export function sumCounts(lists: readonly (readonly number[])[]): number[] {
  const sum: number[] = [];
  for (const counts of lists) {
    counts.forEach((count, order) => {
      sum[order] = (sum[order] ?? 0) + count;
    });
  }
  return sum;
}

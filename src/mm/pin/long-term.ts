// SPDX-License-Identifier: MIT
// Where a frame must lie before it is pinned until further notice. Pinned among the movable, a
// single frame keeps 2 MiB from ever being one block again; a block of 2 MiB keeps nobody but
// itself, and stays. (Linux moves pages out of ZONE_MOVABLE and CMA alone,
// `mm/gup.c`, check_and_migrate_movable_folios.)

import {
  MIGRATE,
  MOVE_RESULT,
  type MoveResult,
  NO_FRAME,
  PAGE_BLOCK_ORDER,
  type Pfn,
  type PhysicalMemory,
} from "../frames/index.js";

/** Whether a used block of a normal zone has to move before it is pinned for long. */
export function mustLeaveMovable(memory: PhysicalMemory, head: Pfn): boolean {
  return (
    memory.policy.migrateBeforeLongTermPin &&
    memory.mobilityOf(head) === MIGRATE.MOVABLE &&
    memory.orderOf(head) < PAGE_BLOCK_ORDER
  );
}

/**
 * Moves a block to where the unmovable are.
 * @param find the block's first frame now: memory that is allocated for it may be had by moving
 *   it, or by taking it away (NO_FRAME).
 * @returns DONE; NO_MEMORY when there is none outside the movable page blocks; or what keeps it.
 */
export function leaveMovable(memory: PhysicalMemory, find: () => Pfn): MoveResult {
  const first = find();
  const hindrance = memory.judge(first);
  if (hindrance !== MOVE_RESULT.DONE) return hindrance;
  const order = memory.orderOf(first);
  const target = memory.allocate(order, MIGRATE.UNMOVABLE);
  if (target === NO_FRAME) return MOVE_RESULT.NO_MEMORY;
  const head = find();
  const isSame = head !== NO_FRAME && memory.orderOf(head) === order;
  const result = isSame ? memory.move(head, target) : MOVE_RESULT.BUSY;
  if (result !== MOVE_RESULT.DONE) memory.put(target);
  return result;
}

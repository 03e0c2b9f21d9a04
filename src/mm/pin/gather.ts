// SPDX-License-Identifier: MIT
// Moving the pages of a range next to each other, for a device that takes few pieces.

import { ContiguousAllocator } from "../alloc/index.js";
import {
  FRAME_BYTES,
  MIGRATE,
  MOVE_RESULT,
  NO_FRAME,
  type PhysicalMemory,
} from "../frames/index.js";
import { FAULT } from "../space/index.js";
import { breakUp, type TakeRequest } from "./page-taker.js";

/**
 * Moves every page of the range, in order, to neighbouring frames outside the movable blocks.
 * @returns whether all of them are there. Those that moved before one that could not stay where
 *   they are: that harms nobody.
 */
export function gather(memory: PhysicalMemory, request: TakeRequest): boolean {
  const first = Math.floor(request.address / FRAME_BYTES);
  const end = Math.ceil((request.address + request.length) / FRAME_BYTES);
  const count = end - first;
  const start = new ContiguousAllocator(memory).allocateRange(count, 1, MIGRATE.UNMOVABLE);
  if (start === NO_FRAME) return false;
  for (let frame = start; frame < start + count; ) {
    const size = 2 ** memory.orderOf(frame);
    memory.split(frame);
    frame += size;
  }
  let moved = 0;
  while (moved < count && movePage(memory, request, first + moved, start + moved)) moved++;
  for (let frame = start + moved; frame < start + count; frame++) memory.put(frame);
  return moved === count;
}

function movePage(
  memory: PhysicalMemory,
  request: TakeRequest,
  page: number,
  target: number,
): boolean {
  const { access, space } = request;
  if (space.fault(page, access, true) !== FAULT.READY) return false;
  let pfn = space.lookup(page);
  if (breakUp(memory, memory.headOf(pfn))) pfn = space.lookup(page);
  if (memory.orderOf(pfn) !== 0) return false;
  return memory.move(pfn, target) === MOVE_RESULT.DONE;
}

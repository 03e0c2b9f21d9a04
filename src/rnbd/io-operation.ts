// SPDX-License-Identifier: MIT
// How a block request is said in RNBD.

import { BLOCK_FLAG, BLOCK_OPERATION, type BlockRequest } from "../block/index.js";
import { RNBD_FLAG, RNBD_OP } from "../wire/index.js";

/** Whether data travels with it. */
export function needsMemory(request: BlockRequest): boolean {
  return request.operation === BLOCK_OPERATION.READ || request.operation === BLOCK_OPERATION.WRITE;
}

/**
 * The operation of a request that has a range, with its flags.
 * @param serverHasFua FUA is passed on. Linux knows it on writes alone; else a flush must follow.
 */
export function operationOf(request: BlockRequest, serverHasFua: boolean): number {
  const isFua = serverHasFua && (request.flags & BLOCK_FLAG.FUA) !== 0;
  switch (request.operation) {
    case BLOCK_OPERATION.READ:
      return RNBD_OP.READ | RNBD_FLAG.SYNC;
    case BLOCK_OPERATION.WRITE:
      return RNBD_OP.WRITE | RNBD_FLAG.SYNC | (isFua ? RNBD_FLAG.FUA : 0);
    case BLOCK_OPERATION.DISCARD:
      return RNBD_OP.DISCARD | RNBD_FLAG.SYNC;
    default: {
      const keepsSpace = (request.flags & BLOCK_FLAG.NO_UNMAP) !== 0;
      return RNBD_OP.WRITE_ZEROES | RNBD_FLAG.SYNC | (keepsSpace ? RNBD_FLAG.NOUNMAP : 0);
    }
  }
}

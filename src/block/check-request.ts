// SPDX-License-Identifier: MIT
// The one place where a block request is judged. Devices assert what it has established.

import { ERRNO } from "../base/index.js";
import {
  BLOCK_FLAG,
  BLOCK_OPERATION,
  type BlockLimits,
  type BlockRequest,
} from "./block-device.js";

/**
 * Whether a device with these limits can run `request`.
 *
 * @returns 0, or the errno that it completes with: EOPNOTSUPP for an operation that is unknown or
 *   that the device lacks, EROFS for a change to a read-only device, EINVAL for a range that is
 *   empty, unaligned, too long or outside the device, and for memory that is missing or too short.
 */
export function checkBlockRequest(limits: BlockLimits, request: BlockRequest): number {
  switch (request.operation) {
    case BLOCK_OPERATION.READ:
      return checkTransfer(limits, request);
    case BLOCK_OPERATION.WRITE:
      return checkChange(limits, request) || checkTransfer(limits, request);
    case BLOCK_OPERATION.FLUSH:
      return 0;
    case BLOCK_OPERATION.DISCARD:
      return checkChange(limits, request) || checkRange(limits, request, limits.discardBytesMax);
    case BLOCK_OPERATION.WRITE_ZEROES:
      return (
        checkChange(limits, request) || checkRange(limits, request, limits.writeZeroesBytesMax)
      );
    case BLOCK_OPERATION.CACHE:
    case BLOCK_OPERATION.STATUS:
      return checkRange(limits, request, Number.MAX_SAFE_INTEGER);
    default:
      return ERRNO.EOPNOTSUPP;
  }
}

/**
 * Whether the operation changes data, and so can't run twice behind a later change of the range.
 */
export function isChange(request: BlockRequest): boolean {
  return (
    request.operation === BLOCK_OPERATION.WRITE ||
    request.operation === BLOCK_OPERATION.DISCARD ||
    request.operation === BLOCK_OPERATION.WRITE_ZEROES
  );
}

function checkChange(limits: BlockLimits, request: BlockRequest): number {
  if (limits.readOnly) return ERRNO.EROFS;
  return (request.flags & BLOCK_FLAG.FUA) !== 0 && !limits.fua ? ERRNO.EOPNOTSUPP : 0;
}

function checkTransfer(limits: BlockLimits, request: BlockRequest): number {
  const memory = request.memory;
  if (memory === null) return ERRNO.EINVAL;
  const start = request.memoryOffset;
  if (!Number.isSafeInteger(start) || start < 0) return ERRNO.EINVAL;
  if (start + request.length > memory.length) return ERRNO.EINVAL;
  return checkRange(limits, request, limits.transferBytesMax);
}

function checkRange(limits: BlockLimits, request: BlockRequest, lengthMax: number): number {
  const { offset, length } = request;
  if (lengthMax === 0) return ERRNO.EOPNOTSUPP;
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length)) return ERRNO.EINVAL;
  if (offset < 0 || length <= 0 || length > lengthMax) return ERRNO.EINVAL;
  if (offset % limits.logicalBlockBytes !== 0) return ERRNO.EINVAL;
  if (length % limits.logicalBlockBytes !== 0) return ERRNO.EINVAL;
  return offset > limits.sizeBytes - length ? ERRNO.EINVAL : 0;
}

// SPDX-License-Identifier: MIT
// The one place where errno numbers of block devices become errors of the protocol (proto.md,
// "Error values").

import { ERRNO } from "../base/index.js";
import { NBD_COMMAND_FLAG, NBD_ERROR } from "../wire/index.js";

/**
 * The `NBD_ERROR` for a Linux errno; 0 for 0.
 * @param flags the request's `NBD_COMMAND_FLAG` bits: ENOTSUP answers only FAST_ZERO, EOVERFLOW
 *   only DF.
 */
export function nbdError(errno: number, flags: number): number {
  switch (errno) {
    case 0:
      return 0;
    case ERRNO.EPERM:
    case ERRNO.EACCES:
    case ERRNO.EROFS:
      return NBD_ERROR.EPERM;
    case ERRNO.ENOMEM:
      return NBD_ERROR.ENOMEM;
    case ERRNO.EINVAL:
      return NBD_ERROR.EINVAL;
    case ERRNO.ENOSPC:
    case ERRNO.EDQUOT:
    case ERRNO.EFBIG:
      return NBD_ERROR.ENOSPC;
    case ERRNO.ESHUTDOWN:
      return NBD_ERROR.ESHUTDOWN;
    case ERRNO.EOPNOTSUPP:
      return (flags & NBD_COMMAND_FLAG.FAST_ZERO) !== 0 ? NBD_ERROR.ENOTSUP : NBD_ERROR.EINVAL;
    case ERRNO.EOVERFLOW:
      return (flags & NBD_COMMAND_FLAG.DF) !== 0 ? NBD_ERROR.EOVERFLOW : NBD_ERROR.EINVAL;
    default:
      return NBD_ERROR.EIO;
  }
}

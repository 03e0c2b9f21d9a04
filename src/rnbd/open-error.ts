// SPDX-License-Identifier: MIT
import { ERRNO, errnoName, FarpageError } from "../base/index.js";

/** Why the server would not open a volume, in words. `code` is the name of its errno. */
export function openError(name: string, errno: number): FarpageError {
  const code = errnoName(errno);
  switch (errno) {
    case ERRNO.ENOENT:
      return new FarpageError(code, `the server has no volume "${name}"`);
    case ERRNO.EPERM:
      return new FarpageError(code, `volume "${name}" is open for writing by somebody else`);
    case ERRNO.EACCES:
      return new FarpageError(code, `the server doesn't let this session open volume "${name}"`);
    case ERRNO.EROFS:
      return new FarpageError(code, `volume "${name}" is read-only; open it with access "ro"`);
    default:
      return new FarpageError(code, `the server can't open volume "${name}": ${code}`);
  }
}

/** What an open that `close` overtook fails with. */
export const CANCELED = "the session was closed before the volume was open";

/** Whether RTRS says with this errno that the connection was lost, or there was none. */
export function isLost(errno: number): boolean {
  return errno === ERRNO.ECONNRESET || errno === ERRNO.ENOTCONN || errno === ERRNO.ECONNABORTED;
}

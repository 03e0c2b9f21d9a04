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
      return new FarpageError(code, `no access rule of the server gives volume "${name}" to us`);
    case ERRNO.EBUSY:
      return new FarpageError(
        code,
        `volume "${name}" is open elsewhere, and one of us must be alone`,
      );
    case ERRNO.EROFS:
      return new FarpageError(
        code,
        `volume "${name}" is read-only for us; open it with access "ro"`,
      );
    default:
      return new FarpageError(code, `the server can't open volume "${name}": ${code}`);
  }
}

/** The server has opened a volume, but with limits that nobody could use. */
export function unusableError(name: string): FarpageError {
  return new FarpageError("EPROTO", `the server's answer for volume "${name}" makes no device`);
}

/** The server has opened a volume again, and it can't be the one it was. */
export function changedError(name: string): FarpageError {
  const message = `volume "${name}" is not what it was: what was written to it may be lost`;
  return new FarpageError("EIO", message);
}

/** What an open that `close` overtook fails with. */
export const CANCELED = "the session was closed before the volume was open";

/** Whether RTRS says with this errno that the connection was lost, or there was none. */
export function isLost(errno: number): boolean {
  return errno === ERRNO.ECONNRESET || errno === ERRNO.ENOTCONN || errno === ERRNO.ECONNABORTED;
}

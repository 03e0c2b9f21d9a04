// SPDX-License-Identifier: MIT
// A volume's I/O errors, for whoever looks after the server: the client hears an errno, but the
// disk that is full or broken is here.

import { ERRNO, errnoName } from "../base/index.js";
import { BLOCK_OPERATION, type BlockOperation } from "../block/index.js";
import type { Volume } from "../rnbd/index.js";
import type { RepeatedWarning } from "./repeated-warning.js";

/** What the client got wrong, not the disk. */
const CLIENT_MISTAKES: ReadonlySet<number> = new Set([ERRNO.EINVAL, ERRNO.EROFS, ERRNO.EOPNOTSUPP]);

const REASONS: Readonly<Record<number, string>> = {
  [ERRNO.ENOSPC]: "no space is left where it lies",
  [ERRNO.EIO]: "the disk failed, or the file was cut short",
};

const OPERATION_NAMES = new Map<BlockOperation, string>(
  Object.entries(BLOCK_OPERATION).map(([name, value]) => [
    value,
    name.toLowerCase().replace("_", " "),
  ]),
);

/**
 * Has `warning` told of every request that the device of `volume` fails, by operation and errno.
 * @param path where the volume lies; null for memory.
 */
export function warnOfErrors(volume: Volume, path: string | null, warning: RepeatedWarning): void {
  const place = path === null ? "in memory" : path;
  volume.onDeviceError = (operation, errno) => {
    if (CLIENT_MISTAKES.has(errno)) return;
    const reason = REASONS[errno];
    warning.say(
      `${volume.name} ${operation} ${errno}`,
      `volume "${volume.name}" (${place}): ${OPERATION_NAMES.get(operation) ?? "request"} failed ` +
        `with ${errnoName(errno)}${reason === undefined ? "" : `: ${reason}`}`,
    );
  };
}

// SPDX-License-Identifier: MIT
// A folder with all above it. `mkdirSync` of Node 20 can do this too, but never ends where mkdir
// answers ENOENT though the folder above is there, as in /proc.

import { mkdirSync, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { nodeFailure } from "./failure.js";

/**
 * Makes a folder, and those above it that are missing; one that is there stays as it is.
 * @param mode permissions of what is made, less the umask.
 * @throws FarpageError with mkdir's code: EACCES, EROFS, ENOSPC, ENOTDIR when something of the path
 *   is there and is no folder, ENOENT where the file system takes no folders.
 */
export function makeFolder(path: string, mode = 0o777): void {
  const missing: string[] = [];
  for (let at = resolve(path); !isFolder(at); at = dirname(at)) missing.push(at);
  for (const folder of missing.reverse()) {
    try {
      mkdirSync(folder, { mode });
    } catch (error) {
      // Another process may have made it meanwhile.
      if (!isFolder(folder)) throw nodeFailure(`make the folder ${folder}`, error);
    }
  }
}

/** @throws FarpageError ENOTDIR when it is something else; EACCES and others as stat. */
function isFolder(path: string): boolean {
  try {
    const facts = statSync(path, { throwIfNoEntry: false });
    if (facts === undefined || facts.isDirectory()) return facts !== undefined;
  } catch (error) {
    throw nodeFailure(`make the folder ${path}`, error);
  }
  throw nodeFailure(`make the folder ${path}`, { code: "ENOTDIR" });
}

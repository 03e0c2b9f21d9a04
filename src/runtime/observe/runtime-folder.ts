// SPDX-License-Identifier: MIT
// Where control sockets are: a folder of this user, in which nobody else can put or open anything.

import { lstatSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FarpageError } from "../../base/index.js";
import { makeFolder } from "../../os/index.js";

/** Longest path of a Unix socket (sun_path, with its NUL), Linux and less elsewhere. */
export const SOCKET_PATH_BYTES_MAX = 107;

/** `$XDG_RUNTIME_DIR/farpage`, else a folder of this user among the temporary ones. */
export function runtimeFolder(): string {
  const base = process.env["XDG_RUNTIME_DIR"];
  if (base !== undefined && base !== "") return join(base, "farpage");
  return join(tmpdir(), `farpage-${process.getuid?.() ?? "user"}`);
}

/**
 * Makes the folder unless it is there.
 * @throws FarpageError EACCES when somebody else could have a hand in it; others as makeFolder.
 */
export function makeRuntimeFolder(folder: string): void {
  makeFolder(folder, 0o700);
  checkRuntimeFolder(folder);
}

/**
 * Whoever else could put a socket there would be taken for an instance of this user's.
 * @throws FarpageError EACCES when somebody else could have a hand in the folder.
 */
export function checkRuntimeFolder(folder: string): void {
  const facts = lstatSync(folder, { throwIfNoEntry: false });
  if (facts === undefined) return;
  const isOwn = process.getuid === undefined || facts.uid === process.getuid();
  if (!facts.isDirectory() || !isOwn || (facts.mode & 0o022) !== 0) {
    throw new FarpageError(
      "EACCES",
      `${folder} is not writable by this user alone; remove it or set its mode to 700`,
    );
  }
}

// SPDX-License-Identifier: MIT
// Paths that come from the other end: relative to the folder that a copy goes to, and never out of
// it. What the text can't tell (a component that is a symbolic link) the tree refuses as it walks.

import { ERRNO } from "../base/index.js";

/** Longest path below a copy's root, bytes: with a header in one user message. */
export const COPY_PATH_BYTES_MAX = 3_900;
const NAME_BYTES_MAX = 255;
const COMPONENTS_MAX = 512;
/** How names of files begin that are not complete yet; nobody may send such a name. */
export const COPY_PART_PREFIX = ".farpage-part-";

/**
 * Checks a path from outside: components of 1 to 255 bytes, divided by single slashes, none of them
 * ".", ".." or a name of ours. The empty path is the root itself.
 * @returns 0, EINVAL, ENAMETOOLONG, or EPERM for a name of ours.
 */
export function checkCopyPath(path: string): number {
  if (path === "") return 0;
  if (path.length > COPY_PATH_BYTES_MAX) return ERRNO.ENAMETOOLONG;
  if (path.includes("\0")) return ERRNO.EINVAL;
  const names = path.split("/");
  if (names.length > COMPONENTS_MAX) return ERRNO.ENAMETOOLONG;
  for (const name of names) {
    if (name === "" || name === "." || name === "..") return ERRNO.EINVAL;
    if (name.length > NAME_BYTES_MAX) return ERRNO.ENAMETOOLONG;
    if (name.startsWith(COPY_PART_PREFIX)) return ERRNO.EPERM;
  }
  return 0;
}

/** `folder/name`, either of which may be empty. */
export function joinCopyPath(folder: string, name: string): string {
  if (folder === "") return name;
  return name === "" ? folder : `${folder}/${name}`;
}

/**
 * What a source that was asked for `paths` may bring: each thing under its name, or, with a slash
 * at the end, whatever lies in it. One that brings more is hostile: the folder that is copied to
 * may hold things that nobody wants replaced.
 */
export function askedFor(paths: readonly string[]): (path: string) => boolean {
  const names = new Set(paths.map(nameOf));
  return (path) => {
    if (path === "" || names.has("")) return true;
    const slash = path.indexOf("/");
    return names.has(slash < 0 ? path : path.slice(0, slash));
  };
}

/** What lies before the last slash, "" for a path without one. */
export function folderOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "" : path.slice(0, slash);
}

/** What lies behind the last slash. */
export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

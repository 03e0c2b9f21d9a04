// SPDX-License-Identifier: MIT
// Errors of system calls, as FarpageErrors.

import { errnoName, FarpageError } from "../base/index.js";
import { loadNative } from "./native.js";

/** What the errno of the foreign call before says about an attempt to `what`. */
export function failure(what: string, errno = loadNative().errno()): FarpageError {
  const name = errnoName(errno);
  const code = name.startsWith("errno") ? "EIO" : name;
  return new FarpageError(code, `could not ${what}: ${describe(name)}`);
}

const TEXTS: Readonly<Record<string, string>> = {
  EACCES: "permission denied",
  EPERM: "the system does not permit it",
  ENOENT: "no such file or directory",
  EMFILE: "this process has too many open files",
  ENFILE: "the system has too many open files",
  ENOMEM: "out of memory",
  ENOBUFS: "out of buffer memory",
  EADDRINUSE: "the address is in use",
  EADDRNOTAVAIL: "the address is not one of this machine's",
  EAFNOSUPPORT: "the system does not have this address family",
  ECONNREFUSED: "nobody listens there",
  ECONNRESET: "the other end reset the connection",
  ETIMEDOUT: "no answer in time",
  EHOSTUNREACH: "no route to the host",
  ENETUNREACH: "no route to the network",
  ENOSPC: "no space left on the device",
  EROFS: "the file system is read-only",
  EISDIR: "it is a directory",
  EIO: "input/output error",
  ENOTFOUND: "no such host",
  EAI_AGAIN: "the name service does not answer",
};

function describe(name: string): string {
  const text = TEXTS[name];
  return text === undefined ? name : `${text} (${name})`;
}

/**
 * The FarpageError of an error that Node's own modules gave, for an attempt to `what`.
 * Anything without an errno name as its code is passed on as it is.
 */
export function nodeFailure(what: string, error: unknown): Error {
  const code = (error as NodeJS.ErrnoException | null)?.code;
  if (typeof code !== "string" || !/^E[A-Z0-9_]+$/.test(code)) {
    return error instanceof Error ? error : new Error(String(error));
  }
  return new FarpageError(code, `could not ${what}: ${describe(code)}`, { cause: error });
}

// SPDX-License-Identifier: MIT
// A file that a trace is written to, whole blocks at a time.

import { type FileHandle, open } from "node:fs/promises";
import { FarpageError } from "../../base/index.js";
import type { TraceSink } from "./trace-session.js";

/**
 * A file to trace into, made anew and readable by its owner alone. What a full disk has taken of
 * the last blocks is cut off at the end: half a block would be an error to every reader.
 * @throws FarpageError EACCES, ENOENT, ... naming the file; so does the sink's `write`: ENOSPC, ...
 */
export async function openTraceFile(path: string): Promise<TraceSink> {
  const failure = (cause: unknown) => {
    const code = (cause as NodeJS.ErrnoException).code ?? "EIO";
    return new FarpageError(code, `can't write ${path}: ${code}`, { cause });
  };
  let file: FileHandle;
  try {
    file = await open(path, "w", 0o600);
  } catch (cause) {
    throw failure(cause);
  }
  let wholeBytes = 0;
  return {
    async write(bytes) {
      try {
        for (let at = 0; at < bytes.length; ) {
          at += (await file.write(bytes, at, bytes.length - at)).bytesWritten;
        }
      } catch (cause) {
        throw failure(cause);
      }
      wholeBytes += bytes.length;
    },
    async end() {
      const facts = await file.stat();
      if (facts.isFile() && facts.size > wholeBytes) await file.truncate(wholeBytes);
      await file.close();
    },
  };
}

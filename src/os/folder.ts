// SPDX-License-Identifier: MIT
// Files and folders that somebody names, read whole and bounded: what they hold is hostile. A
// folder's symbolic links are reported and never followed, so that a folder from elsewhere gets at
// nothing outside itself; gzip is unpacked up to the same bound.

import { createReadStream, lstatSync, readdirSync, readFileSync, readlinkSync } from "node:fs";
import { stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { constants, gunzipSync } from "node:zlib";
import { FarpageError } from "../base/index.js";
import type { FolderEntry, Source } from "../pci/index.js";
import { SOURCE_BYTES_MAX } from "../pci/index.js";
import { nodeFailure } from "./failure.js";

/** What a name on the command line led to. */
export type NamedSource =
  | { readonly kind: "read"; readonly source: Source; readonly notices: readonly string[] }
  /** A sysfs that is mounted there: for `readPciSysfs`, its files aren't for reading blindly. */
  | { readonly kind: "sysfs"; readonly name: string };

export interface ReadLimits {
  /** Bytes of one file, unpacked, and of a folder's files together. */
  readonly bytesMax: number;
  /** Files, folders and links of a folder. */
  readonly entryCountMax: number;
}

export const READ_LIMITS: ReadLimits = { bytesMax: SOURCE_BYTES_MAX, entryCountMax: 500_000 };

const FOLDER_DEPTH_MAX = 64;
/** The file system type of sysfs, as statfs tells it. */
const SYSFS_MAGIC = 0x6265_6572;
/** Files of a copied sysfs that are a device's memory, not facts about it. */
const DEVICE_MEMORY = /^(?:resource\d+(?:_wc)?|rom|vpd)$/;

const PACKED: readonly (readonly [magic: readonly number[], name: string])[] = [
  [[0xfd, 0x37, 0x7a, 0x58, 0x5a], "xz"],
  [[0x28, 0xb5, 0x2f, 0xfd], "zstd"],
  [[0x42, 0x5a, 0x68], "bzip2"],
  [[0x50, 0x4b, 0x03, 0x04], "zip"],
];

/**
 * Reads a file, a folder, or with `-` standard input.
 * @param input standard input, for `-`.
 * @throws FarpageError ENOENT, EACCES, ...; EFBIG above the limits; EINVAL for a packed file that
 *   this can't unpack, and for gzip that is broken.
 */
export async function readNamedSource(
  path: string,
  input: Readable,
  limits: ReadLimits = READ_LIMITS,
): Promise<NamedSource> {
  if (path === "-") return bytesSource("standard input", await readStream(input, path, limits));
  try {
    if ((await stat(path)).isDirectory()) {
      if ((await statfs(path)).type === SYSFS_MAGIC) return { kind: "sysfs", name: path };
      return readFolder(path, limits);
    }
    return bytesSource(path, await readStream(createReadStream(path), path, limits));
  } catch (error) {
    if (error instanceof FarpageError) throw error;
    throw nodeFailure(`read ${path}`, error);
  }

  function bytesSource(name: string, bytes: Uint8Array): NamedSource {
    const notices: string[] = [];
    const source = { name, bytes: unpack(bytes, name, limits, notices) };
    return { kind: "read", source, notices };
  }
}

async function readStream(stream: Readable, name: string, limits: ReadLimits): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of stream as AsyncIterable<Uint8Array>) {
    length += chunk.length;
    if (length > limits.bytesMax) throw tooBig(name, limits);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, length);
}

function unpack(
  bytes: Uint8Array,
  name: string,
  limits: ReadLimits,
  notices: string[],
): Uint8Array {
  for (const [magic, format] of PACKED) {
    if (!magic.every((byte, index) => bytes[index] === byte)) continue;
    throw new FarpageError("EINVAL", `${name} is packed with ${format}: unpack it first`);
  }
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  const options = { maxOutputLength: limits.bytesMax };
  try {
    return gunzipSync(bytes, options);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ERR_BUFFER_TOO_LARGE") throw tooBig(name, limits);
    if (code !== "Z_BUF_ERROR") {
      throw new FarpageError("EINVAL", `${name}: its gzip is broken: ${message}`, { cause: error });
    }
  }
  // Cut off at the end: what is there is read.
  notices.push(`${name}: the gzip file is cut off, its start was read`);
  try {
    return gunzipSync(bytes, { ...options, finishFlush: constants.Z_SYNC_FLUSH });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE") {
      throw tooBig(name, limits);
    }
    throw error;
  }
}

function tooBig(name: string, limits: ReadLimits): FarpageError {
  const mib = Math.floor(limits.bytesMax / 1024 / 1024);
  return new FarpageError("EFBIG", `${name} has more than ${mib} MiB, unpacked`);
}

function readFolder(root: string, limits: ReadLimits): NamedSource {
  const entries = new Map<string, FolderEntry>();
  const notices: string[] = [];
  let bytes = 0;
  let entryCount = 0;
  const visit = (path: string, depth: number) => {
    for (const name of readdirSync(join(root, path)).sort()) {
      if (++entryCount > limits.entryCountMax) {
        throw new FarpageError("EFBIG", `${root} has more than ${limits.entryCountMax} entries`);
      }
      const inside = path === "" ? name : `${path}/${name}`;
      const file = join(root, inside);
      const stats = lstatSync(file);
      if (stats.isSymbolicLink()) {
        entries.set(inside, { kind: "link", target: readlinkSync(file) });
      } else if (stats.isDirectory()) enter(inside, depth);
      else if (stats.isFile() && !DEVICE_MEMORY.test(name)) keep(inside, file, stats.size);
    }
  };
  const enter = (path: string, depth: number) => {
    entries.set(path, { kind: "folder" });
    if (depth === FOLDER_DEPTH_MAX) notices.push(`${path}: too deep, left out`);
    else tryTo(path, () => visit(path, depth + 1));
  };
  const keep = (path: string, file: string, size: number) => {
    if (bytes + size > limits.bytesMax) throw tooBig(root, limits);
    tryTo(path, () => {
      const content = unpack(readFileSync(file), path, limits, notices);
      bytes += content.length;
      entries.set(path, { kind: "file", bytes: content });
    });
    if (bytes > limits.bytesMax) throw tooBig(root, limits);
  };
  /** One entry that can't be read leaves the others readable. */
  const tryTo = (path: string, action: () => void) => {
    try {
      action();
    } catch (error) {
      const known = error instanceof FarpageError && error.code === "EFBIG";
      if (known) throw error;
      const text = error instanceof Error ? error.message : String(error);
      notices.push(`${path}: left out: ${text}`);
    }
  };
  visit("", 1);
  return { kind: "read", source: { name: root, entries }, notices };
}

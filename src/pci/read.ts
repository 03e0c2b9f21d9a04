// SPDX-License-Identifier: MIT
// `readTopology`: sources in, one topology out. Each source is taken for what its bytes say it is.

import { FarpageError } from "../base/index.js";
import { buildTopology } from "./build.js";
import { MachineDraft, printable } from "./draft.js";
import type { SourceKind } from "./report.js";
import {
  type FolderEntry,
  type FolderSource,
  type ReadErrorCode,
  type ReadOptions,
  SOURCE_BYTES_MAX,
  type Source,
} from "./source.js";
import { isSysfs, readSysfs } from "./sysfs.js";
import { isTar, readTar } from "./tar.js";
import { readText } from "./text.js";
import type { Topology } from "./topology.js";

/** Archives within archives and folders of archives are read so deep. */
const DEPTH_MAX = 3;
/** Files of a folder of dumps. */
const FILES_MAX = 4_096;
const WANTED = "output of lspci (-vvv, -xxxx, -t), a sysfs folder or archive, cpuinfo, a boot log";

/**
 * Reads all sources as dumps of one machine and merges what they tell. A fact that two of them tell
 * differently is unknown, with a notice. Takes time linear in the bytes; keeps none of them.
 *
 * @throws FarpageError `PCI_NOT_A_DUMP` where no source is any of: lspci output (words, hex, tree),
 * a sysfs (folder or tar archive); `PCI_COMPRESSED` for a compressed source without
 * `options.gunzip`; `PCI_TOO_BIG` beyond `SOURCE_BYTES_MAX` bytes.
 */
export function readTopology(sources: readonly Source[], options: ReadOptions = {}): Topology {
  const reader = new Reader(options);
  for (const source of sources) {
    if ("entries" in source) reader.folder(source, source.isWhole ?? false, 0);
    else reader.only(source.name, source.bytes);
  }
  return reader.topology(sources.map((source) => source.name));
}

class Reader {
  private readonly options: ReadOptions;
  private readonly machine = new MachineDraft();
  private bytesLeft = SOURCE_BYTES_MAX;

  constructor(options: ReadOptions) {
    this.options = options;
  }

  topology(names: readonly string[]): Topology {
    if (this.machine.functions.size === 0) {
      const what =
        names.length === 0 ? "nothing was given" : `no PCI function in ${names.join(", ")}`;
      throw failure("PCI_NOT_A_DUMP", `${what}; wanted: ${WANTED}`);
    }
    return buildTopology(this.machine);
  }

  /** A file that was named, and so must be a dump. */
  only(name: string, bytes: Uint8Array): void {
    const before = this.machine.sources.length;
    this.file(name, bytes, 0);
    const read = this.machine.sources.slice(before);
    if (read.some(({ kinds }) => kinds.size > 0)) return;
    throw failure("PCI_NOT_A_DUMP", `${name} is none of these: ${WANTED}`);
  }

  file(name: string, bytes: Uint8Array, depth: number): void {
    this.spend(name, bytes.length);
    if (isGzip(bytes)) {
      // Some gzip files unpack to themselves.
      if (depth < DEPTH_MAX) this.file(name, this.unpack(name, bytes), depth + 1);
    } else if (isTar(bytes)) {
      const { entries, problems } = readTar(bytes);
      for (const { offset, message } of problems.slice(0, 16)) {
        const place = { source: name, line: null };
        this.machine.notice("BAD_ARCHIVE", place, `at byte ${offset}: ${message}`);
      }
      this.folder({ name, entries }, false, depth);
    } else {
      const { kinds, ignoredLines } = readText(this.machine, name, fromUtf16(bytes));
      this.record(name, kinds, ignoredLines);
    }
  }

  folder({ name, entries }: FolderSource, isWhole: boolean, depth: number): void {
    if (isSysfs(entries)) {
      for (const entry of entries.values()) {
        if (entry.kind === "file") this.spend(name, entry.bytes.length);
      }
      readSysfs(this.machine, name, entries, isWhole);
      this.record(name, new Set<SourceKind>(["sysfs"]), 0);
    }
    this.files(name, entries, depth);
  }

  /** Files of a folder that are no part of a sysfs: dumps beside it. */
  private files(name: string, entries: ReadonlyMap<string, FolderEntry>, depth: number): void {
    if (depth >= DEPTH_MAX) return;
    let count = 0;
    for (const [path, entry] of entries) {
      if (entry.kind !== "file" || /(?:^|\/)(?:bus|devices|kernel|class)\//.test(path)) continue;
      if (++count > FILES_MAX) {
        const place = { source: name, line: null };
        this.machine.notice("LIMIT", place, `more than ${FILES_MAX} files; the rest is left out`);
        return;
      }
      this.file(`${name}/${printable(path)}`, entry.bytes, depth + 1);
    }
  }

  private unpack(name: string, bytes: Uint8Array): Uint8Array {
    const { gunzip } = this.options;
    if (gunzip === undefined) {
      throw failure("PCI_COMPRESSED", `${name} is compressed; unpack it first`);
    }
    try {
      return gunzip(bytes, this.bytesLeft);
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new FarpageError<ReadErrorCode>("PCI_COMPRESSED", `${name} can't be unpacked: ${why}`, {
        cause,
      });
    }
  }

  private spend(name: string, bytes: number): void {
    this.bytesLeft -= bytes;
    if (this.bytesLeft >= 0) return;
    throw failure("PCI_TOO_BIG", `${name}: more than ${SOURCE_BYTES_MAX >> 20} MiB in all`);
  }

  private record(name: string, kinds: Set<SourceKind>, ignoredLines: number): void {
    this.machine.sources.push({ name, kinds, ignoredLines });
  }
}

function isGzip(bytes: Uint8Array): boolean {
  return bytes.length >= 3 && bytes[0] === 0x1f && bytes[1] === 0x8b && bytes[2] === 8;
}

/**
 * What PowerShell's `>` writes: UTF-16 behind a byte order mark. Dumps are ASCII but for a name
 * here and there, whose strange characters are question marks then.
 */
function fromUtf16(bytes: Uint8Array): Uint8Array {
  const isLittle = bytes[0] === 0xff && bytes[1] === 0xfe;
  const isBig = bytes[0] === 0xfe && bytes[1] === 0xff;
  if (!isLittle && !isBig) return bytes;
  const text = new Uint8Array((bytes.length - 2) >> 1);
  const [low, high] = isLittle ? [2, 3] : [3, 2];
  for (let at = 0; at < text.length; at++) {
    const isAscii = bytes[2 * at + high] === 0 && (bytes[2 * at + low] as number) < 0x80;
    text[at] = isAscii ? (bytes[2 * at + low] as number) : 0x3f;
  }
  return text;
}

function failure(code: ReadErrorCode, message: string): FarpageError<ReadErrorCode> {
  return new FarpageError(code, message);
}

// SPDX-License-Identifier: MIT
// The files in which Linux says how its memory lies, of this machine or of a saved copy. They are
// read only; writing to some of their neighbours makes the kernel act.

import { closeSync, fstatSync, openSync, readdirSync, readSync } from "node:fs";
import { basename, join } from "node:path";
import { FarpageError } from "../base/index.js";
import type { MachineFiles, UnreadFile } from "../mm/index.js";

const PROC_FILES: readonly string[] = [
  "proc/buddyinfo",
  "proc/pagetypeinfo",
  "proc/meminfo",
  "proc/vmstat",
];
const SETTINGS: readonly string[] = [
  "compact_unevictable_allowed",
  "compaction_proactiveness",
  "extfrag_threshold",
  "min_free_kbytes",
  "nr_hugepages",
  "nr_overcommit_hugepages",
];
const TRANSPARENT = "sys/kernel/mm/transparent_hugepage";
const TRANSPARENT_FILES: readonly string[] = [
  "defrag",
  "enabled",
  "hpage_pmd_size",
  "khugepaged/defrag",
  "shmem_enabled",
];
const HUGE = "sys/kernel/mm/hugepages";
const HUGE_FILES: readonly string[] = [
  "free_hugepages",
  "nr_hugepages",
  "nr_overcommit_hugepages",
  "resv_hugepages",
  "surplus_hugepages",
];
/** `pagetypeinfo` of a host with many nodes is the longest. */
const FILE_BYTES_MAX = 1 << 20;
/** Sizes of huge pages that a machine may have; real ones have two to four. */
const HUGE_SIZE_COUNT_MAX = 32;

/**
 * Reads them.
 * @param root `"/"`, or the folder of a copy: the files are at their paths in it (as `cp --parents`
 *   puts them), or those of `/proc` lie in it directly.
 * @returns each file's bytes, or the errno name of why there are none.
 * @throws FarpageError ENOENT, ENOTDIR, EACCES when there is no such folder, ENODATA when it has
 *   none of the files.
 */
export function readMemoryFiles(root = "/"): MachineFiles {
  listFolder(root);
  const files = new Map<string, Uint8Array | UnreadFile>();
  for (const path of PROC_FILES) {
    const whole = readStart(join(root, path));
    const isFlat = root !== "/" && !(whole instanceof Uint8Array) && whole.code === "ENOENT";
    files.set(path, isFlat ? readStart(join(root, basename(path))) : whole);
  }
  keepIfThere(files, root, "proc/self/smaps");
  for (const name of SETTINGS) keepIfThere(files, root, `proc/sys/vm/${name}`);
  for (const name of TRANSPARENT_FILES) keepIfThere(files, root, `${TRANSPARENT}/${name}`);
  for (const folder of namesIn(join(root, HUGE)).slice(0, HUGE_SIZE_COUNT_MAX)) {
    for (const name of HUGE_FILES) keepIfThere(files, root, `${HUGE}/${folder}/${name}`);
  }
  if (![...files.values()].some((file) => file instanceof Uint8Array)) {
    throw new FarpageError(
      "ENODATA",
      `${root} has none of ${PROC_FILES.join(", ")}: is it a copy of a Linux machine?`,
    );
  }
  return files;
}

function keepIfThere(
  files: Map<string, Uint8Array | UnreadFile>,
  root: string,
  path: string,
): void {
  const file = readStart(join(root, path));
  // A kernel without the feature has no such file; one that may not be read is worth knowing of.
  if (file instanceof Uint8Array || file.code !== "ENOENT") files.set(path, file);
}

/** Sizes that procfs and sysfs tell are no guide: it reads until there is none. */
function readStart(path: string): Uint8Array | UnreadFile {
  let descriptor: number;
  try {
    descriptor = openSync(path, "r");
  } catch (error) {
    const code = codeOf(error);
    return { code: code === "ENOTDIR" ? "ENOENT" : code };
  }
  try {
    if (!fstatSync(descriptor).isFile()) return { code: "EINVAL" };
    let bytes = new Uint8Array(16 * 1024);
    let length = 0;
    for (;;) {
      const read = readSync(descriptor, bytes, length, bytes.length - length, null);
      length += read;
      if (read === 0 || length >= FILE_BYTES_MAX) return bytes.slice(0, length);
      if (length === bytes.length) {
        const larger = new Uint8Array(bytes.length * 2);
        larger.set(bytes);
        bytes = larger;
      }
    }
  } catch (error) {
    return { code: codeOf(error) };
  } finally {
    closeSync(descriptor);
  }
}

function listFolder(root: string): void {
  try {
    readdirSync(root);
  } catch (cause) {
    const code = codeOf(cause);
    throw new FarpageError(code, `can't read the folder ${root}: ${code}`, { cause });
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
      .filter((name) => /^hugepages-\d{1,12}kB$/.test(name))
      .sort();
  } catch {
    return [];
  }
}

function codeOf(error: unknown): string {
  const code = (error as NodeJS.ErrnoException).code;
  return typeof code === "string" ? code : "EIO";
}

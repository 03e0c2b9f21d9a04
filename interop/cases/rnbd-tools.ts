// SPDX-License-Identifier: MIT
// What the RNBD cases share: load with verification, a tree of files, the guest's kernel log.

import { rmSync } from "node:fs";
import { type CaseContext, check } from "../case.js";
import type { Guest } from "../guest.js";

/** Bytes and count of the largest tree that `makeTree` packs. */
const TREE_BYTES = 48_000_000;
const TREE_FILES = 4000;

/** Lines of a kernel log that no healthy run has. */
const TROUBLE =
  /WARNING:|BUG:|Oops|Call Trace|blocked for more than|(EXT4-fs|XFS).*(error|orrupt|hutdown)/;
const IO_ERROR = /I\/O error/;

export interface FioOptions {
  /** A device, with `--filename`, or a folder, with `--directory`. */
  readonly target: string;
  readonly mebibytes: number;
  /** More of fio's options; later ones win. */
  readonly more?: string;
}

/** fio that writes at random, in pieces of all sizes, and reads all back; fails at a wrong byte. */
export function fioCommand({ target, mebibytes, more = "" }: FioOptions): string {
  return [
    `fio --name=verify ${target} --size=${mebibytes}M --rw=randwrite --bsrange=4k-128k`,
    "--direct=1 --ioengine=libaio --iodepth=16 --verify=crc32c --do_verify=1 --verify_fatal=1",
    `--verify_state_save=0 --randseed=3 ${more}`,
  ].join(" ");
}

/** What fio says of its bandwidth, both ways: for the matrix. */
export function bandwidthOf(output: string): string {
  const of = (word: string) => new RegExp(`${word}: bw=(\\S+)`).exec(output)?.[1] ?? "?";
  return `write ${of("WRITE")}, verify ${of("READ")}`;
}

/** Runs `fioCommand` in the guest. @returns the bandwidths. */
export async function fioInGuest(guest: Guest, options: FioOptions): Promise<string> {
  return bandwidthOf(await guest.run(fioCommand(options), 280_000));
}

/** A mark in the guest's kernel log, for `checkLog`. */
export async function markLog(guest: Guest): Promise<string> {
  const mark = `farpage-case-${process.hrtime.bigint()}`;
  await guest.run(`echo "${mark}" > /dev/kmsg`);
  return mark;
}

/**
 * Checks that the guest's kernel has not complained since a mark.
 * @param allowsIoErrors when the case itself makes requests fail.
 */
export async function checkLog(guest: Guest, mark: string, allowsIoErrors = false): Promise<void> {
  const log = await guest.run(`dmesg | sed -n '/${mark}/,$p'`);
  const bad = log
    .split("\n")
    .filter((line) => TROUBLE.test(line) || (!allowsIoErrors && IO_ERROR.test(line)));
  check(bad.length === 0, "the guest's kernel complains", bad.join("\n"));
}

export interface Tree {
  /** In the guest. */
  readonly path: string;
  readonly files: number;
  readonly bytes: number;
}

/** Packs files of this machine into the folder that the guest shares. */
export async function makeTree(context: CaseContext): Promise<Tree> {
  const { folder, guest } = context;
  const path = `${guest.folder}/share/tree.tar`;
  context.finally(async () => rmSync(path, { force: true }));
  const pick = `{ n += $1; if (n > ${TREE_BYTES} || NR > ${TREE_FILES}) exit; print $2 }`;
  const text = await context.run(
    "sh",
    "-c",
    `find /usr/share -xdev -type f -size -4000k -printf '%s\\t%P\\n' | LC_ALL=C sort -k 2 |
       awk -F '\\t' '${pick}' > '${folder}/list'
     tar -C /usr/share -cf '${path}' -T '${folder}/list'
     wc -l < '${folder}/list'
     stat -c %s '${path}'`,
  );
  const [files = 0, bytes = 0] = text.trim().split(/\s+/).map(Number);
  check(files > 100, "no files to pack", text);
  return { path: "/share/tree.tar", files, bytes };
}

/** `6000 files, 52 MB`. */
export function sizeOf(tree: Tree): string {
  return `${tree.files} files, ${Math.round(tree.bytes / 1e6)} MB`;
}

/** Waits until `isDone`. @throws after `seconds`. */
export async function until(
  what: string,
  seconds: number,
  isDone: () => Promise<boolean>,
): Promise<void> {
  const deadline = Date.now() + seconds * 1000;
  while (!(await isDone())) {
    check(Date.now() < deadline, `not in ${seconds} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

// SPDX-License-Identifier: MIT
// `farpage copy` beside `rsync --whole-file` over a plain rsync daemon, both over loopback, to an
// empty folder each time. Before that, once: killed half-way, run again, and what is there is what
// it should be, byte for byte.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  statfsSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { FARPAGE, has, run, start, startFarpage } from "./programs.js";
import type { Comparison, Contender } from "./ratio.js";

const FILE_BYTES = 4 * 2 ** 30;
const FOLDER_COUNT = 100;
const FILES_PER_FOLDER = 1000;
/** Bytes of the small files, in turn. */
const SMALL_BYTES = [0, 10, 500, 2_000, 4_000, 9_000];
const SERVER = "127.0.0.68";
const CLIENT = "127.0.0.69";
const RSYNC_PORT = 18_730;
/** Sources, two targets, and what the file system wants for itself. */
const SPACE_BYTES = 4 * FILE_BYTES;

export async function copyComparisons(
  backend: string,
): Promise<{ readonly comparisons: Comparison[]; readonly close: () => Promise<void> }> {
  const nothing = { comparisons: [], close: async () => {} };
  const { bavail, bsize } = statfsSync(tmpdir());
  if (bavail * bsize < SPACE_BYTES) {
    process.stderr.write(
      `${tmpdir()} has less than ${SPACE_BYTES / 2 ** 30} GiB: copies skipped\n`,
    );
    return nothing;
  }
  if (!(await hasRsync())) {
    process.stderr.write("rsync is not installed and can't be: copies are skipped\n");
    return nothing;
  }
  const folder = mkdtempSync(join(tmpdir(), "farpage-copy-"));
  for (const name of ["file", "tree", "ours", "theirs"]) mkdirSync(join(folder, name));
  process.stderr.write("making 4 GiB and 100,000 files ...\n");
  makeFile(join(folder, "file/large"));
  makeTree(join(folder, "tree"));
  const server = await startFarpage([
    ...["serve", "--address", SERVER, "--backend", backend],
    ...["--copy", `bench=${join(folder, "ours")}`],
  ]);
  const rsync = await startRsync(folder);
  const close = async () => {
    await server.stop();
    await rsync.stop();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    for (const what of ["file", "tree"]) {
      empty(join(folder, "ours"));
      await interrupted(folder, what, backend);
    }
  } catch (error) {
    await close();
    throw error;
  }
  const files = FOLDER_COUNT * FILES_PER_FOLDER;
  const comparisons: Comparison[] = [
    comparison("copy of a 4 GiB file", "MB/s", "file", FILE_BYTES / 1e6, folder, backend),
    comparison("copy of 100,000 small files", "files/s", "tree", files, folder, backend),
  ];
  return { comparisons, close };
}

function comparison(
  figure: string,
  unit: string,
  what: string,
  amount: number,
  folder: string,
  backend: string,
): Comparison {
  const from = `${join(folder, what)}/`;
  const contender = (name: string, copy: () => Promise<unknown>): Contender => ({
    name,
    measure: async () => {
      for (const target of ["ours", "theirs"]) empty(join(folder, target));
      execFileSync("sync");
      const startMs = performance.now();
      await copy();
      return amount / ((performance.now() - startMs) / 1000);
    },
  });
  const target = `rtrs://${SERVER}/bench`;
  const farpage = ["copy", from, target, "--address", CLIENT, "--backend", backend, "--quiet"];
  const daemon = `rsync://127.0.0.1:${RSYNC_PORT}/bench/`;
  return {
    figure,
    unit,
    better: "more",
    ours: contender("farpage", () => run(process.execPath, [FARPAGE, ...farpage])),
    peers: [
      contender("rsync --whole-file", () => run("rsync", ["-a", "--whole-file", from, daemon])),
    ],
  };
}

/** Kills a copy when half of it is there, runs it again, and compares everything. */
async function interrupted(folder: string, what: string, backend: string): Promise<void> {
  const from = `${join(folder, what)}/`;
  const args = ["copy", from, `rtrs://${SERVER}/bench`, "--address", CLIENT, "--backend", backend];
  const child = spawn(process.execPath, [FARPAGE, ...args, "--json"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  for await (const line of createInterface({ input: child.stdout })) {
    const event = JSON.parse(line) as Record<string, unknown>;
    const isHalf =
      what === "file"
        ? Number(event["bytes"]) >= FILE_BYTES / 2
        : Number(event["files"]) >= (FOLDER_COUNT * FILES_PER_FOLDER) / 2;
    if (event["event"] !== "progress" || !isHalf) continue;
    child.kill("SIGKILL");
    break;
  }
  await exited;
  const output = await run(process.execPath, [FARPAGE, ...args, "--json", "--quiet"]);
  const done = JSON.parse(output.trim().split("\n").at(-1) as string) as Record<string, unknown>;
  await run("diff", ["-rq", "--no-dereference", from, join(folder, "ours")]);
  // Names, modes, owners and times, which diff does not look at.
  const changes = await run("rsync", ["-ani", "--delete", from, `${join(folder, "ours")}/`]);
  // The target itself is not a part of the copy.
  const others = changes.split("\n").filter((line) => line !== "" && !/^\.d\S* \.\/$/.test(line));
  if (others.length > 0) throw new Error(`the copy differs:\n${others.slice(0, 10).join("\n")}`);
  process.stderr.write(
    `${what}: killed half-way, run again: ${done["skippedFiles"]} files and ` +
      `${Math.round(Number(done["skippedBytes"]) / 1e6)} MB were there; all is exact\n`,
  );
}

/** Installs it where that is possible. */
async function hasRsync(): Promise<boolean> {
  if (has("rsync")) return true;
  if (!has("apt-get") || process.getuid?.() !== 0) return false;
  try {
    const env = { DEBIAN_FRONTEND: "noninteractive" };
    await run("apt-get", ["install", "-y", "--no-install-recommends", "rsync"], env);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
  }
  return has("rsync");
}

function startRsync(folder: string): ReturnType<typeof start> {
  const config = join(folder, "rsyncd.conf");
  const isRoot = process.getuid?.() === 0;
  const owner = isRoot ? "uid = 0\ngid = 0\n" : "";
  const module = `[bench]\npath = ${join(folder, "theirs")}\nread only = false\n`;
  writeFileSync(config, `use chroot = false\n${owner}${module}`);
  const args = ["--daemon", "--no-detach", "--address=127.0.0.1", `--port=${RSYNC_PORT}`];
  return start("rsync", [...args, `--config=${config}`], () => answers(RSYNC_PORT));
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

/** Takes away what is in a folder, which servers have open. */
function empty(folder: string): void {
  for (const name of readdirSync(folder)) {
    rmSync(join(folder, name), { recursive: true, force: true });
  }
}

/** Bytes that no file system can squeeze, the same each time. */
function noise(length: number): Buffer {
  const words = new Uint32Array(length / 4);
  let state = 0x9e3779b9;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  return Buffer.from(words.buffer);
}

function makeFile(path: string): void {
  const block = noise(1 << 22);
  const file = openSync(path, "w");
  for (let at = 0; at < FILE_BYTES; at += block.length) {
    // No two blocks alike: one in another's place would be seen.
    block.writeDoubleLE(at, 0);
    writeSync(file, block, 0, block.length, at);
  }
  closeSync(file);
}

function makeTree(root: string): void {
  const block = noise(65_536);
  for (let folder = 0; folder < FOLDER_COUNT; folder++) {
    const path = join(root, `folder ${folder}`);
    mkdirSync(path);
    for (let i = 0; i < FILES_PER_FOLDER; i++) {
      const bytes = SMALL_BYTES[i % SMALL_BYTES.length] as number;
      const at = (folder * 131 + i * 7) % 50_000;
      writeFileSync(join(path, `file ${i}`), block.subarray(at, at + bytes));
    }
  }
}

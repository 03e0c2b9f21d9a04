// SPDX-License-Identifier: MIT
// A disk through the NBD endpoint, every byte over RoCEv2 between two farpage processes, beside NBD
// servers that open the same file themselves. The load is fio's NBD engine.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FARPAGE, has, listens, run, type Service, start, startFarpage } from "./programs.js";
import type { Comparison, Contender } from "./ratio.js";

const SIZE = "1G";
const VOLUME = "bench";

interface Load {
  readonly figure: string;
  readonly rw: "randread" | "randwrite" | "read" | "write";
  readonly blockSize: string;
  readonly depth: number;
}

const LOADS: readonly Load[] = [
  { figure: "NBD 4 KiB random read, depth 1", rw: "randread", blockSize: "4k", depth: 1 },
  { figure: "NBD 4 KiB random read, depth 32", rw: "randread", blockSize: "4k", depth: 32 },
  { figure: "NBD 4 KiB random write, depth 1", rw: "randwrite", blockSize: "4k", depth: 1 },
  { figure: "NBD 4 KiB random write, depth 32", rw: "randwrite", blockSize: "4k", depth: 32 },
  { figure: "NBD 128 KiB sequential read", rw: "read", blockSize: "128k", depth: 8 },
  { figure: "NBD 128 KiB sequential write", rw: "write", blockSize: "128k", depth: 8 },
];

/** The comparisons, and what must be called when they are done. */
export async function blockComparisons(
  backend: string,
): Promise<{ readonly comparisons: Comparison[]; readonly close: () => Promise<void> }> {
  const disk = await makeDisk();
  if (disk === null) return { comparisons: [], close: async () => {} };
  const { folder, file } = disk;
  const peers = ["qemu-nbd", "nbdkit"].filter((program) => {
    const there = has(program);
    if (!there) process.stderr.write(`${program} is not installed: left out\n`);
    return there;
  });
  return {
    comparisons: LOADS.map((load) => ({
      figure: load.figure,
      unit: load.blockSize === "4k" ? "IO/s" : "MB/s",
      better: "more",
      ours: contender("farpage", load, folder, () => serveFarpage(file, folder, backend)),
      peers: peers.map((program) =>
        contender(program, load, folder, () => servePeer(program, file, folder)),
      ),
    })),
    close: async () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** The same build for build: this one, and the one whose main file is `before`. */
export async function blockPairs(
  before: string,
  backend: string,
): Promise<{ readonly comparisons: Comparison[]; readonly close: () => Promise<void> }> {
  const disk = await makeDisk();
  if (disk === null) return { comparisons: [], close: async () => {} };
  const { folder, file } = disk;
  const build = (name: string, load: Load, program: string) =>
    contender(name, load, folder, () => serveFarpage(file, folder, backend, program));
  return {
    comparisons: LOADS.map((load) => ({
      figure: load.figure,
      unit: load.blockSize === "4k" ? "IO/s" : "MB/s",
      better: "more",
      ours: build("farpage", load, FARPAGE),
      peers: [build("before", load, before)],
    })),
    close: async () => rmSync(folder, { recursive: true, force: true }),
  };
}

/** A folder with a file full of data. @returns null without fio. */
async function makeDisk(): Promise<{ readonly folder: string; readonly file: string } | null> {
  if (!has("fio")) {
    process.stderr.write("fio is not installed: block I/O is skipped\n");
    return null;
  }
  const folder = mkdtempSync(join(tmpdir(), "farpage-bench-"));
  const file = join(folder, "disk.img");
  await run("fio", [
    "--name=fill",
    "--rw=write",
    "--bs=1M",
    `--size=${SIZE}`,
    `--filename=${file}`,
  ]);
  return { folder, file };
}

/** A running server and the URI of its export. */
interface Served extends Service {
  readonly uri: string;
}

function contender(
  name: string,
  load: Load,
  folder: string,
  serve: () => Promise<Served>,
): Contender {
  return {
    name,
    measure: async () => {
      const served = await serve();
      try {
        return await fio(load, served.uri, folder);
      } finally {
        await served.stop();
      }
    },
  };
}

async function serveFarpage(
  file: string,
  folder: string,
  backend: string,
  program = FARPAGE,
): Promise<Served> {
  const server = await startFarpage(
    ["serve", "--address", "127.0.0.64", "--volume", `${VOLUME}=${file}`, "--backend", backend],
    program,
  );
  try {
    const url = `rnbd://127.0.0.64/${VOLUME}`;
    const nbd = `unix:${join(folder, "farpage.sock")}`;
    const client = await startFarpage(
      ["attach", url, "--address", "127.0.0.65", "--nbd", nbd, "--backend", backend],
      program,
    );
    return {
      uri: String(client.ready["nbd"]),
      async stop() {
        await client.stop();
        await server.stop();
      },
    };
  } catch (error) {
    await server.stop();
    throw error;
  }
}

async function servePeer(program: string, file: string, folder: string): Promise<Served> {
  const socket = join(folder, `${program}.sock`);
  rmSync(socket, { force: true });
  const args =
    program === "qemu-nbd"
      ? ["-f", "raw", "-t", "-e", "16", "--cache=writeback", "-k", socket, file]
      : ["-f", "-U", socket, "file", file];
  const service = await start(program, args, () => listens(socket));
  return { uri: `nbd+unix:///?socket=${socket}`, stop: () => service.stop() };
}

async function fio(load: Load, uri: string, folder: string): Promise<number> {
  const output = await run("fio", [
    "--name=load",
    "--ioengine=nbd",
    `--uri=${uri}`,
    `--rw=${load.rw}`,
    `--bs=${load.blockSize}`,
    `--iodepth=${load.depth}`,
    `--size=${SIZE}`,
    "--time_based",
    // Not counted: the time in which farpage's hot paths get compiled.
    "--ramp_time=3",
    "--runtime=2",
    "--randseed=1",
    "--output-format=json",
    `--aux-path=${folder}`,
  ]);
  // fio prints notes before its JSON.
  const report = JSON.parse(output.slice(output.indexOf("{"))) as {
    jobs: { read: { iops: number; bw_bytes: number }; write: { iops: number; bw_bytes: number } }[];
  };
  const side = report.jobs[0]?.[load.rw.endsWith("read") ? "read" : "write"];
  if (side === undefined) throw new Error("fio reported no job");
  return load.blockSize === "4k" ? side.iops : side.bw_bytes / 1e6;
}

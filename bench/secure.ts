// SPDX-License-Identifier: MIT
// What safety from a hostile peer costs: keys that rotate (the default, on both sides) beside keys
// that stay. Both pairs of hosts run all the time, so that neither begins cold; the disks are
// memory, so that nothing but the way there counts.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { has, run, type Service, startFarpage } from "./programs.js";
import type { Comparison } from "./ratio.js";

const DISK_MIB = 64;
const DISKS_MAX = 16;
/** Requests under way, all disks together. */
const DEPTH = 32;
const SIZES = [512, 4096, 16_384, 65_536, 131_072, 1 << 20];

/** A server and a client with all disks attached. */
interface Pair extends Service {
  readonly uris: readonly string[];
}

/** The comparisons, and what must be called when they are done. */
export async function secureComparisons(
  backend: string,
): Promise<{ readonly comparisons: Comparison[]; readonly close: () => Promise<void> }> {
  if (!has("fio")) {
    process.stderr.write("fio is not installed: the secure mode's price is skipped\n");
    return { comparisons: [], close: async () => {} };
  }
  const folder = mkdtempSync(join(tmpdir(), "farpage-bench-"));
  const pairs: Pair[] = [];
  const close = async (): Promise<void> => {
    for (const pair of pairs.reverse()) await pair.stop();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const secure = await startPair(folder, backend, true, "127.0.0.66", "127.0.0.67");
    pairs.push(secure);
    const insecure = await startPair(folder, backend, false, "127.0.0.68", "127.0.0.69");
    pairs.push(insecure);
    return { comparisons: comparisonsOf(secure, insecure, folder), close };
  } catch (error) {
    await close();
    throw error;
  }
}

function comparisonsOf(secure: Pair, insecure: Pair, folder: string): Comparison[] {
  const comparisons: Comparison[] = [];
  for (const disks of [1, DISKS_MAX]) {
    for (const rw of ["randread", "randwrite"]) {
      for (const bytes of SIZES) {
        const load = { rw, bytes, disks };
        comparisons.push({
          figure: `secure: ${sizeText(bytes)} random ${rw.slice(4)}, ${disksText(disks)}`,
          unit: "IO/s",
          better: "more",
          ours: { name: "keys rotate", measure: () => fio(load, secure, folder) },
          peers: [{ name: "keys stay", measure: () => fio(load, insecure, folder) }],
        });
      }
    }
  }
  return comparisons;
}

function sizeText(bytes: number): string {
  if (bytes >= 1 << 20) return `${bytes >> 20} MiB`;
  return bytes >= 1024 ? `${bytes >> 10} KiB` : `${bytes} B`;
}

function disksText(disks: number): string {
  return disks === 1 ? "1 disk" : `${disks} disks`;
}

async function startPair(
  folder: string,
  backend: string,
  isSecure: boolean,
  there: string,
  here: string,
): Promise<Pair> {
  const common = ["--backend", backend, "--always-invalidate", String(isSecure)];
  const names = Array.from({ length: DISKS_MAX }, (_, index) => `disk${index}`);
  const volumes = names.flatMap((name) => ["--volume", `${name}=memory:${DISK_MIB}M`]);
  const server = await startFarpage(["serve", "--address", there, ...volumes, ...common]);
  try {
    const uris = names.map((name) => `rnbd://${there}/${name}`);
    const socket = join(folder, isSecure ? "secure.sock" : "insecure.sock");
    const nbd = ["--nbd", `unix:${socket}`];
    const client = await startFarpage(["attach", ...uris, "--address", here, ...nbd, ...common]);
    return {
      uris: names.map((name) => `nbd+unix:///${name}?socket=${socket}`),
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

interface Load {
  readonly rw: string;
  readonly bytes: number;
  readonly disks: number;
}

/** @returns requests a second of all disks together. */
async function fio(load: Load, pair: Pair, folder: string): Promise<number> {
  const jobs = pair.uris
    .slice(0, load.disks)
    .flatMap((uri, index) => [`--name=disk${index}`, `--uri=${uri}`]);
  const output = await run("fio", [
    "--ioengine=nbd",
    `--rw=${load.rw}`,
    `--bs=${load.bytes}`,
    `--iodepth=${DEPTH / load.disks}`,
    `--size=${DISK_MIB}M`,
    "--time_based",
    "--ramp_time=1",
    "--runtime=2",
    "--randseed=1",
    "--group_reporting",
    "--output-format=json",
    `--aux-path=${folder}`,
    ...jobs,
  ]);
  // fio prints notes before its JSON.
  const report = JSON.parse(output.slice(output.indexOf("{"))) as {
    jobs: { read: { iops: number }; write: { iops: number } }[];
  };
  const side = report.jobs[0]?.[load.rw === "randread" ? "read" : "write"];
  if (side === undefined) throw new Error("fio reported no job");
  return side.iops;
}

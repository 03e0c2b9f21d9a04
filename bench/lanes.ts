// SPDX-License-Identifier: MIT
// What a second lane of a server does: two clients at once, each with a disk of its own (a file in
// memory, the same kind for both), of a server with two lanes beside one with one. Both servers and
// all clients run all the time.
//
// A session's lane is chance; here clients are started anew until each has a lane of its own.

import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { FARPAGE, has, run, type Service, startFarpage } from "./programs.js";
import type { Comparison } from "./ratio.js";

const DISK_MIB = 64;
const CLIENTS = 2;
/** Requests under way of each client. */
const DEPTH = 16;
const SIZES = [4096, 65_536];
const ATTEMPTS_MAX = 32;

interface Group extends Service {
  readonly uris: readonly string[];
}

/** The comparisons, and what must be called when they are done. */
export async function laneComparisons(
  backend: string,
): Promise<{ readonly comparisons: Comparison[]; readonly close: () => Promise<void> }> {
  if (!has("fio") || backend === "node") {
    process.stderr.write("lanes need fio and foreign calls: skipped\n");
    return { comparisons: [], close: async () => {} };
  }
  const parent = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
  const folder = mkdtempSync(join(parent, "farpage-bench-"));
  const groups: Group[] = [];
  const close = async (): Promise<void> => {
    for (const group of groups.reverse()) await group.stop();
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const two = await startGroup(folder, 2, "127.0.0.70");
    groups.push(two);
    const one = await startGroup(folder, 1, "127.0.0.73");
    groups.push(one);
    return { comparisons: comparisonsOf(two, one, folder), close };
  } catch (error) {
    await close();
    throw error;
  }
}

function comparisonsOf(two: Group, one: Group, folder: string): Comparison[] {
  const comparisons: Comparison[] = [];
  for (const rw of ["randread", "randwrite"]) {
    for (const bytes of SIZES) {
      comparisons.push({
        figure: `lanes: ${bytes >> 10} KiB random ${rw.slice(4)}, ${CLIENTS} clients`,
        unit: "IO/s",
        better: "more",
        ours: { name: "2 lanes", measure: () => fio(rw, bytes, two, folder) },
        peers: [{ name: "1 lane", measure: () => fio(rw, bytes, one, folder) }],
      });
    }
  }
  return comparisons;
}

/** A server at `there` and its clients at the next addresses. */
async function startGroup(folder: string, lanes: number, there: string): Promise<Group> {
  const names = Array.from({ length: CLIENTS }, (_, index) => `disk${index}`);
  const fileOf = (name: string) => `${name}=${folder}/${lanes}-${name}.img,size=${DISK_MIB}M`;
  const volumes = names.flatMap((name) => ["--volume", fileOf(name)]);
  const flags = ["--address", there, ...volumes, "--lanes", String(lanes), "--sessions", "64"];
  const server = await startFarpage(["serve", ...flags]);
  const clients: Service[] = [];
  const uris: string[] = [];
  const last = Number(there.split(".").at(-1));
  try {
    for (const [index, name] of names.entries()) {
      const socket = join(folder, `${lanes}-${index}.sock`);
      const attach = ["attach", `rnbd://${there}/${name}`, "--nbd", `unix:${socket}`];
      const address = `127.0.0.${last + 1 + index}`;
      clients.push(await startOnLane(there, [...attach, "--address", address], index % lanes));
      uris.push(`nbd+unix:///${name}?socket=${socket}`);
    }
  } catch (error) {
    for (const client of clients) await client.stop();
    await server.stop();
    throw error;
  }
  return {
    uris,
    async stop() {
      for (const client of clients) await client.stop();
      await server.stop();
    },
  };
}

async function startOnLane(server: string, args: string[], lane: number): Promise<Service> {
  const address = args.at(-1) as string;
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const client = await startFarpage(args);
    if ((await laneOf(server, address)) === lane) return client;
    await client.stop();
  }
  throw new Error(`no session came to lane ${lane}`);
}

/** The lane on which `server` has the session of the client at `address`. */
async function laneOf(server: string, address: string): Promise<number> {
  const { queuePairs } = JSON.parse(
    await run(process.execPath, [FARPAGE, "stat", server, "--json"]),
  ) as { queuePairs: { lane: number; peer: string | null; state: string }[] };
  const isLive = (qp: (typeof queuePairs)[number]) => qp.peer === address && qp.state === "RTS";
  return queuePairs.find(isLive)?.lane ?? -1;
}

/** @returns requests a second of all clients together. */
async function fio(rw: string, bytes: number, group: Group, folder: string): Promise<number> {
  const jobs = group.uris.flatMap((uri, index) => [`--name=disk${index}`, `--uri=${uri}`]);
  const output = await run("fio", [
    ...["--ioengine=nbd", `--rw=${rw}`, `--bs=${bytes}`, `--iodepth=${DEPTH}`],
    ...[`--size=${DISK_MIB}M`, "--time_based", "--ramp_time=1", "--runtime=3", "--randseed=1"],
    ...["--group_reporting", "--output-format=json", `--aux-path=${folder}`, ...jobs],
  ]);
  // fio prints notes before its JSON.
  const report = JSON.parse(output.slice(output.indexOf("{"))) as {
    jobs: { read: { iops: number }; write: { iops: number } }[];
  };
  const side = report.jobs[0]?.[rw === "randread" ? "read" : "write"];
  if (side === undefined) throw new Error("fio reported no job");
  return side.iops;
}

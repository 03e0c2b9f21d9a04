// SPDX-License-Identifier: MIT
// `farpage serve --lanes` under stock clients: several sessions on several lanes, each with data of
// its own that must be right through crashes of the server.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { Farpage, has, MAIN, run, scratch, stopAll } from "./programs.js";

const SERVER = "127.0.0.101";
const CLIENT_COUNT = 4;
const MAIN_ARGS = ["--lanes", "2", "--sessions", "8"];
const folders: { remove: () => void }[] = [];
const children: ChildProcess[] = [];

afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await stopAll();
  for (const folder of folders.splice(0)) folder.remove();
});

function folder(): string {
  const made = scratch();
  folders.push(made);
  return made.path;
}

async function serve(volumes: readonly string[]): Promise<Farpage> {
  const flags = volumes.flatMap((volume) => ["--volume", volume]);
  const server = new Farpage(["serve", "--address", SERVER, ...flags, ...MAIN_ARGS]);
  await server.event("ready");
  return server;
}

async function attach(index: number, data: string): Promise<Farpage> {
  const address = `127.0.0.${102 + index}`;
  const nbd = `unix:${join(data, `${index}.sock`)}`;
  const uri = `rnbd://${SERVER}/disk${index}`;
  const client = new Farpage(["attach", uri, "--address", address, "--nbd", nbd]);
  await client.event("ready");
  return client;
}

/** Random writes that are read back and compared, at a pace that outlasts the crashes. */
function verify(uri: string, data: string): { ended: Promise<unknown[]>; output: () => string } {
  const flags = ["--name=verify", "--ioengine=nbd", `--uri=${uri}`, "--rw=randwrite", "--bs=4k"];
  const amount = ["--iodepth=8", "--size=16M", "--io_size=24M", "--rate=4M", "--fsync=64"];
  const check = ["--verify=crc32c", "--verify_state_save=0", "--verify_backlog=256"];
  const options = ["--verify_fatal=1", "--thread", "--group_reporting"];
  const fio = spawn("fio", [...flags, ...amount, ...check, ...options], {
    stdio: ["ignore", "pipe", "pipe"],
    cwd: data,
  });
  children.push(fio);
  let output = "";
  fio.stdout.on("data", (text) => {
    output += String(text);
  });
  fio.stderr.on("data", (text) => {
    output += String(text);
  });
  return { ended: once(fio, "exit"), output: () => output };
}

function farpage(...args: string[]): ReturnType<typeof run> {
  return run(process.execPath, [MAIN, ...args]);
}

/** Queue pairs with a peer, by lane. */
async function lanesInUse(server: Farpage): Promise<number[]> {
  const { stdout } = await farpage("stat", String(server.pid), "--json");
  const { queuePairs } = JSON.parse(stdout) as {
    queuePairs: { lane: number; peer: string | null }[];
  };
  const counts = [0, 0];
  for (const { lane, peer } of queuePairs) {
    if (peer !== null) counts[lane] = (counts[lane] ?? 0) + 1;
  }
  return counts;
}

describe.runIf(has("fio"))("a server of two lanes", () => {
  it("four clients under fio --verify, three kills of the server: nothing is lost", async () => {
    const data = folder();
    const volumes = Array.from(
      { length: CLIENT_COUNT },
      (_, index) => `disk${index}=${join(data, `${index}.img`)},size=16M`,
    );
    let server = await serve(volumes);
    expect((await server.event("ready"))["lanes"]).toBe(2);
    const clients: Farpage[] = [];
    for (let index = 0; index < CLIENT_COUNT; index++) clients.push(await attach(index, data));
    const counts = await lanesInUse(server);
    // A service connection and one for requests, each.
    expect(counts.reduce((sum, count) => sum + count, 0)).toBe(2 * CLIENT_COUNT);
    const jobs = [];
    for (const client of clients) {
      jobs.push(verify(String((await client.event("ready"))["nbd"]), data));
    }
    for (let crash = 0; crash < 3; crash++) {
      const from = clients.map(({ events }) => events.length);
      await new Promise((resolve) => setTimeout(resolve, 1200));
      await server.kill();
      server = await serve(volumes);
      await Promise.all(clients.map((client, i) => client.event("connected", from[i])));
    }
    for (const { ended, output } of jobs) {
      const [status] = await ended;
      expect(status, output()).toBe(0);
    }
    for (const client of clients) expect(await client.stop()).toBe(0);
    expect(await server.stop()).toBe(0);
    expect(server.stderr).toBe("");
  }, 180_000);

  it.runIf(has("nbdcopy"))(
    "readers of one volume on any lane see what its writer wrote",
    async () => {
      const data = folder();
      const server = await serve([`disk0=${join(data, "0.img")},size=4M`]);
      const writer = await attach(0, data);
      const random = join(data, "random");
      await run("dd", ["if=/dev/urandom", `of=${random}`, "bs=1M", "count=4"]);
      await run("nbdcopy", ["--flush", random, String((await writer.event("ready"))["nbd"])]);
      for (let index = 1; index < 6; index++) {
        const socket = join(data, `reader${index}.sock`);
        const reader = new Farpage([
          ...["attach", `rnbd://${SERVER}/disk0`, "--readonly"],
          ...["--address", `127.0.0.${102 + index}`, "--nbd", `unix:${socket}`],
        ]);
        const uri = String((await reader.event("ready"))["nbd"]);
        const copy = join(data, `copy${index}`);
        await run("nbdcopy", [uri, copy]);
        expect(readFileSync(copy).equals(readFileSync(random))).toBe(true);
        expect(await reader.stop()).toBe(0);
      }
      expect(await writer.stop()).toBe(0);
      expect(await server.stop()).toBe(0);
    },
    60_000,
  );
});

/** Requests that each lane of a client has sent so far, lane 0's first. */
async function requestsByLane(client: Farpage): Promise<number[]> {
  const { stdout } = await farpage("attach", String(client.pid), "--status", "--json");
  const { sessions } = JSON.parse(stdout) as {
    sessions: { paths: { stats: { rdma: { reads: number } } }[] }[];
  };
  return sessions.map(({ paths }) => paths.reduce((sum, { stats }) => sum + stats.rdma.reads, 0));
}

describe.runIf(has("nbdcopy") && has("fio"))("a client of two lanes", () => {
  it("four connections, the server killed: both lanes read, every byte is right", async () => {
    const data = folder();
    const file = join(data, "0.img");
    await run("dd", ["if=/dev/urandom", `of=${file}`, "bs=1M", "count=16"]);
    let server = await serve([`disk0=${file}`]);
    const client = new Farpage([
      ...["attach", `rnbd://${SERVER}/disk0`, "--address", "127.0.0.102", "--readonly"],
      ...["--lanes", "2", "--nbd", `unix:${join(data, "nbd.sock")}`],
    ]);
    const { nbd, lanes } = await client.event("ready");
    expect(lanes).toBe(2);
    const copy = join(data, "copy");
    await run("nbdcopy", ["--connections=4", "--threads=4", String(nbd), copy]);
    expect(readFileSync(copy).equals(readFileSync(file))).toBe(true);
    const flags = ["--name=read", "--ioengine=nbd", `--uri=${nbd}`, "--rw=randread", "--bs=4k"];
    const load = ["--iodepth=4", "--numjobs=4", "--size=16M", "--rate=2M", "--thread"];
    const reading = run("fio", [...flags, ...load, "--group_reporting"]);
    const from = client.events.length;
    await new Promise((resolve) => setTimeout(resolve, 2500));
    for (const reads of await requestsByLane(client)) expect(reads).toBeGreaterThan(100);
    await server.kill();
    server = await serve([`disk0=${file}`]);
    // Told once by each lane.
    const first = await client.event("connected", from);
    const second = await client.event("connected", client.events.indexOf(first) + 1);
    expect([first, second].filter(({ text }) => String(text).startsWith("lane 1:"))).toHaveLength(
      1,
    );
    await reading;
    expect(await client.stop()).toBe(0);
    expect(await server.stop()).toBe(0);
    expect(server.stderr).toBe("");
  }, 120_000);
});

describe("an idle server of two lanes", () => {
  it("costs nothing while nobody asks for anything, and ends on SIGTERM", async () => {
    const server = await serve([`disk0=memory:1M`]);
    const client = await attach(0, folder());
    await new Promise((resolve) => setTimeout(resolve, 500));
    const before = ticksOf(server.pid);
    await new Promise((resolve) => setTimeout(resolve, 2000));
    expect(ticksOf(server.pid) - before).toBeLessThanOrEqual(2);
    expect(await client.stop()).toBe(0);
    expect(await server.stop()).toBe(0);
  });
});

/** Processor time of all threads, in hundredths of a second. */
function ticksOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ").at(-1)?.split(" ") ?? [];
  return Number(fields[11]) + Number(fields[12]);
}

// SPDX-License-Identifier: MIT
// `farpage attach --lanes` with volumes that are written: NBD connections on both lanes, each lane
// with a session of its own, and crashes of the server, which has one lane or two.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { Farpage, has, MAIN, run, scratch, stopAll } from "./programs.js";

const SERVER = "127.0.0.121";
const CLIENT = "127.0.0.122";
const OTHER = "127.0.0.123";
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

async function serve(lanes: number, volume: string): Promise<Farpage> {
  const server = new Farpage(
    ["serve", "--address", SERVER, "--volume", volume].concat("--lanes", `${lanes}`),
  );
  await server.event("ready");
  return server;
}

async function attach(data: string): Promise<Farpage> {
  const client = new Farpage([
    ...["attach", `rnbd://${SERVER}/disk`, "--address", CLIENT, "--lanes", "2"],
    ...["--nbd", `unix:${join(data, "nbd.sock")}`],
  ]);
  expect((await client.event("ready"))["lanes"]).toBe(2);
  return client;
}

/** Four connections that write a quarter each and compare, at a pace that outlasts the crashes. */
function verify(uri: string, cwd: string): { ended: Promise<unknown[]>; output: () => string } {
  const job = ["--name=verify", "--ioengine=nbd", `--uri=${uri}`, "--rw=randwrite", "--bs=4k"];
  const parts = ["--numjobs=4", "--size=4M", "--offset_increment=4M", "--thread"];
  const amount = ["--iodepth=8", "--io_size=6M", "--rate=1M", "--fsync=64"];
  const check = ["--verify=crc32c", "--verify_state_save=0", "--verify_backlog=256"];
  const options = ["--verify_fatal=1", "--group_reporting"];
  const args = [...job, ...parts, ...amount, ...check, ...options];
  const fio = spawn("fio", args, { stdio: ["ignore", "pipe", "pipe"], cwd });
  children.push(fio);
  let output = "";
  for (const stream of [fio.stdout, fio.stderr]) {
    stream.on("data", (text) => {
      output += String(text);
    });
  }
  return { ended: once(fio, "exit"), output: () => output };
}

/** Changes that each lane of a client has sent so far, lane 0's first. */
async function writesByLane(client: Farpage): Promise<number[]> {
  const { stdout } = await run(process.execPath, [
    ...[MAIN, "attach", String(client.pid), "--status", "--json"],
  ]);
  const { sessions } = JSON.parse(stdout) as {
    sessions: { paths: { stats: { rdma: { writes: number } } }[] }[];
  };
  return sessions.map(({ paths }) => paths.reduce((sum, { stats }) => sum + stats.rdma.writes, 0));
}

/** Tries to open the volume for writing as somebody else. @returns what it is told. */
async function intrude(data: string): Promise<string> {
  const other = new Farpage([
    ...["attach", `rnbd://${SERVER}/disk`, "--address", OTHER, "--timeout", "2"],
    ...["--nbd", `unix:${join(data, "other.sock")}`, "--lanes", "2"],
  ]);
  expect(await other.exited).not.toBe(0);
  return JSON.stringify(other.events) + other.stderr;
}

describe.runIf(has("fio"))("a client of two lanes that writes", () => {
  it.each([1, 2])(
    "a server of %i lane(s), killed three times under fio --verify: nothing is lost",
    async (lanes) => {
      const data = folder();
      const volume = `disk=${join(data, "disk.img")},size=16M`;
      let server = await serve(lanes, volume);
      const client = await attach(data);
      const job = verify(String((await client.event("ready"))["nbd"]), data);
      for (let crash = 0; crash < 3; crash++) {
        const from = client.events.length;
        await new Promise((resolve) => setTimeout(resolve, 1200));
        await server.kill();
        server = await serve(lanes, volume);
        // Told once by each lane.
        const first = await client.event("connected", from);
        await client.event("connected", client.events.indexOf(first) + 1);
      }
      expect(await intrude(data)).toContain("open for writing");
      const [status] = await job.ended;
      expect(status, job.output()).toBe(0);
      for (const writes of await writesByLane(client)) expect(writes).toBeGreaterThan(500);
      expect(await client.stop()).toBe(0);
      const heir = await attach(data);
      expect(await heir.stop()).toBe(0);
      expect(await server.stop()).toBe(0);
      expect(server.stderr).toBe("");
    },
    180_000,
  );
});

describe.runIf(has("nbdcopy") && has("fio"))("connections on both lanes", () => {
  it("what four have written and flushed is in the file, and read by any one", async () => {
    const data = folder();
    const file = join(data, "disk.img");
    const server = await serve(2, `disk=${file},size=16M`);
    const client = await attach(data);
    const uri = String((await client.event("ready"))["nbd"]);
    const job = ["--name=write", "--ioengine=nbd", `--uri=${uri}`, "--rw=randwrite", "--bs=16k"];
    const parts = ["--numjobs=4", "--size=4M", "--offset_increment=4M", "--thread", "--iodepth=4"];
    await run("fio", [...job, ...parts, "--end_fsync=1", "--group_reporting"]);
    for (const writes of await writesByLane(client)) expect(writes).toBeGreaterThan(200);
    const wanted = readFileSync(file);
    for (let at = 0; at < wanted.length; at += 16_384) {
      expect(wanted.subarray(at, at + 16_384).some((byte) => byte !== 0)).toBe(true);
    }
    for (let i = 0; i < 3; i++) {
      const copy = join(data, `copy${i}`);
      await run("nbdcopy", ["--connections=1", uri, copy]);
      expect(readFileSync(copy).equals(wanted)).toBe(true);
    }
    // The dead client's sessions keep the volume until the server has missed both.
    await client.kill();
    const heir = new Farpage([
      ...["attach", `rnbd://${SERVER}/disk`, "--address", CLIENT, "--lanes", "2"],
      ...["--nbd", `unix:${join(data, "heir.sock")}`],
    ]);
    expect((await heir.event("ready", 0, 60_000))["lanes"]).toBe(2);
    expect(await heir.stop()).toBe(0);
    expect(await server.stop()).toBe(0);
    expect(server.stderr).toBe("");
  }, 150_000);
});

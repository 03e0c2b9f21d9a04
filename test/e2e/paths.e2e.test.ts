// SPDX-License-Identifier: MIT
// A session of two paths on real sockets, between two network namespaces: cut under `fio --verify`,
// added and removed by the command line, and together faster than one. FARPAGE_PATH_CUTS says how
// often a path is cut (default 4).

import { spawn } from "node:child_process";
import { once } from "node:events";
import { afterEach, describe, expect, it } from "vitest";
import { canMakeNamespaces, TwoNamespaces } from "./namespaces.js";
import { Farpage, has, MAIN, run, scratch, stopAll } from "./programs.js";

const CUTS = Number(process.env["FARPAGE_PATH_CUTS"] ?? "4");
const canRun = has("ip") && canMakeNamespaces();
if (!canRun) console.log("skipped: paths between network namespaces need root and iproute2");
let net: TwoNamespaces | null = null;
let folder: { readonly path: string; readonly remove: () => void } | null = null;

afterEach(async () => {
  await stopAll();
  net?.remove();
  net = null;
  folder?.remove();
  folder = null;
});

interface Scene {
  readonly net: TwoNamespaces;
  readonly client: Farpage;
  readonly uri: string;
  readonly path: string;
}

/** A server with a volume in memory, and a client with `pathCount` paths to it. */
async function start(pathCount: number, more: readonly string[] = []): Promise<Scene> {
  net = new TwoNamespaces(2);
  folder = scratch();
  const { path } = folder;
  const env = { XDG_RUNTIME_DIR: path };
  const own = net.servers.flatMap((address) => ["--address", address]);
  const volume = ["--volume", "disk=memory:64M", "--allow", "10.213.0.0/16"];
  const server = new Farpage(["serve", ...own, ...volume], env, net.inServer);
  await server.event("ready");
  const to = net.servers.slice(0, pathCount).join(",");
  const from = net.clients.flatMap((address) => ["--address", address]);
  const nbd = ["--nbd", `unix:${path}/nbd.sock`];
  const args = ["attach", `rnbd://${to}/disk`, ...from, ...nbd, ...more];
  const client = new Farpage(args, env, net.inClient);
  const uri = String((await client.event("ready"))["nbd"]);
  return { net, client, uri, path };
}

interface Status {
  readonly mpath_policy: string;
  readonly paths: readonly {
    readonly path: string;
    readonly state: string;
    readonly stats: {
      readonly rdma: { readonly failed_over: number; readonly writes: number };
      readonly reconnects: { readonly ok: number };
    };
  }[];
}

/** `farpage attach … --json` on the running client. */
async function manage({ path }: Scene, ...args: readonly string[]): Promise<Status> {
  const command = ["env", `XDG_RUNTIME_DIR=${path}`, process.execPath, MAIN, "attach"];
  const { stdout } = await run("/usr/bin/env", [...command.slice(1), ...args, "--json"]);
  return JSON.parse(stdout) as Status;
}

async function untilConnected(scene: Scene, count: number): Promise<Status> {
  for (;;) {
    const status = await manage(scene, "--status");
    if (status.paths.filter(({ state }) => state === "connected").length === count) return status;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Milliseconds of the longest answer that fio waited for. */
function longestMs(report: string): number {
  const { jobs } = JSON.parse(report.slice(report.indexOf("{"))) as {
    jobs: { [kind: string]: { clat_ns?: { max?: number } } }[];
  };
  const all = ["read", "write"].map((kind) => jobs[0]?.[kind]?.clat_ns?.max ?? 0);
  return Math.max(...all) / 1e6;
}

describe.runIf(canRun)("a session of two paths", () => {
  it.runIf(has("fio"))(
    `one of two cut ${CUTS} times under fio --verify → no error, nothing lost`,
    async () => {
      const scene = await start(2);
      await untilConnected(scene, 2);
      const args = ["--name=verify", "--ioengine=nbd", `--uri=${scene.uri}`, "--rw=randrw"];
      const load = ["--bsrange=4k-64k", "--iodepth=16", "--size=64M", "--io_size=100G"];
      const rate = ["--rate=8M,8M", "--output-format=json"];
      const verify = ["--verify=crc32c", "--verify_fatal=1", "--verify_backlog=64"];
      const fio = spawn("fio", [...args, ...load, ...rate, ...verify, "--verify_state_save=0"], {
        stdio: ["ignore", "pipe", "pipe"],
        cwd: scene.path,
      });
      let output = "";
      fio.stdout.on("data", (text) => (output += String(text)));
      fio.stderr.on("data", (text) => (output += String(text)));
      const ended = once(fio, "exit");
      const failovers: number[] = [];
      for (let cut = 0; cut < CUTS; cut++) {
        await new Promise((resolve) => setTimeout(resolve, 500 + Math.random() * 1000));
        expect(fio.exitCode, output).toBeNull();
        const from = scene.client.events.length;
        const startMs = performance.now();
        scene.net.cut(cut % 2);
        await scene.client.event("path-down", from);
        failovers.push(performance.now() - startMs);
        scene.net.mend(cut % 2);
        await scene.client.event("path-up", from);
      }
      const status = await manage(scene, "--status");
      fio.kill("SIGINT");
      await ended;
      expect(output).not.toMatch(/verify: bad|error=|err= *[1-9]/);
      const moved = status.paths.map(({ stats }) => stats.rdma.failed_over);
      const times = failovers.map((ms) => ms.toFixed(0)).join(", ");
      const wait = longestMs(output).toFixed(0);
      console.log(`failover after ms: ${times}; longest answer ${wait} ms; moved ${moved}`);
      expect(moved.every((count) => count > 0)).toBe(true);
      expect(scene.client.events.filter(({ event }) => event === "disconnected")).toEqual([]);
    },
    60_000 + CUTS * 30_000,
  );

  it("added, removed, the policy set by the command line; errors have codes", async () => {
    const scene = await start(1);
    const [a, b] = scene.net.clients;
    const [c, d] = scene.net.servers;
    let status = await manage(scene, "--add-path", `${b}@${d}`, "--policy", "rr");
    expect(status.mpath_policy).toBe("round-robin");
    status = await untilConnected(scene, 2);
    expect(status.paths.map(({ path }) => path)).toEqual([`ip:${a}@ip:${c}`, `ip:${b}@ip:${d}`]);
    await manage(scene, "--remove-path", String(c));
    status = await untilConnected(scene, 1);
    await expect(manage(scene, "--remove-path", String(d))).rejects.toThrow(/EBUSY/);
    await expect(manage(scene, "--add-path", `10.9.9.9@${d}`)).rejects.toThrow(/EADDRNOTAVAIL/);
    await expect(manage(scene, "--add-path", `${b}@${d}`)).rejects.toThrow(/EEXIST/);
    await expect(manage(scene, "--remove-path", "10.9.9.9")).rejects.toThrow(/ENOENT/);
  });

  it.runIf(has("fio") && has("tc"))("40 Mbit/s per path → two carry more than one", async () => {
    const scene = await start(1);
    scene.net.limit(40);
    const measure = async () => {
      const what = ["--name=w", "--ioengine=nbd", `--uri=${scene.uri}`, "--rw=write", "--bs=64k"];
      const how = ["--iodepth=16", "--size=64M", "--io_size=32M", "--output-format=json"];
      const { stdout } = await run("fio", [...what, ...how]);
      const report = stdout.slice(stdout.indexOf("{"));
      const { jobs } = JSON.parse(report) as { jobs: { write: { bw_bytes: number } }[] };
      return ((jobs[0]?.write.bw_bytes ?? 0) * 8) / 1e6;
    };
    const one = await measure();
    await manage(scene, "--add-path", `${scene.net.clients[1]}@${scene.net.servers[1]}`);
    await untilConnected(scene, 2);
    const two = await measure();
    console.log(`one path ${one.toFixed(1)} Mbit/s, two ${two.toFixed(1)} Mbit/s`);
    expect(one).toBeLessThan(41);
    expect(two / one).toBeGreaterThan(1.4);
  });
});

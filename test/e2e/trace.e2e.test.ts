// SPDX-License-Identifier: MIT
// `farpage trace` and `farpage stat` on running instances of every kind, in the eyes of a stock
// tshark; and what becomes of the instance when its tracer is killed, slow, or has a full disk.

import { spawn } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readPcapng } from "../support/pcapng-reader.js";
import { Farpage, has, MAIN, run, scratch, stopAll } from "./programs.js";

const SCRIPT = fileURLToPath(new URL("../../docs/wireshark/rtrs.lua", import.meta.url));
/** Addresses of this process alone: several checkouts may be tested at a time. */
const NET = `127.${64 + ((process.pid >>> 8) & 63)}.${process.pid & 0xff}`;
const [ONE, TWO] = [`${NET}.1`, `${NET}.2`];
const IMAGE_BYTES = 8 << 20;
const hasTshark = has("tshark");
const hasDisk = has("nbdcopy");
if (!hasTshark) console.warn("traces are not shown to a stock dissector: no tshark");
if (!hasDisk) console.warn("traces of disks are not tested: no nbdcopy");

let path: string;
let remove: () => void;
let env: Record<string, string>;

beforeEach(() => {
  ({ path, remove } = scratch());
  // Only this test's instances are found.
  env = { XDG_RUNTIME_DIR: path };
});

afterEach(async () => {
  await stopAll();
  remove();
});

/** A trace that has begun. */
async function trace(of: Farpage, file: string, ...more: readonly string[]): Promise<Farpage> {
  const tracer = new Farpage(["trace", `${of.pid}`, "-w", file, ...more], env);
  await tracer.event("tracing");
  return tracer;
}

/** Ends a trace as its user does. @returns what it told. */
async function endOf(tracer: Farpage) {
  tracer.child.kill("SIGINT");
  return resultOf(tracer);
}

async function resultOf(tracer: Farpage) {
  expect(await tracer.exited, tracer.stderr).toBe(0);
  const { packets, dropped, isComplete } = await tracer.event("traced");
  return { packets: Number(packets), dropped: Number(dropped), isComplete };
}

/** What `farpage ARGS` says on standard output, when all is well. */
async function said(...args: readonly string[]): Promise<string> {
  const { stdout } = await run("env", [`XDG_RUNTIME_DIR=${path}`, process.execPath, MAIN, ...args]);
  return stdout;
}

/** A volume served and attached. */
async function disk() {
  const volume = `v=memory:${IMAGE_BYTES}`;
  const server = new Farpage(["serve", "--address", ONE, "--volume", volume], env);
  await server.event("ready");
  const nbd = ["--nbd", `unix:${join(path, "nbd.sock")}`];
  const client = new Farpage(["attach", `rnbd://${ONE}/v`, "--address", TWO, ...nbd], env);
  const uri = String((await client.event("ready"))["nbd"]);
  const image = join(path, "image");
  const bytes = randomFillSync(Buffer.alloc(IMAGE_BYTES));
  writeFileSync(image, bytes);
  /** Writes all of the volume, reads it back, and compares. */
  const copy = async () => {
    await run("nbdcopy", ["--flush", image, uri]);
    await run("nbdcopy", [uri, join(path, "back")]);
    expect(readFileSync(join(path, "back")).equals(bytes)).toBe(true);
  };
  return { server, client, copy };
}

/**
 * One column of the frames that a display filter selects, by tshark without any help of ours; but
 * its guess at RPC over RDMA runs off the end of a message of no bytes.
 */
async function frames(file: string, filter = "", column = "frame.number"): Promise<string[]> {
  const select = ["--disable-heuristic", "rpcrdma_infiniband", "-Y", filter];
  const read = [
    "-n",
    "-r",
    file,
    ...(filter === "" ? select.slice(0, 2) : select),
    "-T",
    "fields",
    "-E",
    "occurrence=f",
    "-e",
    column,
  ];
  const { stdout } = await run("tshark", read);
  return stdout.split("\n").filter((line) => line !== "");
}

/** Every packet is RoCEv2, whole and known, between our two addresses. */
async function expectSound(file: string, packets: number): Promise<void> {
  expect(await frames(file)).toHaveLength(packets);
  expect(await frames(file, "infiniband.bth")).toHaveLength(packets);
  expect(await frames(file, "_ws.malformed || _ws.unreassembled || _ws.expert")).toEqual([]);
  expect([...new Set(await frames(file, "", "ip.src"))].sort()).toEqual([ONE, TWO]);
  expect([...new Set(await frames(file, "", "ip.dst"))].sort()).toEqual([ONE, TWO]);
}

/** A server, what its client says, and what must be in a trace of the server. */
const KINDS: readonly (readonly [
  name: string,
  server: readonly string[],
  client: readonly string[],
  opcodes: readonly number[],
])[] = [
  [
    "rping: REQ, SEND, READ, WRITE, DREQ",
    ["rping", "--server"],
    ["rping", "--client", ONE, "-C", "5", "-S", "5000"],
    [0x04, 0x06, 0x08, 0x0c, 0x0d, 0x0f, 0x11, 0x64],
  ],
  [
    "ucmatose: messages of several packets",
    ["ucmatose", "--server", "-c", "3", "-C", "2", "-S", "9000"],
    ["ucmatose", "--client", ONE, "-c", "3", "-C", "2", "-S", "9000"],
    [0x00, 0x01, 0x02, 0x11, 0x64],
  ],
  [
    "udaddy: SIDR, datagrams with immediates",
    ["udaddy", "--server", "-C", "3", "-S", "1000"],
    ["udaddy", "--client", ONE, "-C", "3", "-S", "1000"],
    [0x64, 0x65],
  ],
  [
    "pingpong ud",
    ["pingpong", "ud", "-n", "5", "-s", "100"],
    ["pingpong", "ud", ONE, "-n", "5", "-s", "100"],
    [0x64],
  ],
  [
    "pingpong rc, messages of no bytes",
    ["pingpong", "rc", "-n", "5", "-s", "0"],
    ["pingpong", "rc", ONE, "-n", "5", "-s", "0"],
    [0x04, 0x11],
  ],
  [
    "perf atomic bw",
    ["perf", "atomic", "bw", "-n", "20"],
    ["perf", "atomic", "bw", ONE, "-n", "20"],
    [0x12, 0x14],
  ],
];

describe.runIf(hasTshark)("a trace of a session, in a stock tshark", () => {
  it.each(KINDS)("%s", async (_, serverArgs, clientArgs, opcodes) => {
    const file = join(path, "x.pcapng");
    const server = new Farpage([...serverArgs, "--address", ONE], env);
    await Promise.race([server.event("ready"), server.event("listening")]);
    const tracer = await trace(server, file);
    const client = new Farpage([...clientArgs, "--address", TWO], env);
    expect(await client.exited, client.stderr).toBe(0);
    expect(await server.exited, server.stderr).toBe(0);
    // The instance has ended, and with it the trace: by itself, and properly.
    const { packets, dropped, isComplete } = await resultOf(tracer);
    expect([dropped, isComplete]).toEqual([0, true]);
    await expectSound(file, packets);
    const seen = new Set((await frames(file, "", "infiniband.bth.opcode")).map(Number));
    expect([...seen].sort((a, b) => a - b)).toEqual(expect.arrayContaining([...opcodes]));
  });

  it.runIf(hasDisk)("RTRS, begun before and in the middle: sound, and named by ours", async () => {
    const server = new Farpage(["serve", "--address", ONE, "--volume", "v=memory:8M"], env);
    await server.event("ready");
    const file = join(path, "server.pcapng");
    const tracer = await trace(server, file);
    const nbd = ["--nbd", `unix:${join(path, "nbd.sock")}`];
    const client = new Farpage(["attach", `rnbd://${ONE}/v`, "--address", TWO, ...nbd], env);
    const uri = String((await client.event("ready"))["nbd"]);
    const image = join(path, "image");
    writeFileSync(image, randomFillSync(Buffer.alloc(IMAGE_BYTES)));
    const second = join(path, "client.pcapng");
    const late = await trace(client, second);
    await run("nbdcopy", ["--flush", image, uri]);
    const packetsLate = (await endOf(late)).packets;
    expect(await client.stop()).toBe(0);
    const { packets, isComplete } = await endOf(tracer);
    expect(isComplete).toBe(true);
    // The stock dissectors would take some of it for RPC over RDMA: docs/trace.md.
    for (const [of, count] of [
      [file, packets],
      [second, packetsLate],
    ] as const) {
      expect(count).toBeGreaterThan(IMAGE_BYTES / 4096);
      const script = ["-X", `lua_script:${SCRIPT}`, "-n", "-r", of];
      const bad = ["-Y", "!infiniband.bth || _ws.malformed || _ws.lua.error || rtrs.bad"];
      expect((await run("tshark", [...script, ...bad])).stdout).toBe("");
    }
    // The later one lacks the set-up, and has told what to say instead.
    const qpns = (await late.event("tracing"))["rtrsQpns"];
    expect(qpns).toHaveLength(4);
    const byHand = ["-o", `rtrs.qps:${qpns}`, "-o", "rtrs.depth:128"];
    const unnamed = ["-Y", "infiniband.bth.opcode <= 0x0b && !rtrs.message"];
    for (const [of, options] of [
      [file, []],
      [second, byHand],
    ] as const) {
      const named = ["-n", "-X", `lua_script:${SCRIPT}`, ...options, "-r", of, ...unnamed];
      expect((await run("tshark", named)).stdout).toBe("");
    }
  });

  it("a copy there and back → sound, every message of it named", async () => {
    const [files, exported] = [join(path, "files"), join(path, "exported")];
    for (const folder of [files, exported]) mkdirSync(folder);
    writeFileSync(join(files, "large"), randomFillSync(Buffer.alloc(IMAGE_BYTES)));
    writeFileSync(join(files, "small"), "small");
    const server = new Farpage(["serve", "--address", ONE, "--copy", `e=${exported}`], env);
    await server.event("ready");
    const file = join(path, "x.pcapng");
    const tracer = await trace(server, file);
    for (const [from, to] of [
      [files, `rtrs://${ONE}/e`],
      [`rtrs://${ONE}/e/files`, path],
    ] as const) {
      const copy = new Farpage(["copy", from, to, "--address", TWO], env);
      expect(await copy.exited, copy.stderr).toBe(0);
    }
    expect(await server.stop()).toBe(0);
    expect((await resultOf(tracer)).isComplete).toBe(true);
    const script = ["-X", `lua_script:${SCRIPT}`, "-n", "-r", file];
    const bad = "!infiniband.bth || _ws.malformed || _ws.lua.error || rtrs.bad || rnbd";
    const unnamed = "infiniband.bth.opcode <= 0x0b && !rtrs.message";
    const shown = await run("tshark", [...script, "-Y", `(${bad}) || (${unnamed})`]);
    expect(shown.stdout).toBe("");
    const fields = ["-T", "fields", "-e", "fcopy.type", "-e", "fcopy.path"];
    const { stdout } = await run("tshark", [...script, "-Y", "fcopy", ...fields]);
    const lines = stdout.trim().split("\n");
    const types = new Set(lines.map((line) => Number(line.split("\t", 1)[0])));
    expect([...types].sort()).toEqual([1, 2, 3, 4, 6, 7, 8, 9]);
    expect(lines).toContain("4\tfiles/large");
  });

  it("-w - → tshark reads along; head has seen enough; --json wants the same place", async () => {
    const server = new Farpage(["rping", "--server", "--persistent", "--address", ONE], env);
    await server.event("ready");
    const tracer = `"${process.execPath}" "${MAIN}" trace ${server.pid} -w -`;
    const shell = (command: string) => {
      const child = spawn("bash", ["-o", "pipefail", "-c", command], {
        stdio: ["ignore", "pipe", "pipe"],
        env: { ...process.env, ...env },
      });
      const output = { out: "", err: "" };
      child.stdout.on("data", (text) => {
        output.out += String(text);
      });
      const begun = new Promise<void>((resolve) => {
        child.stderr.on("data", (text) => {
          output.err += String(text);
          if (output.err.includes("tracing rping")) resolve();
        });
      });
      return { output, begun, exited: once(child, "close") };
    };
    const fields = "-T fields -e infiniband.bth.opcode";
    const whole = shell(`${tracer} --packets 60 | tshark -n -l -r - -Y infiniband.bth ${fields}`);
    const enough = shell(`${tracer} | head -c 100 | wc -c`);
    await Promise.all([whole.begun, enough.begun]);
    const ping = ["rping", "--client", ONE, "--address", TWO, "-C", "20"];
    const client = new Farpage(ping, env);
    expect(await client.exited).toBe(0);
    expect(await whole.exited, whole.output.err).toEqual([0, null]);
    expect(whole.output.out.trim().split("\n")).toHaveLength(60);
    expect(whole.output.err).toContain("60 packets");
    expect(await enough.exited, enough.output.err).toEqual([0, null]);
    expect(enough.output.out.trim()).toBe("100");
    expect(enough.output.err).not.toMatch(/EPIPE|Error/);
    const both = shell(`${tracer} --json`);
    expect(await both.exited).toEqual([1, null]);
    expect(both.output.err).toContain("both want standard output (EINVAL)");
    expect(await server.stop()).toBe(0);
  });
});

describe.runIf(hasDisk)("a tracer in trouble, and its instance", () => {
  it("killed with -9 → the instance goes on, and can be traced again", async () => {
    const { client, copy } = await disk();
    const first = await trace(client, join(path, "first.pcapng"));
    const copying = copy();
    await first.kill();
    await copying;
    const counted = JSON.parse(await said("stat", `${client.pid}`, "--json"));
    expect(counted).toMatchObject({ event: "statistics", traces: 0 });
    const file = join(path, "second.pcapng");
    const second = await trace(client, file);
    await copy();
    const { packets } = await endOf(second);
    expect(readPcapng(new Uint8Array(readFileSync(file))).packets).toHaveLength(packets);
    expect(await client.stop()).toBe(0);
  });

  it("stopped (SIGSTOP) → its trace lacks packets and says how many, the disk none", async () => {
    const { client, copy } = await disk();
    const file = join(path, "x.pcapng");
    const tracer = await trace(client, file, "--buffer", "256K");
    tracer.child.kill("SIGSTOP");
    await copy();
    await copy();
    const { traces } = JSON.parse(await said("stat", `${client.pid}`, "--json"));
    expect(traces).toBe(1);
    tracer.child.kill("SIGCONT");
    const { packets, dropped, isComplete } = await endOf(tracer);
    expect(isComplete).toBe(true);
    // Four times the volume went by; what waited was a ring, a socket, and this side's hands.
    expect(dropped).toBeGreaterThan(IMAGE_BYTES / 4096);
    const { statistics } = readPcapng(new Uint8Array(readFileSync(file)));
    expect(statistics).toMatchObject([{ droppedCount: dropped, deliveredCount: packets }]);
    expect(await client.stop()).toBe(0);
  });

  it("its instance killed with -9 → the file is whole, and the tracer says so", async () => {
    const { client, copy } = await disk();
    const file = join(path, "x.pcapng");
    const tracer = await trace(client, file);
    const copying = copy().catch(() => {});
    await new Promise<void>((resolve) => {
      const look = setInterval(() => {
        if (readFileSync(file).length < 1 << 20) return;
        clearInterval(look);
        resolve();
      }, 10);
    });
    await client.kill();
    await copying;
    const { packets, isComplete } = await resultOf(tracer);
    expect(isComplete).toBe(false);
    expect(tracer.stderr).toContain("the trace lacks its end");
    expect(readPcapng(new Uint8Array(readFileSync(file))).packets).toHaveLength(packets);
  });

  it.runIf(existsSync("/dev/full"))("its disk is full → ENOSPC; the instance goes on", async () => {
    const { client, copy } = await disk();
    const tracer = new Farpage(["trace", `${client.pid}`, "-w", "/dev/full"], env);
    expect(await tracer.exited).toBe(1);
    expect(await tracer.event("error")).toMatchObject({ code: "ENOSPC" });
    expect(tracer.stderr.trim()).toBe("farpage: can't write /dev/full: ENOSPC");
    await copy();
    expect(await client.stop()).toBe(0);
  });
});

describe("--trace FILE", () => {
  it("its disk takes no more → the file is whole blocks, the command goes on", async () => {
    const file = join(path, "x.pcapng");
    // What a full disk does, to whoever may write 64 KiB: the last write is taken in part.
    const limited = ["bash", "-c", 'ulimit -f 64; exec "$@"', "bash"];
    const server = new Farpage(["rping", "--server", "--address", ONE], env);
    await server.event("ready");
    const args = ["rping", "--client", ONE, "--address", TWO, "-C", "20", "-S", "9000"];
    const client = new Farpage([...args, "--trace", file], env, limited);
    expect(await client.exited, client.stderr).toBe(0);
    expect(await server.exited).toBe(0);
    expect(client.stderr).toContain(`can't write ${file}: EFBIG`);
    const bytes = new Uint8Array(readFileSync(file));
    expect(bytes.length).toBeLessThan(65_536);
    expect(readPcapng(bytes).packets.length).toBeGreaterThan(0);
  });
});

describe("farpage stat", () => {
  it("by process id, command, address, socket → counters; by nothing → which one?", async () => {
    const none = new Farpage(["stat"], env);
    expect(await none.exited).toBe(1);
    expect(await none.event("error")).toMatchObject({ code: "ENOENT" });
    const server = new Farpage(["rping", "--server", "--persistent", "--address", ONE], env);
    await server.event("ready");
    expect(await said("stat")).toContain(`rping (process ${server.pid}) on ${ONE}`);
    const other = new Farpage(["udaddy", "--server", "--address", `${NET}.3`], env);
    await other.event("ready");
    const client = new Farpage(["rping", "--client", ONE, "--address", TWO, "-C", "0"], env);
    await client.event("connected");
    for (const target of [`${server.pid}`, ONE, join(path, "farpage", `${server.pid}.sock`)]) {
      const { pid, queuePairs, device } = JSON.parse(await said("stat", target, "--json"));
      expect(pid).toBe(server.pid);
      expect(device.counters.packetsReceived).toBeGreaterThan(0);
      const rc = queuePairs.filter(({ type }: { type: string }) => type === "RC");
      expect(rc).toMatchObject([
        { state: "RTS", peer: TWO, counters: { timeouts: expect.any(Number) } },
      ]);
    }
    expect(await said("stat", "udaddy")).toContain(`udaddy (process ${other.pid})`);
    const which = new Farpage(["stat"], env);
    expect(await which.exited).toBe(1);
    expect(await which.event("error")).toMatchObject({ code: "EINVAL" });
    for (const { pid } of [server, other, client]) expect(which.stderr).toContain(`  ${pid}  `);
    for (const farpage of [client, server, other]) expect(await farpage.stop()).toBe(0);
  });
});

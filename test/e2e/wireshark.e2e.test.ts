// SPDX-License-Identifier: MIT
// The Wireshark dissector of docs/wireshark/rtrs.lua on traces of real sessions: every packet of
// the RTRS queue pairs has a name, and what a session does is all there.

import { randomFillSync } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import { ERRNO, type Random, randomBelow, SeededRandom } from "../../src/base/index.js";
import { PcapWriter } from "../sim/pcap-writer.js";
import { System } from "../sim/system.js";
import { drawConfig, SMOKE_SCALE } from "../sim/system-config.js";
import { Farpage, has, run, scratch, stopAll } from "./programs.js";

const SCRIPT = fileURLToPath(new URL("../../docs/wireshark/rtrs.lua", import.meta.url));
const SERVER = "127.0.0.223";
const CLIENT = "127.0.0.224";
const MISSING = ["tshark", "editcap", "qemu-io", "nbdcopy"].filter((program) => !has(program));
const IMAGE_BYTES = 1 << 20;
/** Of the session; its INFO_RSP with rotating keys, 8 + 16 x 512 bytes, takes three packets. */
const DEPTH = 512;
/** What no packet may be, by the stock dissectors, by Lua, and by ours. */
const BAD = "_ws.malformed || _ws.lua.error || rtrs_roce.malformed || rtrs.bad";
const COLUMNS = [
  "infiniband.bth.opcode",
  "infiniband.bth.destqp",
  "infiniband.bth.psn",
  "rtrs.message",
  "rtrs.type",
  "rtrs.errno",
  "rtrs.chunk",
  "rnbd.type",
  "rnbd.op",
  "rnbd.sector",
  "rnbd.bytes",
  "rtrs.request_in",
  "frame.number",
] as const;

type Column = (typeof COLUMNS)[number];
type Row = Readonly<Record<Column, string>>;

const folders: { remove: () => void }[] = [];

afterEach(async () => {
  await stopAll();
  for (const folder of folders.splice(0)) folder.remove();
});

if (MISSING.length > 0) {
  console.warn(`the Wireshark dissector is not tested: no ${MISSING.join(", ")}`);
}

describe.runIf(MISSING.length === 0)("the Wireshark dissector", () => {
  for (const rotating of [true, false]) {
    it(`names every packet of a session, keys ${rotating ? "rotate" : "fixed"}`, async () => {
      const { path } = trackedFolder();
      const file = await traceSession(path, rotating);
      const rows = await dissect(file);
      const sent = once(rows);
      const count = (match: Partial<Row>): number => matching(sent, match).length;

      // All that the stock dissector takes for a message has our layer, and a name that is known.
      const messages = rows.filter((row) => isMessage(row));
      // Two times the image, 4096 bytes a packet, and what is about it.
      expect(messages.length).toBeGreaterThan((2 * IMAGE_BYTES) / 4096);
      expect(messages.filter((row) => row["rtrs.message"] === "")).toEqual([]);
      expect([...new Set(messages.map((row) => row["rtrs.message"]))].sort()).toEqual([
        "Heartbeat",
        "Heartbeat ack",
        "I/O response",
        "INFO_REQ",
        "INFO_RSP",
        ...(rotating ? ["Message part"] : []),
        "READ",
        "Read data",
        "Request data",
        "Response data",
        "WRITE",
      ]);
      expect(await dissect(file, BAD)).toEqual([]);

      // The set-up: two connections, one INFO exchange, SESS_INFO and OPEN with their answers.
      for (const message of ["Connect request", "Connect reply"]) {
        expect(count({ "rtrs.message": message }), message).toBeGreaterThanOrEqual(2);
      }
      expect(count({ "rtrs.message": "INFO_REQ", "rtrs.type": "0" })).toBe(1);
      expect(count({ "rtrs.message": "INFO_RSP", "rtrs.type": "1" })).toBe(1);
      for (const type of ["0", "1", "2", "3", "5"]) {
        expect(count({ "rnbd.type": type }), `RNBD type ${type}`).toBe(1);
      }

      // What the programs asked for: bytes written and read, and the rest by count.
      expect(bytesOf(matching(sent, { "rnbd.op": "1" }))).toBe(IMAGE_BYTES + 4096);
      expect(bytesOf(matching(sent, { "rnbd.op": "0" }))).toBe(IMAGE_BYTES + 512);
      expect(count({ "rnbd.op": "1", "rnbd.sector": "8", "rnbd.bytes": "4096" })).toBe(1);
      expect(count({ "rnbd.op": "3", "rnbd.sector": "128", "rnbd.bytes": "65536" })).toBe(1);
      expect(count({ "rnbd.op": "2" })).toBeGreaterThan(0);

      // Each request has one reply, which knows it; keys come with the replies, or never.
      const requests = sent.filter((row) => ["READ", "WRITE"].includes(row["rtrs.message"]));
      const replies = sent.filter((row) => row["rtrs.message"] === "I/O response");
      expect(new Set(replies.map((row) => row["rtrs.request_in"]))).toEqual(
        new Set(requests.map((row) => row["frame.number"])),
      );
      expect(replies).toHaveLength(requests.length);
      expect(replies.every((row) => row["rtrs.errno"] === "0")).toBe(true);
      expect(matching(replies, { "rtrs.type": "4" })).toHaveLength(rotating ? replies.length : 0);
    });
  }

  // Over IPv6, in packets so small that user messages and answers span them, with packets lost,
  // twice and late, disks that fail, and keys that the server invalidates, as Linux' client asks.
  for (const rotating of [true, false]) {
    it(`names every packet of a bad network, keys ${rotating ? "rotate" : "fixed"}`, async () => {
      const file = join(trackedFolder().path, "simulated.pcapng");
      simulateSession(file, rotating);
      const rows = await dissect(file);
      const messages = rows.filter(isMessage);
      expect(messages.length).toBeGreaterThan(2000);
      expect(messages.filter((row) => row["rtrs.message"] === "")).toEqual([]);
      expect(await dissect(file, BAD)).toEqual([]);
      const invalidated = matching(rows, { "rtrs.message": "I/O response, key invalidated" });
      const invalidations = matching(rows, { "rtrs.message": "Invalidate key" });
      expect(invalidated.length).toBeGreaterThan(50);
      expect(invalidations.length).toBeGreaterThan(50);
      // Both name the request that they are about: one that reads.
      const reads = new Set(
        matching(rows, { "rtrs.message": "READ" }).map((row) => row["frame.number"]),
      );
      for (const row of [...invalidated, ...invalidations]) {
        expect(reads, JSON.stringify(row)).toContain(row["rtrs.request_in"]);
      }
      const failed = rows.filter((row) => Number(row["rtrs.errno"]) !== 0);
      expect(failed.length).toBeGreaterThan(0);
      expect(new Set(failed.map((row) => row["rtrs.errno"]))).toEqual(new Set([`${ERRNO.EIO}`]));
      // An OPEN and its answer are longer than a packet; they are put together.
      expect(matching(rows, { "rtrs.message": "READ", "rnbd.type": "2" }).length).toBeGreaterThan(
        0,
      );
      expect(matching(rows, { "rtrs.message": "Response data", "rnbd.type": "3" })).not.toEqual([]);
    });
  }

  it("spoiled and cut packets → never an error of the script's own", async () => {
    const { path } = trackedFolder();
    for (const rotating of [true, false]) {
      const file = join(path, "simulated.pcapng");
      simulateSession(file, rotating);
      for (const seed of [1, 2]) {
        const spoiled = join(path, `${seed}.pcapng`);
        const count = spoil(file, spoiled, new SeededRandom(seed));
        expect(count).toBeGreaterThan(500);
        expect(await dissect(spoiled, "_ws.lua.error"), `seed ${seed}`).toEqual([]);
        // Some of it is told as what it is.
        expect((await dissect(spoiled, "rtrs.bad")).length).toBeGreaterThan(0);
      }
    }
  });

  it("a name without an end → shown as far as its field goes", async () => {
    const file = join(trackedFolder().path, "simulated.pcapng");
    simulateSession(file, true);
    const bytes = readFileSync(file);
    // Enhanced packet blocks: head, IPv6, UDP, BTH, and with this MTU an INFO_REQ in two packets.
    const [bth, payload] = [28 + 48, 28 + 48 + 12];
    for (let at = 0; at < bytes.length; at += bytes.readUInt32LE(at + 4)) {
      if (bytes.readUInt32LE(at) !== 6) continue;
      const [opcode, end] = [bytes[at + bth], at + 28 + bytes.readUInt32LE(at + 20) - 4];
      const isFirst = opcode === 0 && bytes.readUInt16LE(at + payload) === 0;
      if (isFirst) bytes.fill(0x61, at + payload + 2, end);
      if (opcode === 2 && end - at - payload === 16) bytes.fill(0x61, at + payload, end);
    }
    writeFileSync(file, bytes);
    expect(await dissect(file, "_ws.lua.error")).toEqual([]);
    const found = await dissect(file, `rtrs.session == "${"a".repeat(255)}"`);
    expect(found.length).toBeGreaterThan(0);
  });

  it("names the packets of queue pairs that are named by hand", async () => {
    const { path } = trackedFolder();
    const whole = await traceSession(path, true);
    const all = await dissect(whole);
    const open = matching(all, { "rnbd.type": "2" })[0]?.["frame.number"] ?? "";
    const file = join(path, "rest.pcapng");
    await run("editcap", [whole, file, `1-${Number(open) - 1}`]);
    expect((await dissect(file)).filter((row) => row["rtrs.message"] !== "")).toEqual([]);

    const numbers = new Set(all.filter(isMessage).map((row) => row["infiniband.bth.destqp"]));
    const byHand = ["-o", `rtrs.qps:${[...numbers].join(", ")}`];
    const rows = await dissect(file, "", [...byHand, "-o", `rtrs.depth:${DEPTH}`]);
    const kinds = (from: readonly Row[]) =>
      from.filter(isMessage).map((row) => COLUMNS.slice(0, 11).map((column) => row[column]));
    expect(kinds(rows)).toEqual(kinds(all.slice(Number(open) - 1)));
  });
});

function trackedFolder(): { readonly path: string } {
  const folder = scratch();
  folders.push(folder);
  return folder;
}

/** A session that does one of each, and lasts until both ends' heartbeats were acknowledged. */
async function traceSession(path: string, rotating: boolean): Promise<string> {
  const trace = join(path, "client.pcapng");
  const image = join(path, "image");
  const keys = ["--always-invalidate", String(rotating)];
  writeFileSync(image, randomFillSync(Buffer.alloc(IMAGE_BYTES)));
  const served = ["--address", SERVER, "--volume", `v=memory:${IMAGE_BYTES}`];
  const depth = ["--queue-depth", String(DEPTH), "--sessions", "1", "--paths", "1"];
  const server = new Farpage(["serve", ...served, ...depth, ...keys]);
  await server.event("ready");
  const socket = join(path, "nbd.sock");
  const where = ["--address", CLIENT, "--nbd", `unix:${socket}`, "--trace", trace];
  const client = new Farpage(["attach", `rnbd://${SERVER}/v`, ...where, ...keys]);
  const nbd = String((await client.event("ready"))["nbd"]);
  await run("nbdcopy", ["--flush", image, nbd]);
  await run("nbdcopy", [nbd, join(path, "copy")]);
  const commands = ["write -P 5 4k 4k", "read -P 5 4k 512", "discard 64k 64k", "flush"];
  await run("qemu-io", ["-f", "raw", nbd, ...commands.flatMap((command) => ["-c", command])]);
  await heartbeats(trace);
  expect(await client.stop()).toBe(0);
  expect(await server.stop()).toBe(0);
  return trace;
}

/** One run of the whole-system simulation, as its network saw it. */
function simulateSession(file: string, alwaysInvalidate: boolean): void {
  const system = new System({
    ...drawConfig(2, SMOKE_SCALE),
    family: 6,
    linkMtu: 352,
    faults: { lossRate: 0.01, duplicateRate: 0.01, reorderRate: 0.005, reorderNs: 100_000 },
    mishaps: [],
    diskErrno: ERRNO.EIO,
    diskFaults: { readErrorRate: 0.05, writeErrorRate: 0.05, latencyNs: 50_000, jitterNs: 10_000 },
    queueDepth: 64,
    chunkBytes: 16_384,
    alwaysInvalidate,
    clientInvalidates: true,
    remoteInvalidates: true,
  });
  const pcap = new PcapWriter(file, system.world.clock);
  system.world.network.observers.unshift(pcap.observe);
  try {
    system.run();
  } finally {
    pcap.close();
  }
}

/**
 * Writes a copy of a trace in which one packet in four has other bytes, behind the UDP header, and
 * one in twenty ends early. @returns how many.
 */
function spoil(from: string, to: string, random: Random): number {
  const [blockHead, ipv6Head] = [28, 48];
  const bytes = readFileSync(from);
  const parts: Buffer[] = [];
  let count = 0;
  for (let at = 0; at < bytes.length; at += bytes.readUInt32LE(at + 4)) {
    const block = bytes.subarray(at, at + bytes.readUInt32LE(at + 4));
    parts.push(block);
    const dice = randomBelow(random, 20);
    if (block.readUInt32LE(0) !== 6 || dice > 5) continue;
    count++;
    const length = block.readUInt32LE(20);
    const first = blockHead + ipv6Head;
    if (dice === 0) {
      const captured = ipv6Head + randomBelow(random, length - ipv6Head);
      const cut = Buffer.alloc(blockHead + ((captured + 3) & ~3) + 4);
      block.copy(cut, 0, 0, blockHead + captured);
      for (const [place, value] of [
        [4, cut.length],
        [20, captured],
        [cut.length - 4, cut.length],
      ] as const) {
        cut.writeUInt32LE(value, place);
      }
      cut.fill(0, blockHead + captured, cut.length - 4);
      parts.splice(-1, 1, cut);
      continue;
    }
    const payload = length - ipv6Head;
    for (let i = 0; i < dice; i++) {
      const kind = randomBelow(random, 4);
      // The opcode, the headers, the end with RTRS' own header, or anywhere.
      if (kind === 0) {
        block[first] = randomBelow(random, 0x18);
        continue;
      }
      const near = Math.min(kind === 3 ? payload : 60, payload);
      const place = randomBelow(random, near);
      const where = first + (kind === 2 ? payload - 1 - place : place);
      block[where] = randomBelow(random, 2) === 0 ? 0xff : randomBelow(random, 256);
    }
  }
  writeFileSync(to, Buffer.concat(parts));
  return count;
}

/** Until the trace, which is still being written, has the acknowledgements of both ends. */
async function heartbeats(trace: string): Promise<void> {
  for (;;) {
    const rows = await dissect(trace).catch(() => []); // its last packet may be half there
    if (matching(rows, { "rtrs.message": "Heartbeat ack" }).length >= 2) return;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}

/** The frames of a file as the dissector sees them. */
async function dissect(file: string, filter = "", more: readonly string[] = []): Promise<Row[]> {
  const columns = COLUMNS.flatMap((column) => ["-e", column]);
  const select = filter === "" ? [] : ["-Y", filter];
  const script = ["-X", `lua_script:${SCRIPT}`, ...more];
  const read = ["-n", "-r", file, ...script, ...select, "-T", "fields", "-E", "occurrence=l"];
  const { stdout, stderr } = await run("tshark", [...read, ...columns]);
  expect(stderr.toLowerCase()).not.toContain("lua");
  const lines = stdout.split("\n").filter((line) => line !== "");
  return lines.map((line) => {
    const values = line.split("\t");
    return Object.fromEntries(COLUMNS.map((column, i) => [column, values[i] ?? ""])) as Row;
  });
}

/** Without what a busy machine made an end send again. MADs have no numbers: they all stay. */
function once(rows: readonly Row[]): Row[] {
  const seen = new Set<string>();
  return rows.filter((row) => {
    const key = `${row["infiniband.bth.destqp"]} ${row["infiniband.bth.psn"]}`;
    const isNew = !(isMessage(row) && seen.has(key));
    if (isMessage(row)) seen.add(key);
    return isNew;
  });
}

/** Whether it is a packet of a SEND or of an RDMA WRITE on a reliable connection. */
function isMessage(row: Row): boolean {
  const opcode = Number(row["infiniband.bth.opcode"]);
  return opcode <= 0x0b || opcode === 0x16 || opcode === 0x17;
}

function matching(rows: readonly Row[], match: Partial<Row>): Row[] {
  const wanted = Object.entries(match) as [Column, string][];
  return rows.filter((row) => wanted.every(([column, value]) => row[column] === value));
}

function bytesOf(rows: readonly Row[]): number {
  return rows.reduce((sum, row) => sum + Number(row["rnbd.bytes"]), 0);
}

// SPDX-License-Identifier: MIT
// Traces and control sockets of running hosts, by real sockets.

import { spawnSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
} from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type Pcapng, readPcapng } from "../../../test/support/pcapng-reader.js";
import { ACCESS } from "../../verbs/index.js";
import { type Host, openHost } from "../host.js";
import { SILENT_LOG } from "../log.js";
import { loopback } from "../loopback.fixture.js";
import { ControlClient, helloOf, type Instance, listInstances } from "./control-client.js";
import { type ControlAnswer, ControlServer } from "./control-server.js";
import { STATISTICS } from "./statistics.js";
import { receiveTrace } from "./trace-client.js";

let folder: string;
let lastAddress = 100;
const hosts: Host[] = [];
const servers: Server[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "farpage-ctl-"));
});

afterEach(async () => {
  for (const host of hosts.splice(0)) await host.close();
  for (const server of servers.splice(0)) server.close();
  rmSync(folder, { recursive: true, force: true });
});

async function observedHost(name: string, traceFile?: string): Promise<Host> {
  const host = await openHost({
    addresses: [loopback(++lastAddress)],
    control: { name, folder, data: folder },
    ...(traceFile === undefined ? {} : { traceFile }),
  });
  hosts.push(host);
  return host;
}

/** One host connects to another, writes `count` times `length` bytes, and disconnects. */
async function talk(from: Host, to: Host, count: number, length: number): Promise<void> {
  const incoming = to.listen({ port: 7000 });
  const serverPd = to.openDevice().allocPd();
  const target = to.map({ length });
  const access = ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE;
  const { rkey } = serverPd.registerMr(target, { access });
  const accepted = (async () => {
    for await (const request of incoming) return request.accept({ pd: serverPd });
    throw new Error("nobody came");
  })();
  const pd = from.openDevice().allocPd();
  const source = pd.registerMr(from.map({ length }), { access: 0 });
  const address = to.addresses[0] as string;
  const connection = await from.connect({ address, port: 7000, pd });
  await accepted;
  for (let i = 0; i < count; i++) {
    await connection.write({ from: source, to: { address: target.address, rkey } });
  }
  await connection.close();
  incoming.close();
}

async function onlyInstance(name: string): Promise<Instance> {
  const found = (await listInstances(folder)).filter((instance) => instance.name === name);
  expect(found.length).toBe(1);
  return found[0] as Instance;
}

/** Takes a trace until `stop` settles. */
class Taker {
  readonly started: Promise<void>;
  readonly result: Promise<{ packetCount: number; droppedCount: number; isComplete: boolean }>;
  stop: () => void = () => {};
  private readonly chunks: Buffer[] = [];

  constructor(instance: Instance, request: Parameters<typeof receiveTrace>[1] = {}) {
    const stopped = new Promise<void>((resolve) => {
      this.stop = resolve;
    });
    let begin = (): void => {};
    this.started = new Promise<void>((resolve) => {
      begin = resolve;
    });
    const write = async (bytes: Uint8Array): Promise<void> => {
      this.chunks.push(Buffer.from(bytes));
    };
    this.result = receiveTrace(instance, request, write, stopped, { onStarted: begin });
  }

  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }

  async file(): Promise<Pcapng> {
    await this.result;
    return readPcapng(new Uint8Array(this.bytes));
  }
}

/** An instance that agrees to everything and then does what `act` does. */
async function falseInstance(
  number: number,
  act: (socket: Socket, request: string) => void,
): Promise<Instance> {
  const path = join(folder, `${number}.sock`);
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.on("data", (text) => act(socket, String(text)));
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return { path, version: 1, pid: number, name: "x", data: null, addresses: [], startedMs: 0 };
}

describe("a trace from the first packet on", () => {
  it("two hosts that talk → both files hold the whole conversation, ends included", async () => {
    const [one, two] = [join(folder, "one.pcapng"), join(folder, "two.pcapng")];
    const [a, b] = [await observedHost("a", one), await observedHost("b", two)];
    await talk(a, b, 3, 100_000);
    const sent = a.stack.device.counters;
    for (const host of hosts.splice(0)) await host.close();
    expect(statSync(one).mode & 0o777).toBe(0o600);
    const [left, right] = [one, two].map((path) => readPcapng(new Uint8Array(readFileSync(path))));
    const count = (file: Pcapng | undefined, direction: string) =>
      file?.packets.filter((packet) => packet.direction === direction).length;
    expect(count(left, "out")).toBe(sent.packetsSent);
    expect(count(left, "in")).toBe(sent.packetsReceived);
    expect(sent.packetsSent).toBeGreaterThan(70);
    expect(count(right, "in")).toBe(count(left, "out"));
    expect(left?.packets.some((packet) => packet.hasCrcError)).toBe(false);
    expect(left?.statistics).toMatchObject([{ droppedCount: 0 }]);
    // What one sent and the other received is the same to the last byte, IP header included.
    const bytesOf = (file: Pcapng | undefined, direction: string) =>
      file?.packets
        .filter((packet) => packet.direction === direction)
        .map((packet) => Buffer.from(packet.bytes).toString("hex"))
        .sort();
    expect(bytesOf(right, "in")).toEqual(bytesOf(left, "out"));
  });

  it("a file that is slow → whatever ends the process, it has whole blocks", async () => {
    const a = await observedHost("a");
    const writes: Buffer[] = [];
    let begin = (): void => {};
    const begun = new Promise<void>((resolve) => {
      begin = resolve;
    });
    const write = async (bytes: Uint8Array) => {
      writes.push(Buffer.from(bytes));
      // What comes meanwhile is more than one write takes.
      await begun;
    };
    const session = a.stack.observer?.traces.start({}, { write, end: async () => {} });
    await talk(a, await observedHost("b"), 10, 100_000);
    begin();
    session?.stop();
    await session?.done;
    expect(writes.length).toBeGreaterThan(4);
    for (let count = 1; count <= writes.length; count++) {
      readPcapng(new Uint8Array(Buffer.concat(writes.slice(0, count))));
    }
  });

  it.runIf(existsSync("/dev/full"))("its disk is full → told once, the host goes on", async () => {
    const errors: string[] = [];
    const a = await openHost({
      addresses: [loopback(++lastAddress)],
      traceFile: "/dev/full",
      log: { ...SILENT_LOG, error: (text) => errors.push(text) },
    });
    hosts.push(a);
    await talk(a, await observedHost("b"), 3, 100_000);
    await a.stack.until(() => errors.length > 0 && a.stack.observer?.traces.count === 0, 10_000);
    expect(errors).toEqual([expect.stringMatching(/^the trace has ended: .*ENOSPC/)]);
  });

  it("a file that can't be written → the host does not open, and says why", async () => {
    const opening = observedHost("a", join(folder, "none", "x.pcapng"));
    await expect(opening).rejects.toMatchObject({ code: "ENOENT" });
  });
});

describe("a trace of a running instance", () => {
  it("two at once, one filtered → each its own packets; a count ends one by itself", async () => {
    const [a, b] = [await observedHost("a"), await observedHost("b")];
    const instance = await onlyInstance("a");
    const all = new Taker(instance);
    const some = new Taker(instance, { packets: 5 });
    const none = new Taker(instance, { peers: ["192.0.2.77"] });
    await Promise.all([all.started, some.started, none.started]);
    await talk(a, b, 4, 1000);
    expect((await some.file()).packets.length).toBe(5);
    for (const taker of [all, none]) taker.stop();
    const file = await all.file();
    expect(file.packets.length).toBeGreaterThan(8);
    expect(file.statistics.length).toBe(1);
    const nothing = await none.file();
    expect(nothing.packets).toEqual([]);
    expect(nothing.statistics[0]?.receivedCount).toBeGreaterThan(8);
    expect(a.stack.observer?.traces.count).toBe(0);
  });

  it("a reader that reads nothing → its trace lacks packets, the host none", async () => {
    const [a, b] = [await observedHost("a"), await observedHost("b")];
    const { path } = await onlyInstance("a");
    const client = await ControlClient.connect(path);
    await client.ask({ request: "trace", ringBytes: 1 << 18 });
    client.socket.pause();
    await talk(a, b, 200, 100_000);
    expect(b.stack.device.counters.bytesReceived).toBeGreaterThan(200 * 100_000);
    // It reads at last: what it lacks is told.
    client.say({ request: "stop" });
    const chunks: Buffer[] = [];
    for await (const chunk of client.bytes()) chunks.push(chunk);
    const file = readPcapng(new Uint8Array(Buffer.concat(chunks)));
    const statistics = file.statistics[0];
    expect(statistics?.droppedCount).toBeGreaterThan(1000);
    expect(statistics?.deliveredCount).toBe(file.packets.length);
    expect(statistics?.receivedCount).toBe(file.packets.length + (statistics?.droppedCount ?? 0));
  });

  it("a reader that vanishes → its trace is over, the host goes on", async () => {
    const [a, b] = [await observedHost("a"), await observedHost("b")];
    const client = await ControlClient.connect((await onlyInstance("a")).path);
    await client.ask({ request: "trace" });
    expect(a.stack.observer?.traces.count).toBe(1);
    client.close();
    await a.stack.until(() => a.stack.observer?.traces.count === 0, 10_000);
    expect(a.stack.observer?.traces.count).toBe(0);
    await talk(a, b, 2, 1000);
  });

  it("more traces than four → EBUSY; the fifth finds room when one has ended", async () => {
    const a = await observedHost("a");
    const instance = await onlyInstance("a");
    const four = [0, 1, 2, 3].map(() => new Taker(instance));
    await Promise.all(four.map((taker) => taker.started));
    await expect(new Taker(instance).result).rejects.toMatchObject({ code: "EBUSY" });
    four[0]?.stop();
    await four[0]?.result;
    await a.stack.until(() => a.stack.observer?.traces.count === 3, 10_000);
    const fifth = new Taker(instance);
    await fifth.started;
    // The host closes with traces under way: they get their ends.
    await a.close();
    hosts.splice(0);
    expect((await fifth.result).isComplete).toBe(true);
  });
});

describe("a trace of an instance that fails", () => {
  it("it dies in the middle of a block → what was written is whole blocks", async () => {
    const [a, b] = [await observedHost("a"), await observedHost("b")];
    const real = new Taker(await onlyInstance("a"));
    await real.started;
    await talk(a, b, 3, 10_000);
    real.stop();
    const whole = (await real.file()).packets;
    const { bytes } = real;
    // Cut between two blocks, in a head, in a packet; in pieces of any size.
    for (const [cut, piece] of [
      [0, 60_000],
      [1, 70],
      [6, 4096],
      [bytes.length >> 1, 11],
      [bytes.length >> 1, 65_536],
    ] as const) {
      const instance = await falseInstance(++lastAddress, (socket) => {
        socket.write('{"ok":true}\n');
        const sent = bytes.subarray(0, bytes.length - cut);
        for (let at = 0; at < sent.length; at += piece) socket.write(sent.subarray(at, at + piece));
        socket.end();
      });
      const taker = new Taker(instance);
      const file = await taker.file();
      expect(file.packets).toEqual(whole.slice(0, file.packets.length));
      const { packetCount, isComplete } = await taker.result;
      expect([packetCount, isComplete]).toEqual([file.packets.length, cut === 0]);
      expect(file.packets.length).toBeGreaterThan(cut < 7 ? whole.length - 1 : 4);
    }
  });

  it("it sends something else → EPROTO, and none of it is written", async () => {
    const instance = await falseInstance(70, (socket) => {
      socket.end(`{"ok":true}\n${"x".repeat(5000)}`);
    });
    const taker = new Taker(instance);
    await expect(taker.result).rejects.toMatchObject({ code: "EPROTO" });
    expect(taker.bytes).toHaveLength(0);
  });

  it("it is stopped, and deaf to the end of the trace → the trace ends without", async () => {
    const instance = await falseInstance(71, (socket, request) => {
      if (request.includes("trace")) socket.write('{"ok":true}\n');
    });
    const silence = { endMs: 20 };
    const trace = receiveTrace(instance, {}, async () => {}, Promise.resolve(), silence);
    expect(await trace).toMatchObject({ packetCount: 0, isComplete: false });
  });
});

describe("the control socket", () => {
  it("instances that answer when all are asked → all found: none waits for another", async () => {
    const waiting: (() => void)[] = [];
    for (const pid of [81, 82, 83]) {
      await falseInstance(pid, (socket) => {
        const hello = { ok: true, version: 1, pid, name: "x", data: null, addresses: [] };
        waiting.push(() => socket.end(`${JSON.stringify({ ...hello, startedMs: 0 })}\n`));
        if (waiting.length === 3) for (const answer of waiting) answer();
      });
    }
    expect((await listInstances(folder)).map(({ pid }) => pid)).toEqual([81, 82, 83]);
  });

  it.each([
    ["at once", (answer: ControlAnswer) => answer],
    ["later", (answer: ControlAnswer) => Promise.resolve(answer)],
  ])("an asker that takes no answers, given %s → its further requests wait", async (_, give) => {
    let count = 0;
    const text = "x".repeat(1 << 20);
    const answer = () => give({ reply: { number: count++, text } });
    const server = await ControlServer.open(folder, answer);
    const [asked, line] = [50, '{"request":"hello"}\n'];
    const socket = connect(server.path);
    socket.pause();
    await new Promise<void>((resolve) => socket.write(line.repeat(asked), () => resolve()));
    // Somebody who came later is answered: the requests before have been looked at.
    const other = await ControlClient.connect(server.path);
    await other.ask({ request: "hello" });
    expect(count).toBeLessThan(10);
    other.close();
    let lines = 0;
    for await (const bytes of socket) {
      lines += String(bytes).split("\n").length - 1;
      if (lines === asked) break;
    }
    expect(count).toBe(asked + 1);
    await server.close();
  });

  it("hello and stat → who it is, and counters of each queue pair with its peer", async () => {
    const [a, b] = [await observedHost("a"), await observedHost("b")];
    const instance = await onlyInstance("a");
    expect(instance).toMatchObject({ pid: process.pid, data: folder, addresses: a.addresses });
    const pd = a.openDevice().allocPd();
    const incoming = b.listen({ port: 7001 });
    const serverPd = b.openDevice().allocPd();
    const accepted = (async () => {
      for await (const request of incoming) return request.accept({ pd: serverPd });
      return null;
    })();
    const connection = await a.connect({ address: b.addresses[0] as string, port: 7001, pd });
    await accepted;
    const client = await ControlClient.connect(instance.path);
    const { statistics } = await client.ask({ request: "stat" });
    const { queuePairs, device } = STATISTICS.parse(statistics);
    const rc = queuePairs.filter(({ type }) => type === "RC");
    expect(rc).toMatchObject([{ state: "RTS", peer: b.addresses[0], address: a.addresses[0] }]);
    expect(device.counters["packetsSent"]).toBeGreaterThan(0);
    client.close();
    await connection.close();
  });

  it("mode 0600 in a folder of mode 0700, removed at the end; two hosts, two sockets", async () => {
    const [a] = [await observedHost("a"), await observedHost("b")];
    const path = a.stack.observer?.controlPath as string;
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect((await listInstances(folder)).map(({ name }) => name)).toEqual(["a", "b"]);
    for (const host of hosts.splice(0)) await host.close();
    expect(existsSync(path)).toBe(false);
    expect(await listInstances(folder)).toEqual([]);
  });

  it("a stale socket of this number → replaced; of another → removed by who lists", async () => {
    for (const name of [`${process.pid}.sock`, "1.sock"]) leaveStale(join(folder, name));
    expect(existsSync(join(folder, "1.sock"))).toBe(true);
    const a = await observedHost("a");
    expect(a.stack.observer?.controlPath).toBe(join(folder, `${process.pid}.sock`));
    expect((await listInstances(folder)).map(({ name }) => name)).toEqual(["a"]);
    expect(existsSync(join(folder, "1.sock"))).toBe(false);
  });

  it("a folder that others may write to → refused; the host opens without a socket", async () => {
    const loose = join(folder, "loose");
    mkdirSync(loose);
    chmodSync(loose, 0o777);
    const answer = () => ({ reply: {} });
    await expect(ControlServer.open(loose, answer)).rejects.toMatchObject({ code: "EACCES" });
    await expect(listInstances(loose)).rejects.toMatchObject({ code: "EACCES" });
    const host = await openHost({
      addresses: [loopback(++lastAddress)],
      control: { name: "a", folder: loose },
    });
    hosts.push(host);
    expect(host.stack.observer?.controlPath).toBe(null);
  });

  it("hostile lines → an error or the end of the connection, and nothing else", async () => {
    const a = await observedHost("a");
    const path = a.stack.observer?.controlPath as string;
    const answerTo = (bytes: string | Uint8Array) => conversation(path, bytes);
    const refusal = '{"ok":false,"code":"EINVAL","text":"not a request that this version knows"}\n';
    for (const line of [
      "\n",
      "null\n",
      "[]\n",
      '{"request":"nothing"}\n',
      '{"request":"hello","more":1}\n',
      '{"request":"trace","peers":[1]}\n',
      '{"request":"trace","qpns":[-1]}\n',
      '{"__proto__":{"request":"hello"}}\n',
      `${"[".repeat(3000)}\n`,
    ]) {
      expect(await answerTo(line), line).toBe(refusal);
    }
    expect(await answerTo("x".repeat(100_000))).toContain("EMSGSIZE");
    expect(await answerTo(`${"x".repeat(5000)}\n`)).toContain("EMSGSIZE");
    expect(await answerTo('{"request":"trace","peers":["no address"]}\n')).toContain("EINVAL");
    expect(await answerTo('{"request":"trace","ringBytes":9e15}\n')).toContain("EINVAL");
    expect(await answerTo('{"request":"stop"}\n')).toContain("EINVAL");
    expect(await answerTo(new Uint8Array([0xff, 0xfe, 10]))).toBe(refusal);
    expect((await helloOf(path)).name).toBe("a");
  });

  it("an instance that answers nonsense, or nothing → errors with a code", async () => {
    const path = join(folder, "99.sock");
    for (const [answer, code] of [
      ["nonsense\n", "EPROTO"],
      ['{"ok":2}\n', "EPROTO"],
      ['{"ok":true,"version":99}\n', "EPROTO"],
      ["", "EPIPE"],
    ] as const) {
      const server = createServer((socket) => socket.resume().end(answer));
      await new Promise<void>((resolve) => server.listen(path, resolve));
      await expect(helloOf(path)).rejects.toMatchObject({ code });
      await new Promise((resolve) => server.close(resolve));
    }
  });
});

/** Says something and reads until the other side ends. */
function conversation(path: string, bytes: string | Uint8Array): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = "";
    const socket: Socket = connect(path, () => socket.write(bytes));
    socket.on("data", (chunk) => {
      text += String(chunk);
    });
    socket.on("error", (error: NodeJS.ErrnoException) => {
      // It ended the connection with our bytes still unread.
      if (error.code !== "ECONNRESET" && error.code !== "EPIPE") reject(error);
    });
    socket.on("close", () => resolve(text));
  });
}

/** A socket file behind which nobody is, as a killed process leaves it. */
function leaveStale(path: string): void {
  const at = JSON.stringify(path);
  const end = 'process.kill(process.pid, "SIGKILL")';
  const script = `require("net").createServer().listen(${at}, () => ${end})`;
  spawnSync(process.execPath, ["-e", script]);
}

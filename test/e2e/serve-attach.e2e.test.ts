// SPDX-License-Identifier: MIT
// `farpage serve` and `farpage attach` as two processes: crashes, usual mistakes, clean ends.

import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { Farpage, has, run, scratch, stopAll } from "./programs.js";

const SERVER = "127.0.0.92";
const CLIENT = "127.0.0.93";
const folders: { remove: () => void }[] = [];

afterEach(async () => {
  await stopAll();
  for (const folder of folders.splice(0)) folder.remove();
});

function folder(): string {
  const made = scratch();
  folders.push(made);
  return made.path;
}

async function serve(volume: string, more: readonly string[] = []): Promise<Farpage> {
  const server = new Farpage(["serve", "--address", SERVER, "--volume", volume, ...more]);
  await server.event("ready");
  return server;
}

async function attach(
  name: string,
  socket: string,
  more: readonly string[] = [],
): Promise<Farpage> {
  const client = new Farpage([
    "attach",
    `rnbd://${SERVER}/${name}`,
    "--address",
    CLIENT,
    "--nbd",
    `unix:${socket}`,
    ...more,
  ]);
  await client.event("ready");
  return client;
}

/** Starts it and waits for the error it must end with. */
async function failure(args: readonly string[]): Promise<{ code: unknown; text: string }> {
  const farpage = new Farpage(args);
  const event = await farpage.event("error");
  expect(await farpage.exited).toBe(1);
  expect(farpage.stderr).toContain(String(event["text"]));
  expect(farpage.stderr).not.toContain("    at ");
  return { code: event["code"], text: String(event["text"]) };
}

describe("kill -9 of the server", () => {
  it.runIf(has("fio"))(
    "under fio --verify: the client reconnects, every acknowledged write is there",
    async () => {
      const data = folder();
      const volume = `disk=${join(data, "disk.img")},size=64M`;
      let server = await serve(volume);
      const client = await attach("disk", join(data, "nbd.sock"));
      const uri = String((await client.event("ready"))["nbd"]);
      const fio = spawn(
        "fio",
        [
          "--name=verify",
          "--ioengine=nbd",
          `--uri=${uri}`,
          "--rw=randwrite",
          "--bs=4k",
          "--iodepth=16",
          "--size=64M",
          "--io_size=192M",
          "--norandommap=0",
          "--rate=24M",
          "--verify=crc32c",
          "--verify_state_save=0",
          "--verify_backlog=512",
          "--verify_fatal=1",
          "--fsync=128",
        ],
        { stdio: ["ignore", "pipe", "pipe"], cwd: data },
      );
      let output = "";
      fio.stdout.on("data", (text) => (output += String(text)));
      fio.stderr.on("data", (text) => (output += String(text)));
      const ended = once(fio, "exit");
      for (let crash = 0; crash < 3; crash++) {
        const from = client.events.length;
        await new Promise((resolve) => setTimeout(resolve, 1200));
        expect(fio.exitCode, output).toBeNull();
        await server.kill();
        server = await serve(volume);
        await client.event("connected", from);
      }
      const [status] = await ended;
      expect(status, output).toBe(0);
      expect(await client.stop()).toBe(0);
      expect(await server.stop()).toBe(0);
    },
    120_000,
  );

  it.runIf(has("nbdcopy"))(
    "flushed data is in the file, whatever became of the processes",
    async () => {
      const data = folder();
      const server = await serve(`disk=${join(data, "disk.img")},size=8M`);
      const client = await attach("disk", join(data, "nbd.sock"));
      const uri = String((await client.event("ready"))["nbd"]);
      const pattern = Buffer.alloc(8 << 20, "farpage ");
      writeFileSync(join(data, "in"), pattern);
      await run("nbdcopy", ["--flush", join(data, "in"), uri]);
      await Promise.all([server.kill(), client.kill()]);
      const file = openSync(join(data, "disk.img"), "r");
      const back = Buffer.alloc(8 << 20);
      readSync(file, back, 0, back.length, 0);
      closeSync(file);
      expect(back.equals(pattern)).toBe(true);
    },
  );

  it.runIf(has("nbdinfo"))("of the client: the volume can be attached again soon", async () => {
    const data = folder();
    await serve("m=memory:16M");
    const first = await attach("m", join(data, "nbd.sock"));
    await first.kill();
    const second = await attach("m", join(data, "nbd.sock"));
    await run("nbdinfo", [String((await second.event("ready"))["nbd"])]);
    expect(await second.stop()).toBe(0);
  });
});

describe("usual mistakes", () => {
  it("an address that is not local", async () => {
    const { code, text } = await failure([
      "serve",
      "--address",
      "192.0.2.77",
      "--volume",
      "m=memory:1M",
    ]);
    expect(code).toBe("EADDRNOTAVAIL");
    expect(text).toContain("192.0.2.77");
  });

  it("port 4791 taken: by whom", async () => {
    const socket = createSocket("udp4");
    await new Promise<void>((resolve) => socket.bind(4791, SERVER, () => resolve()));
    try {
      const { code, text } = await failure([
        "serve",
        "--address",
        SERVER,
        "--volume",
        "m=memory:1M",
      ]);
      expect(code).toBe("EADDRINUSE");
      expect(text).toContain("4791");
      expect(text).toContain(String(process.pid));
    } finally {
      socket.close();
    }
  });

  it("no such volume file, a folder, no permission, an odd size", async () => {
    const data = folder();
    const start = ["serve", "--address", SERVER, "--volume"];
    expect((await failure([...start, `v=${data}/none`])).code).toBe("ENOENT");
    mkdirSync(join(data, "dir"));
    expect((await failure([...start, `v=${data}/dir`])).code).toBe("EISDIR");
    writeFileSync(join(data, "odd"), "");
    truncateSync(join(data, "odd"), 1000);
    expect((await failure([...start, `v=${data}/odd`])).code).toBe("EINVAL");
    expect((await failure([...start, "v=memory:12x"])).code).toBe("EINVAL");
  });

  it.runIf(has("nbdcopy"))(
    "a disk that fails: the client gets an error, the server says why",
    async () => {
      const data = folder();
      const server = await serve(`disk=${data}/disk.img,size=1M`);
      const client = await attach("disk", join(data, "s"));
      truncateSync(join(data, "disk.img"), 4096);
      const uri = String((await client.event("ready"))["nbd"]);
      await expect(run("nbdcopy", [uri, join(data, "out")])).rejects.toThrow(/Input\/output error/);
      const said = server.stderr.split("\n").filter((line) => line.includes("failed with EIO"));
      expect(said).toHaveLength(1);
      expect(said[0]).toContain(`volume \\"disk\\" (${data}/disk.img): read failed with EIO`);
    },
  );

  it("several URIs: of one server, each another volume, a socket whose path fits", async () => {
    const data = folder();
    const base = ["--address", CLIENT, "--data", data];
    const two = [`rnbd://${SERVER}/a`, "rnbd://127.0.0.94/b"];
    const elsewhere = await failure(["attach", ...two, ...base]);
    expect(elsewhere).toMatchObject({ code: "EINVAL" });
    expect(elsewhere.text).toContain("one attach has one server");
    const twice = [`rnbd://${SERVER}/a`, `rnbd://${SERVER}:1234/a`];
    expect((await failure(["attach", ...twice, ...base])).text).toContain("named twice");
    const long = await failure(["attach", `rnbd://${SERVER}/${"n".repeat(120)}`, ...base]);
    expect(long).toMatchObject({ code: "ENAMETOOLONG" });
    expect(long.text).toContain("--nbd");
  });

  it.runIf(has("nbdinfo"))("several volumes: one endpoint, nbdinfo finds both", async () => {
    const data = folder();
    await serve("a=memory:1M", ["--volume", "b=memory:3M"]);
    const uris = [`rnbd://${SERVER}/a`, `rnbd://${SERVER}/b`];
    const more = ["--address", CLIENT, "--data", data, "--nbd-connections", "2"];
    const ready = await new Farpage(["attach", ...uris, ...more]).event("ready");
    const volumes = ready["volumes"] as { name: string; nbd: string }[];
    expect(volumes.map(({ name }) => name)).toEqual(["a", "b"]);
    expect(volumes[0]?.nbd).toBe(ready["nbd"]);
    expect(Number(ready["memoryBytesMax"])).toBeLessThan(32 << 20);
    for (const [index, mebibytes] of [1, 3].entries()) {
      const { stdout } = await run("nbdinfo", ["--size", String(volumes[index]?.nbd)]);
      expect(Number(stdout)).toBe(mebibytes << 20);
    }
  });

  it("one file served twice", async () => {
    const data = folder();
    await serve(`v=${data}/disk,size=1M`);
    const { code } = await failure([
      "serve",
      "--address",
      "127.0.0.94",
      "--volume",
      `w=${data}/disk`,
    ]);
    expect(code).toBe("EBUSY");
  });

  it("no such volume on the server; nobody serves; read-only", async () => {
    const data = folder();
    const base = ["--address", CLIENT, "--nbd", `unix:${data}/s`, "--timeout", "3"];
    const silent = await failure(["attach", `rnbd://${SERVER}/v`, ...base]);
    expect(["ETIMEDOUT", "ECONNREFUSED"]).toContain(silent.code);
    expect(silent.text).toContain(SERVER);
    await serve("v=memory:1M,readonly");
    expect((await failure(["attach", `rnbd://${SERVER}/w`, ...base])).code).toBe("ENOENT");
    expect((await failure(["attach", `rnbd://${SERVER}/v`, ...base])).code).toBe("EROFS");
    const client = await attach("v", join(data, "s"), ["--readonly"]);
    expect((await client.event("ready"))["readOnly"]).toBe(true);
    expect(existsSync(join(data, "s"))).toBe(true);
    expect(await client.stop()).toBe(0);
    expect(existsSync(join(data, "s"))).toBe(false);
  });

  it("access rules: the client hears the errno, the server's log names the rule", async () => {
    const data = folder();
    const rules = join(data, "rules");
    const base = ["--address", CLIENT, "--nbd", `unix:${data}/s`, "--timeout", "3"];
    writeFileSync(rules, `${CLIENT},volume=w,ro # readers\n${CLIENT},none\n`);
    const server = await serve("v=memory:1M", ["--volume", "w=memory:1M", "--allow-file", rules]);
    expect((await failure(["attach", `rnbd://${SERVER}/v`, ...base])).code).toBe("EACCES");
    expect((await failure(["attach", `rnbd://${SERVER}/w`, ...base])).code).toBe("EROFS");
    expect(server.stderr).toContain(`volume \\"v\\": rule \\"${CLIENT},none\\"`);
    expect(server.stderr).toContain(`rule \\"${CLIENT},volume=w,ro\\"`);
    const client = await attach("w", join(data, "s"), ["--readonly"]);
    expect(await client.stop()).toBe(0);
    await server.stop();
    const closed = await serve("v=memory:1M", ["--allow", "loopback,none"]);
    const refused = await failure(["attach", `rnbd://${SERVER}/v`, ...base]);
    expect(refused).toMatchObject({ code: "EACCES" });
    expect(refused.text).toContain("--allow");
    expect(closed.stderr).toContain(`client ${CLIENT} refused with EACCES`);
    writeFileSync(rules, "any\nanyone\n");
    const wrong = await failure([
      ...["serve", "--address", SERVER, "--volume", "v=memory:1M"],
      ...["--allow-file", rules],
    ]);
    expect(wrong).toMatchObject({ code: "EINVAL" });
    expect(wrong.text).toContain('line 2: rule "anyone"');
  });

  it("an NBD socket that somebody else has, or that is a file", async () => {
    const data = folder();
    await serve("v=memory:1M");
    const base = ["attach", `rnbd://${SERVER}/v`, "--address", CLIENT, "--nbd"];
    const other = createServer().listen(join(data, "taken"));
    await once(other, "listening");
    expect((await failure([...base, `unix:${data}/taken`])).code).toBe("EADDRINUSE");
    other.close();
    writeFileSync(join(data, "file"), "precious");
    await failure([...base, `unix:${data}/file`]);
    expect(existsSync(join(data, "file"))).toBe(true);
  });
});

describe("several at once", () => {
  it.runIf(has("fio"))("two volumes, two clients, several NBD connections each", async () => {
    const data = folder();
    await serve("a=memory:32M", ["--volume", `b=${join(data, "b")},size=32M`]);
    const one = await attach("a", join(data, "a.sock"), ["--connections", "3"]);
    const two = new Farpage([
      "attach",
      `rnbd://${SERVER}/b`,
      "--address",
      "127.0.0.95",
      "--nbd",
      "tcp:127.0.0.1:0",
    ]);
    await two.event("ready");
    await Promise.all(
      [one, two].map(async (client) => {
        const uri = String((await client.event("ready"))["nbd"]);
        await run(
          "fio",
          [
            "--name=verify",
            "--ioengine=nbd",
            `--uri=${uri}`,
            "--rw=randwrite",
            "--bs=16k",
            "--iodepth=8",
            "--numjobs=2",
            "--offset_increment=16M",
            "--size=16M",
            "--verify=md5",
            "--verify_state_save=0",
            "--group_reporting",
          ],
          60_000,
        );
      }),
    );
    expect(await one.stop()).toBe(0);
    expect(await two.stop()).toBe(0);
  });

  it("the same volume twice for writing: refused; for reading: shared", async () => {
    const data = folder();
    await serve("v=memory:1M");
    await attach("v", join(data, "a"));
    const base = ["attach", `rnbd://${SERVER}/v`, "--address", "127.0.0.95", "--timeout", "2"];
    const { code, text } = await failure([...base, "--nbd", `unix:${data}/b`]);
    expect(code).toBe("EPERM");
    expect(text).toContain("open for writing");
    const reader = new Farpage([...base, "--readonly", "--nbd", `unix:${data}/b`]);
    await reader.event("ready");
  });
});

describe("idle", () => {
  it("both processes use next to no processor time", async () => {
    const data = folder();
    const server = await serve("v=memory:1M");
    const client = await attach("v", join(data, "s"));
    await new Promise((resolve) => setTimeout(resolve, 500));
    const before = [server, client].map(({ pid }) => ticks(pid));
    await new Promise((resolve) => setTimeout(resolve, 4000));
    const after = [server, client].map(({ pid }) => ticks(pid));
    // 100 ticks a second: 2 % of one processor each at most.
    for (const [index, value] of after.entries()) {
      expect(value - (before[index] ?? 0)).toBeLessThanOrEqual(8);
    }
  });
});

/** Processor time of a process, user and system, in clock ticks. */
function ticks(pid: number): number {
  const file = openSync(`/proc/${pid}/stat`, "r");
  const buffer = Buffer.alloc(4096);
  const length = readSync(file, buffer);
  closeSync(file);
  const fields = buffer.toString("latin1", 0, length).split(") ").at(-1)?.split(" ") ?? [];
  return Number(fields[11]) + Number(fields[12]);
}

// SPDX-License-Identifier: MIT
// `farpage up` as a newcomer meets it: one command, then stock NBD clients.

import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, describe, expect, it } from "vitest";
import { type Event, Farpage, has, MAIN, run, scratch, stopAll } from "./programs.js";

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

async function up(data: string, more: readonly string[] = []): Promise<[Farpage, Event, string]> {
  const farpage = new Farpage(["up", "--data", data, "--size", "256M", ...more]);
  const ready = await farpage.event("ready", 0, 60_000);
  return [farpage, ready, String(ready["nbd"])];
}

describe("farpage up", () => {
  it("is ready within a minute, and its first line says so", async () => {
    const [farpage, ready, nbd] = await up(folder());
    expect(farpage.events[0]).toBe(ready);
    expect(ready["addresses"]).toHaveLength(2);
    expect(nbd).toMatch(/^nbd\+unix:\/\/\/disk\?socket=/);
  });

  it("stops on SIGTERM with status 0 and leaves no socket, keeps the disk", async () => {
    const data = folder();
    const [farpage, ready] = await up(data);
    const socket = join(data, "disk.sock");
    expect(existsSync(socket)).toBe(true);
    expect(await farpage.stop()).toBe(0);
    expect(existsSync(socket)).toBe(false);
    expect(existsSync(String(ready["file"]))).toBe(true);
    expect(() => process.kill(Number(ready["serverPid"]), 0)).toThrow();
  });

  it("takes its server along when it is killed", async () => {
    const [farpage, ready] = await up(folder());
    await farpage.kill();
    await expect.poll(() => isAlive(Number(ready["serverPid"])), { timeout: 10_000 }).toBe(false);
  });

  it("stops in order when the process that started it is killed", async () => {
    const data = folder();
    const command = '"$0" "$1" up --json --size 16M --data "$2" < /dev/null; true';
    const shell = spawn("sh", ["-c", command, process.execPath, MAIN, data], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    let serverPid = 0;
    const events: string[] = [];
    // The pipe ends with the last process that writes to it, which is `up`.
    for await (const line of createInterface({ input: shell.stdout })) {
      const event = JSON.parse(line) as Event;
      events.push(event.event);
      if (event.event !== "ready") continue;
      serverPid = Number(event["serverPid"]);
      shell.kill("SIGKILL");
    }
    expect(events).toEqual(["ready", "stopping", "stopped"]);
    expect(isAlive(serverPid)).toBe(false);
    expect(existsSync(join(data, "disk.sock"))).toBe(false);
  });

  it("starts again over a stale socket, with the same disk", async () => {
    const data = folder();
    const [first, , nbd] = await up(data);
    const file = join(data, "in");
    writeFileSync(file, randomBytes(1 << 20));
    if (has("nbdcopy")) await run("nbdcopy", ["--flush", file, nbd]);
    await first.kill();
    expect(existsSync(join(data, "disk.sock"))).toBe(true);
    const [second] = await up(data);
    if (has("nbdcopy")) {
      await run("nbdcopy", [nbd, join(data, "out")]);
      expect(readFileSync(join(data, "out")).subarray(0, 1 << 20)).toEqual(readFileSync(file));
    }
    expect(await second.stop()).toBe(0);
  });

  it("runs beside another one of the same user on other addresses", async () => {
    const [, one] = await up(folder());
    const [, two] = await up(folder());
    expect(two["addresses"]).not.toEqual(one["addresses"]);
  });

  it("refuses an endpoint that somebody listens on", async () => {
    const data = folder();
    await up(data);
    const second = new Farpage(["up", "--data", data, "--size", "256M"]);
    const error = await second.event("error");
    expect(["EADDRINUSE", "EBUSY"]).toContain(error["code"]);
    expect(await second.exited).toBe(1);
  });
});

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

for (const backend of ["native", "node"]) {
  describe(`stock NBD clients, ${backend} backend`, () => {
    const options = ["--backend", backend];

    it.runIf(has("nbdinfo"))("nbdinfo: size, flags, block sizes, extents", async () => {
      const [, , nbd] = await up(folder(), options);
      const { stdout } = await run("nbdinfo", ["--json", nbd]);
      const info = JSON.parse(stdout).exports[0];
      expect(info["export-size"]).toBe(256 << 20);
      // Freeing space needs fallocate, which Node alone doesn't offer.
      expect(info).toMatchObject({
        can_flush: true,
        can_fua: true,
        can_zero: true,
        can_trim: backend === "native",
      });
      expect(info["contexts"]).toContain("base:allocation");
      await run("nbdinfo", ["--map", nbd]);
      await run("nbdinfo", ["--list", nbd]);
    });

    it.runIf(has("nbdcopy"))("nbdcopy: in and out, byte for byte", async () => {
      const data = folder();
      const [, , nbd] = await up(data, options);
      const input = join(data, "in");
      writeFileSync(input, randomBytes(48 << 20));
      await run("nbdcopy", ["--flush", input, nbd]);
      await run("nbdcopy", [nbd, join(data, "out")]);
      const out = readFileSync(join(data, "out"));
      expect(out.length).toBe(256 << 20);
      expect(out.subarray(0, 48 << 20).equals(readFileSync(input))).toBe(true);
      expect(out.subarray(48 << 20).every((byte) => byte === 0)).toBe(true);
    });

    it.runIf(has("qemu-img"))("qemu-img convert onto it, compare", async () => {
      const data = folder();
      const [, , nbd] = await up(data, options);
      const image = join(data, "image.qcow2");
      const raw = join(data, "image.raw");
      writeFileSync(raw, Buffer.concat([randomBytes(8 << 20), Buffer.alloc(248 << 20)]));
      await run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, image]);
      await run("qemu-img", ["convert", "-n", "-O", "raw", image, nbd]);
      await run("qemu-img", ["compare", "-f", "qcow2", "-F", "raw", image, nbd]);
    });

    it.runIf(has("fio"))("fio --verify: random writes at depth 32, read back", async () => {
      const [, , nbd] = await up(folder(), options);
      await run("fio", [
        "--name=verify",
        "--ioengine=nbd",
        `--uri=${nbd}`,
        "--rw=randwrite",
        "--bsrange=512-131072",
        "--bs_unaligned=0",
        "--blockalign=512",
        "--iodepth=32",
        "--size=128M",
        "--verify=crc32c",
        "--verify_state_save=0",
        "--do_verify=1",
        "--verify_fatal=1",
        "--fsync=64",
      ]);
    });
  });
}

// SPDX-License-Identifier: MIT
// `farpage copy` as a process: everything that a file has, both ways; either end killed half-way;
// folders that can't be left.

import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { Farpage, has, scratch, stopAll } from "./programs.js";

const SERVER = "127.0.0.94";
const CLIENT = "127.0.0.95";
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

async function serve(root: string, more: readonly string[] = []): Promise<Farpage> {
  const server = new Farpage(["serve", "--address", SERVER, "--copy", `files=${root}`, ...more]);
  await server.event("ready");
  return server;
}

function copy(...what: readonly string[]): Farpage {
  return new Farpage(["copy", ...what, "--address", CLIENT, "--timeout", "20"]);
}

async function done(copying: Farpage): Promise<Record<string, unknown>> {
  const event = await copying.event("done", 0, 90_000);
  expect(copying.stderr).toBe("");
  expect(await copying.exited).toBe(0);
  return event;
}

/** Everything that a tree has, a line each: what stat(1) says, to the nanosecond, and the bytes. */
function listing(root: string, at = ""): string[] {
  const lines: string[] = [];
  for (const name of readdirSync(join(root, at), { encoding: "latin1" }).sort()) {
    const path = Buffer.from(`${join(root, at)}/${name}`, "latin1");
    const stat = lstatSync(path, { bigint: true });
    const { mode, uid, gid, mtimeNs, nlink, size } = stat;
    const what = stat.isSymbolicLink()
      ? readlinkSync(path)
      : stat.isFile()
        ? `${nlink} ${size} ${readFileSync(path).toString("base64").slice(0, 5000)}`
        : "";
    lines.push(`${at}/${name} ${mode.toString(8)} ${uid}:${gid} ${mtimeNs} ${what}`);
    if (stat.isDirectory()) lines.push(...listing(root, `${at}/${name}`));
  }
  return lines;
}

/** A tree with everything in it. */
function makeTree(root: string): void {
  mkdirSync(join(root, "sub/empty"), { recursive: true });
  writeFileSync(join(root, "plain"), "some text");
  writeFileSync(Buffer.concat([Buffer.from(`${root}/no-utf8-`), Buffer.from([0xff])]), "bytes");
  linkSync(join(root, "plain"), join(root, "sub/second-name"));
  symlinkSync("/nowhere/at all", join(root, "sub/link"));
  writeFileSync(join(root, "sub/large"), Buffer.alloc(3_000_001, "large "));
  writeFileSync(join(root, "sparse"), "start");
  truncateSync(join(root, "sparse"), 40_000_000);
  for (let i = 0; i < 300; i++) writeFileSync(join(root, `sub/f${i}`), `${i}`.repeat(i));
  chmodSync(join(root, "plain"), 0o4751);
  utimesSync(join(root, "sub/f7"), -1.5, -1.5);
  chmodSync(join(root, "sub/empty"), 0o555);
  if (has("setfattr"))
    execFileSync("setfattr", ["-n", "user.colour", "-v", "blue", join(root, "plain")]);
}

describe("a tree", () => {
  it("arrives at the server and comes back as it was, sparse files sparse", async () => {
    const [from, root, back] = [folder(), folder(), folder()];
    makeTree(from);
    await serve(root);
    const pushed = await done(copy(`${from}/`, `rtrs://${SERVER}/files/there`));
    expect(pushed).toMatchObject({ problems: 0, skippedFiles: 0 });
    expect(listing(join(root, "there"))).toEqual(listing(from));
    expect(statSync(join(root, "there/sparse")).blocks).toBeLessThan(1_000);
    const pulled = await done(copy(`rtrs://${SERVER}/files/there/`, back));
    expect(pulled).toMatchObject({ problems: 0, files: pushed["files"] });
    expect(listing(back)).toEqual(listing(from));
    if (has("getfattr")) {
      const stdout = execFileSync("getfattr", ["-d", join(back, "plain")]);
      if (execFileSync("getfattr", ["-d", join(from, "plain")]).length > 0) {
        expect(String(stdout)).toContain('user.colour="blue"');
      }
    }
    // Once more: nothing is sent.
    const again = await done(copy(`${from}/`, `rtrs://${SERVER}/files/there`));
    expect(Number(again["skippedFiles"])).toBeGreaterThanOrEqual(303);
    expect(again["skippedBytes"]).toBe(again["bytes"]);
  });

  it("with a file that can't be stored: told by name, the rest is there, status 1", async () => {
    const [from, root] = [folder(), folder()];
    mkdirSync(join(from, "tree"));
    writeFileSync(join(from, "tree/a"), "a");
    writeFileSync(join(from, "tree/b"), "b");
    mkdirSync(join(root, "tree/a"), { recursive: true });
    await serve(root);
    const copying = copy(join(from, "tree"), `rtrs://${SERVER}/files`);
    expect(await copying.event("problem")).toMatchObject({ path: "tree/a", code: "EISDIR" });
    expect(await copying.exited).toBe(1);
    expect(readFileSync(join(root, "tree/b"), "utf8")).toBe("b");
    expect(readdirSync(join(root, "tree")).sort()).toEqual(["a", "b"]);
  });
});

const LARGE_BYTES = 400_000_000;

describe("kill -9 half-way", () => {
  for (const whom of ["client", "server"]) {
    it(`of the ${whom} with a large file: run again, it goes on and is exact`, async () => {
      const [from, root] = [folder(), folder()];
      const file = join(from, "large");
      execFileSync("dd", ["if=/dev/urandom", `of=${file}`, "bs=1M", "count=381", "status=none"]);
      truncateSync(file, LARGE_BYTES);
      let server = await serve(root);
      const first = copy(file, `rtrs://${SERVER}/files`);
      await moved(first, LARGE_BYTES / 4);
      await (whom === "client" ? first : server).kill();
      expect(existsSync(join(root, "large"))).toBe(false);
      if (whom === "server") {
        server = await serve(root);
        // The client has gone on by itself.
        const event = await first.event("done", 0, 90_000);
        expect(Number(event["skippedBytes"])).toBeGreaterThan(LARGE_BYTES / 10);
        expect(await first.exited).toBe(0);
      } else {
        const event = await done(copy(file, `rtrs://${SERVER}/files`));
        expect(Number(event["skippedBytes"])).toBeGreaterThan(LARGE_BYTES / 10);
      }
      execFileSync("cmp", [file, join(root, "large")]);
      expect(readdirSync(root)).toEqual(["large"]);
      expect(listing(root)).toEqual(listing(from));
    });
  }

  it("of the client with many small files, and of a copy to here: exact when rerun", async () => {
    const [from, root, back] = [folder(), folder(), folder()];
    for (let i = 0; i < 20; i++) {
      mkdirSync(join(from, `d${i}`));
      for (let k = 0; k < 500; k++) writeFileSync(join(from, `d${i}/f${k}`), `${i}.${k}`.repeat(k));
    }
    await serve(root);
    const first = copy(`${from}/`, `rtrs://${SERVER}/files`);
    await moved(first, 100_000);
    await first.kill();
    const pushed = await done(copy(`${from}/`, `rtrs://${SERVER}/files`));
    expect(pushed).toMatchObject({ files: 10_000 });
    expect(Number(pushed["skippedFiles"])).toBeGreaterThan(0);
    expect(listing(root)).toEqual(listing(from));
    const pull = copy(`rtrs://${SERVER}/files/`, back);
    await moved(pull, 100_000);
    await pull.kill();
    const pulled = await done(copy(`rtrs://${SERVER}/files/`, back));
    expect(pulled).toMatchObject({ files: 10_000, problems: 0 });
    expect(listing(back)).toEqual(listing(from));
  });
});

/** Waits until a copy says that so many bytes have gone. */
async function moved(copying: Farpage, bytes: number): Promise<void> {
  for (let from = 0; ; ) {
    const event = await copying.event("progress", from);
    from = copying.events.indexOf(event) + 1;
    if (Number(event["bytes"]) >= bytes) return;
  }
}

describe("a served folder", () => {
  it("can't be left by a symbolic link in it, to write or to read", async () => {
    const [from, root, outside] = [folder(), folder(), folder()];
    writeFileSync(join(from, "file"), "new");
    writeFileSync(join(outside, "secret"), "old");
    symlinkSync(outside, join(root, "way-out"));
    await serve(root);
    const target = `rtrs://${SERVER}/files/way-out`;
    const pushed = await copy(join(from, "file"), target).event("error");
    expect(["ENOTDIR", "ELOOP"]).toContain(pushed["code"]);
    expect(readdirSync(outside)).toEqual(["secret"]);
    const pulled = await copy(`${target}/secret`, from).event("error");
    expect(["ENOTDIR", "ELOOP"]).toContain(pulled["code"]);
    const up = await copy(`rtrs://${SERVER}/files/../etc`, from).event("error");
    expect(up["code"]).toBe("EINVAL");
  });

  it("read-only, unknown, or for others alone: refused with the reason", async () => {
    const [from, root] = [folder(), folder()];
    writeFileSync(join(from, "file"), "new");
    const rules = ["--allow", `${CLIENT},volume=secret,none`];
    const server = await serve(`${root},readonly`, ["--copy", `secret=${root}`, ...rules]);
    const file = join(from, "file");
    const code = async (target: string) =>
      (await copy(file, `rtrs://${SERVER}/${target}`).event("error"))["code"];
    expect(await code("files")).toBe("EROFS");
    expect(await code("nothing")).toBe("ENOENT");
    expect(await code("secret")).toBe("EACCES");
    const mistyped = await copy(join(from, "fiel"), `rtrs://${SERVER}/files`).event("error");
    expect(mistyped["code"]).toBe("ENOENT");
    expect(mistyped["text"]).toContain(`there is no "${join(from, "fiel")}" here`);
    expect(readdirSync(root)).toEqual([]);
    expect(await server.stop()).toBe(0);
    expect(server.stderr).toContain(`rule \\"${CLIENT},volume=secret,none\\"`);
  });
});

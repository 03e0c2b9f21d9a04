// SPDX-License-Identifier: MIT
// Reading copies of a machine's files: whole ones, flat ones, and what is none.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import { readMemoryFiles } from "./proc-memory.js";

const COPY = fileURLToPath(new URL("../../test/data/memory/debian-6.18", import.meta.url));
const folders: string[] = [];

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "farpage-memory-"));
  folders.push(path);
  return path;
}

afterEach(() => {
  for (const path of folders.splice(0)) rmSync(path, { recursive: true });
});

describe("files of a machine's memory", () => {
  it("lie in a copy at their paths", () => {
    const files = readMemoryFiles(COPY);
    expect(files.get("proc/buddyinfo")).toBeInstanceOf(Uint8Array);
    expect(files.get("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")).toBeInstanceOf(
      Uint8Array,
    );
    expect([...files.keys()].filter((path) => path.startsWith("proc/sys/vm/"))).toHaveLength(6);
  });

  it("or directly in a folder; what isn't there is told by its errno", () => {
    const path = folder();
    writeFileSync(join(path, "buddyinfo"), "Node 0, zone Normal 1\n");
    mkdirSync(join(path, "meminfo"));
    const files = readMemoryFiles(path);
    expect(files.get("proc/buddyinfo")).toBeInstanceOf(Uint8Array);
    expect(files.get("proc/meminfo")).toEqual({ code: "EINVAL" });
    expect(files.get("proc/vmstat")).toEqual({ code: "ENOENT" });
  });

  it("a file without an end is cut", () => {
    const path = folder();
    writeFileSync(join(path, "buddyinfo"), new Uint8Array(3 << 20));
    expect((readMemoryFiles(path).get("proc/buddyinfo") as Uint8Array).length).toBeLessThan(
      2 << 20,
    );
  });

  it("a folder with none of them, and no folder: refused", () => {
    expect(() => readMemoryFiles(folder())).toThrow(expect.objectContaining({ code: "ENODATA" }));
    expect(() => readMemoryFiles(join(folder(), "none"))).toThrow(
      expect.objectContaining({ code: "ENOENT" }),
    );
    const path = folder();
    writeFileSync(join(path, "file"), "");
    expect(() => readMemoryFiles(join(path, "file"))).toThrow(
      expect.objectContaining({ code: "ENOTDIR" }),
    );
  });
});

// SPDX-License-Identifier: MIT
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { readPciIds } from "./pci-ids-file.js";

let root = "";
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "farpage-ids-"));
});
afterEach(() => rmSync(root, { recursive: true }));

describe("the system's pci.ids", () => {
  it("is taken from the first place that has it, packed or not", () => {
    const places = ["a", "b.gz", "c"].map((name) => join(root, name));
    writeFileSync(join(root, "c"), "8086  Intel Corporation\n");
    expect(readPciIds(places)).toEqual({ path: places[2], text: "8086  Intel Corporation\n" });
    writeFileSync(join(root, "b.gz"), gzipSync("10de  NVIDIA Corporation\n"));
    expect(readPciIds(places)).toEqual({ path: places[1], text: "10de  NVIDIA Corporation\n" });
  });

  it("that is broken or missing is passed over", () => {
    writeFileSync(join(root, "a"), gzipSync("x".repeat(1000)).subarray(0, 15));
    expect(readPciIds([join(root, "a"), join(root, "b")])).toBeNull();
  });
});

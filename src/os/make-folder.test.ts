// SPDX-License-Identifier: MIT
import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { makeFolder } from "./index.js";

let root: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "farpage-folder-"));
});

afterEach(() => {
  rmSync(root, { recursive: true });
});

const code = (path: string): string => {
  try {
    makeFolder(path);
    return "";
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? "none";
  }
};

describe("makeFolder", () => {
  it("three that are missing → there, with the mode; again → stays as it is", () => {
    const path = join(root, "a/b/c");
    makeFolder(path, 0o700);
    expect(statSync(path).mode & 0o777).toBe(0o700);
    makeFolder(path, 0o755);
    expect(statSync(path).mode & 0o777).toBe(0o700);
  });

  it("a link to a folder is one; a link to nothing, and a file in the way, are none", () => {
    symlinkSync(root, join(root, "link"));
    makeFolder(join(root, "link/inside"));
    expect(statSync(join(root, "inside")).isDirectory()).toBe(true);
    symlinkSync(join(root, "gone"), join(root, "dangling"));
    expect(code(join(root, "dangling"))).toBe("EEXIST");
    writeFileSync(join(root, "file"), "");
    expect(code(join(root, "file"))).toBe("ENOTDIR");
    expect(code(join(root, "file/below"))).toBe("ENOTDIR");
  });

  it("where mkdir answers ENOENT though the folder above is there → that, at once", () => {
    // As somebody else than root one isn't allowed that far.
    expect(code("/proc/farpage/a")).toBe(process.getuid?.() === 0 ? "ENOENT" : "EACCES");
  });
});

// SPDX-License-Identifier: MIT
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { findInstance } from "./instances.js";

let folder: string;

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "farpage-instances-"));
  vi.stubEnv("XDG_RUNTIME_DIR", folder);
});

afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true });
});

it.each([
  [undefined, ["attach", "up"], "no farpage attach or up is running for this user"],
  ["4711", ["attach"], "no such farpage attach is running for this user"],
  [undefined, [], "no instance of farpage is running for this user"],
])("nothing runs, %s of %j is wanted → says what is not there", async (target, names, text) => {
  const found = findInstance(target, undefined, names);
  await expect(found).rejects.toMatchObject({ code: "ENOENT", message: text });
});

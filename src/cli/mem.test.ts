// SPDX-License-Identifier: MIT
// `farpage mem` on a saved copy of a machine: the object for programs, the report, `--need`.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import { FarpageError } from "../base/index.js";
import { NEED_STATUS, runMem } from "./mem.js";
import { Reporter } from "./reporter.js";

const COPY = fileURLToPath(new URL("../../test/data/memory/debian-6.18", import.meta.url));

/** Keeps what a command says. */
class Listener extends Reporter {
  readonly events: { event: string; fields: Record<string, unknown>; text: string | null }[] = [];
  readonly warnings: string[] = [];
  error: unknown = null;

  constructor() {
    super(true);
  }

  override event(event: string, fields: Readonly<Record<string, unknown>>, text: string | null) {
    this.events.push({ event, fields: JSON.parse(JSON.stringify(fields)), text });
  }

  override warn(text: string): void {
    this.warnings.push(text);
  }

  override fail(error: unknown): void {
    this.error = error;
  }
}

const options = (more: Readonly<Record<string, unknown>> = {}) => ({
  json: true,
  verbose: false,
  from: COPY,
  ...more,
});

afterEach(() => {
  process.exitCode = 0;
});

describe("mem", () => {
  it("tells of a copy what a machine has free, by order and type, and what to do", async () => {
    const listener = new Listener();
    await runMem(undefined, options(), listener);
    const [{ event, fields, text } = { event: "", fields: {}, text: "" }] = listener.events;
    expect(event).toBe("machine-memory");
    expect(fields).toMatchObject({ schema: "farpage-mem-1", source: COPY, pageBytes: 4096 });
    expect(fields["orders"]).toHaveLength(11);
    expect((fields["findings"] as { id: string }[]).map(({ id }) => id)).toContain("no-pool");
    expect(fields["counters"]).toHaveProperty("compact_stall");
    expect(text).toMatch(/^memory of .*debian-6\.18$/m);
    expect(text).toMatch(/^ {2}Reclaimable /m);
    expect(listener.warnings).toEqual([]);
  });

  it.each([
    [1 << 20, "enough"],
    [2 ** 40, "short"],
  ] as const)("--need %d: %s, by the exit status too", async (need, status) => {
    const listener = new Listener();
    await runMem(undefined, options({ need: String(need) }), listener);
    expect(listener.events[0]?.fields).toMatchObject({ status, need });
    expect(process.exitCode).toBe(NEED_STATUS[status]);
  });

  it.each([
    [undefined, { need: "1X" }, "EINVAL"],
    [undefined, { need: "" }, "EINVAL"],
    ["up", { need: "1G" }, "EINVAL"],
    [undefined, { need: "1G", data: "/nonexistent" }, "EINVAL"],
  ])(
    '--need, wrongly asked (of %s, %j) → an error, which is no "no"',
    async (target, more, code) => {
      const listener = new Listener();
      await runMem(target, options(more), listener);
      expect(listener.error).toMatchObject({ code });
      expect(process.exitCode).toBe(NEED_STATUS.error);
      expect(listener.events).toEqual([]);
    },
  );

  it("an instance, and a copy to read → refused", async () => {
    const run = runMem("up", options(), new Listener());
    await expect(run).rejects.toMatchObject({ code: "EINVAL" });
  });

  it("a folder that is no copy: the error, and with --need the status of errors", async () => {
    const from = mkdtempSync(join(tmpdir(), "farpage-mem-"));
    try {
      await expect(runMem(undefined, options({ from }), new Listener())).rejects.toMatchObject({
        code: "ENODATA",
      });
      const listener = new Listener();
      await runMem(undefined, options({ from, need: "1G" }), listener);
      expect(listener.error).toBeInstanceOf(FarpageError);
      expect(process.exitCode).toBe(NEED_STATUS.error);
    } finally {
      rmSync(from, { recursive: true });
    }
  });
});

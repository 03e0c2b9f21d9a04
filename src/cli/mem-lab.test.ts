// SPDX-License-Identifier: MIT
// `farpage mem lab`: what it prints and writes, and what it refuses.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { runMemLab } from "./mem-lab.js";
import { Reporter } from "./reporter.js";

class Listener extends Reporter {
  readonly texts: string[] = [];
  fields: Readonly<Record<string, unknown>> = {};

  constructor() {
    super(true);
  }

  override event(_event: string, fields: Readonly<Record<string, unknown>>, text: string | null) {
    this.fields = fields;
    this.texts.push(text ?? "");
  }
}

const options = (more: Readonly<Record<string, unknown>> = {}) => ({
  json: true,
  quiet: true,
  seed: "7",
  hours: "2",
  memory: "64M",
  policy: ["undivided", "grouped"],
  table: "hours",
  ...more,
});

describe("mem lab", () => {
  it("plays the policies that are asked for, writes table, spreadsheet and drawing", async () => {
    const folder = mkdtempSync(join(tmpdir(), "farpage-lab-"));
    try {
      const listener = new Listener();
      const svg = join(folder, "week.svg");
      const csv = join(folder, "week.csv");
      await runMemLab(options({ svg, csv }), listener);
      const text = listener.texts.join("\n");
      expect(text).toMatch(/^A server's week: 64 MiB, 2 hours, seed 7$/m);
      expect(text).toMatch(/^ {2}Mon 02:00 /m);
      expect(text).toMatch(/^grouped .* 2048 /m);
      expect(listener.fields).toMatchObject({ schema: "farpage-mem-1", seed: 7, hours: 2 });
      expect(listener.fields["weeks"]).toHaveLength(2);
      expect(readFileSync(svg, "utf8")).toMatch(/^<svg .*<\/svg>\n$/s);
      expect(readFileSync(csv, "utf8").split("\r\n")).toHaveLength(1 + 2 * 2 + 1);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it.each([
    [{ policy: ["best"] }, "EINVAL", /no policy "best"; there are undivided/],
    [{ memory: "1M" }, "EINVAL", /--memory: .*64M to 64G/],
    [{ hours: "0" }, "EINVAL", /--hours/],
    [{ svg: "/nowhere/week.svg", hours: "1" }, "ENOENT", /can't write \/nowhere\/week\.svg/],
  ])("%j: refused", async (more, code, message) => {
    const result = runMemLab(options(more), new Listener());
    await expect(result).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });
});

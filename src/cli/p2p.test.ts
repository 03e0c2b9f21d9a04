// SPDX-License-Identifier: MIT
// The p2p commands on dumps of real and virtual machines: what they print for programs fits the
// schema, what they print for people has the answer, and `check` has its exit statuses.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import { z } from "zod";
import { FarpageError } from "../base/index.js";
import {
  checkStatus,
  runP2pCheck,
  runP2pList,
  runP2pMatrix,
  runP2pPath,
  runP2pTree,
} from "./p2p.js";
import { Reporter } from "./reporter.js";

const DATA = fileURLToPath(new URL("../../test/data/topologies/", import.meta.url));
const SCHEMA = z.fromJSONSchema(
  JSON.parse(
    readFileSync(new URL("../../docs/p2p.schema.json", import.meta.url), "utf8"),
  ) as Parameters<typeof z.fromJSONSchema>[0],
);

/** Keeps what a command says, and holds each object against the schema. */
class Listener extends Reporter {
  readonly texts: string[] = [];
  readonly objects: Readonly<Record<string, unknown>>[] = [];
  readonly warnings: string[] = [];
  error: unknown = null;

  constructor() {
    super(true);
  }

  override event(event: string, fields: Readonly<Record<string, unknown>>, text: string | null) {
    const printed: unknown = JSON.parse(JSON.stringify({ event, ...fields }));
    const result = SCHEMA.safeParse(printed);
    if (!result.success) throw new Error(`not by the schema: ${z.prettifyError(result.error)}`);
    this.objects.push(printed as Readonly<Record<string, unknown>>);
    this.texts.push(text ?? "");
  }

  override warn(text: string): void {
    this.warnings.push(text);
  }

  override fail(error: unknown): void {
    this.error = error;
  }
}

function options(from: string, more: Readonly<Record<string, unknown>> = {}) {
  return { json: true, verbose: false, from: [join(DATA, from)], ...more };
}

async function textOf(command: (reporter: Listener) => Promise<void>): Promise<string> {
  const listener = new Listener();
  await command(listener);
  return listener.texts.join("\n");
}

const DELL = "dell-xe9680-h100";
const VIOMMU = "qemu-q35-intel-viommu";

describe("p2p list", () => {
  it("shows GPUs, NICs and drives with what they are", async () => {
    const text = await textOf((to) => runP2pList(options(DELL), [], to));
    expect(text).toMatch(/^GPU0 +0000:19:00\.0 .* 32 GT\/s x16 +128 GiB/m);
    expect(text).toMatch(/^30 of 517 functions/m);
    expect(text.match(/^GPU\d/gm)).toHaveLength(8);
  });

  it("knows the kernel's names and the memory registered for peers, of an archive", async () => {
    const text = await textOf((to) => runP2pList(options(`${VIOMMU}/sysfs.tar.gz`), ["nvme0"], to));
    expect(text).toMatch(/^SSD0 +0000:03:00\.0 +nvme0 .*64 MiB \(64 MiB for peers\)/m);
  });

  it("of any class shows that class", async () => {
    const text = await textOf((to) => runP2pList(options(VIOMMU), ["bridge"], to));
    expect(text).toContain("0000:01:00.0");
    expect(text).not.toContain("0000:03:00.0");
  });
});

describe("p2p path and explain", () => {
  it("answer by the kernel's rules, and explain names the ports that redirect", async () => {
    const pair = { client: "nvme0", provider: "0000:06:00.0" };
    const short = await textOf((to) => runP2pPath(pair, options(VIOMMU), false, to));
    expect(short).toMatch(/^nvme0 .* refused \(NOT_SUPPORTED\)\./);
    const twins = { client: "0000:07:00.0", provider: "0000:07:00.1" };
    const text = await textOf((to) => runP2pPath(twins, options(VIOMMU), true, to));
    expect(text).toMatch(/0000:00:03\.1 .*ACS REDIRECTS/);
    expect(text).toContain("disable_acs_redir=");
  });

  it("without root privileges say unknown, never works, and what is missing", async () => {
    const pair = { client: "0000:02:00.0", provider: "0000:83:00.0" };
    const from = options("xeon-2s-nvme-dax-unprivileged-sysfs");
    const listener = new Listener();
    await runP2pPath(pair, from, true, listener);
    expect(listener.objects[0]).toMatchObject({ event: "path" });
    const text = listener.texts.join("\n");
    expect(text).not.toMatch(/: works/);
    expect(listener.warnings.join("\n")).toMatch(/not readable/);
  });

  it("by the rules of a release that nobody knows yet say so", async () => {
    const from = options("amd-r1000-pericom-switch");
    const warnings = async (kernel: string) => {
      const listener = new Listener();
      await runP2pList({ ...from, kernel }, [], listener);
      return listener.warnings.join("\n");
    };
    expect(await warnings("99.1")).toMatch(/Linux 99\.1 is newer than what is known/);
    expect(await warnings("6.1")).not.toMatch(/newer/);
    expect(await warnings("next")).not.toMatch(/newer/);
  });

  it("of two machines' dumps warn of what they tell in two ways", async () => {
    const from = ["amd-r1000-pericom-switch", "arm-n1sdp-pex8749"].map((name) => join(DATA, name));
    const two = new Listener();
    await runP2pList({ ...options(""), from }, [], two);
    expect(two.warnings.join("\n")).toMatch(/\d facts told in two ways, .* of one machine/);
    const one = new Listener();
    await runP2pList(options("amd-r1000-pericom-switch"), [], one);
    expect(one.warnings.join("\n")).not.toContain("two ways");
  });

  it("refuse a name that means several", async () => {
    const pair = { client: "gpu", provider: "GPU0" };
    const asking = runP2pPath(pair, options(DELL), false, new Listener());
    await expect(asking).rejects.toMatchObject({ code: "EINVAL" });
  });

  it("judge by the kernel that is asked for", async () => {
    const pair = { client: "GPU0", provider: "GPU7" };
    const listener = new Listener();
    await runP2pPath(pair, options(DELL, { kernel: "6.1" }), false, listener);
    expect(listener.objects[0]).toMatchObject({ path: { kernel: "6.1" } });
    const running = runP2pPath(pair, options(DELL, { kernel: "running" }), false, listener);
    await expect(running).rejects.toThrow(/a dump doesn't tell which kernel runs/);
    const none = runP2pPath(pair, options(DELL, { kernel: "2.4" }), false, listener);
    await expect(none).rejects.toBeInstanceOf(FarpageError);
  });
});

describe("p2p matrix", () => {
  it("of the 517-function server has 30 devices and no unknown", async () => {
    const listener = new Listener();
    await runP2pMatrix([], options(DELL), listener);
    const { rows, pairs, counts } = listener.objects[0] as {
      rows: string[];
      pairs: unknown[];
      counts: Record<string, number>;
    };
    expect(rows).toHaveLength(30);
    expect(pairs).toHaveLength(900);
    expect(counts["unknown"]).toBe(0);
    expect(listener.texts[0]).toMatch(/^GPU0 .*PIX\+/m);
    expect(listener.texts[0]).toMatch(/^GPU0 .*SYS~/m);
  });

  it("takes rows and columns", async () => {
    const listener = new Listener();
    await runP2pMatrix(["gpu"], options(DELL, { to: ["nic"] }), listener);
    const { rows, columns } = listener.objects[0] as { rows: string[]; columns: string[] };
    expect(rows).toHaveLength(8);
    expect(columns).toHaveLength(14);
  });
});

describe("p2p check", () => {
  afterEach(() => {
    process.exitCode = undefined;
  });

  const cases: readonly (readonly [string, string, readonly string[], number])[] = [
    ["all work", DELL, ["GPU0:NIC2", "GPU0:GPU7"], 0],
    ["one is refused", VIOMMU, ["nvme0:0000:04:00.0", "nvme0:0000:06:00.0"], 1],
    ["one is unknown", "laptop-2x-rtx3090-thunderbolt", ["GPU2:GPU3"], 3],
    ["no such device", DELL, ["GPU0:GPU99"], 2],
    ["no such file", "nowhere", ["GPU0:GPU1"], 2],
  ];

  it.each(cases)("when %s (%s %j) has its exit status", async (_, from, pairs, status) => {
    const listener = new Listener();
    await runP2pCheck(pairs, options(from), listener);
    expect(process.exitCode).toBe(status);
    expect(listener.error === null).toBe(status !== 2);
  });

  it("is as bad as the worst pair: refused, then unknown", () => {
    expect(checkStatus(["direct", "host-bridge", "allowed"])).toBe("works");
    expect(checkStatus(["direct", "unknown"])).toBe("unknown");
    expect(checkStatus(["unknown", "refused"])).toBe("fails");
  });
});

describe("p2p tree", () => {
  it("draws the 517-function server, the refusing ports in red, a path marked", async () => {
    const folder = mkdtempSync(join(tmpdir(), "farpage-svg-"));
    try {
      const svg = join(folder, "tree.svg");
      const more = { svg, all: false, path: "GPU0:GPU7" };
      const listener = new Listener();
      await runP2pTree(options(DELL, more), listener);
      expect(listener.objects[0]).toMatchObject({ event: "tree", file: svg });
      const drawing = readFileSync(svg, "utf8");
      expect(drawing.match(/>GPU\d {2}/g)).toHaveLength(8);
      // The legend's box and the four ports of the backplane.
      expect(drawing.match(/fill="#fbd5d5"/g)).toHaveLength(5);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it("as text has every device under its bridges", async () => {
    const text = await textOf((to) => runP2pTree(options(VIOMMU, { all: true }), to));
    expect(text).toMatch(/^root bus 0000:80/m);
    expect(text).toMatch(/^│ {5}│ {2}└─ .*nvme0/m);
  });
});

describe("every dump of the collection", () => {
  const FOLDERS = [
    "amd-r1000-pericom-switch",
    "amd-rome-mi100-switchtec",
    "arm-n1sdp-pex8749",
    "asus-esc8000a-e12",
    "dell-broadwell-ep-p100",
    "haswell-ep-2s-connectx",
    "icelake-2s-instinct",
    "microtca-e3-pex8748",
    "power9-arc-b580",
    "qemu-q35-amd-zen",
    "qemu-q35-amd-zen-iommu",
    "qemu-q35-intel-noiommu",
    "qemu-q35-intel-viommu-noredir",
    "qemu-q35-intel-viommu-stock",
  ];

  it.each(FOLDERS)("%s: list, matrix and tree print what the schema says", async (folder) => {
    const listener = new Listener();
    await runP2pList(options(folder), ["all"], listener);
    // A fragment has no peers: all that it has then.
    const rows = folder === "icelake-2s-instinct" ? ["all"] : [];
    await runP2pMatrix(rows, options(folder), listener);
    await runP2pTree(options(folder, { all: true }), listener);
    expect(listener.objects).toHaveLength(3);
  });
});

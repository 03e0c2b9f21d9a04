// SPDX-License-Identifier: MIT
// `farpage p2p` as a person or a script runs it: the built program, its output and exit statuses.

import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { MAIN } from "./programs.js";

const DATA = fileURLToPath(new URL("../data/topologies/", import.meta.url));

function p2p(args: readonly string[], input?: Uint8Array) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, "p2p", ...args], {
    encoding: "utf8",
    ...(input === undefined ? {} : { input }),
  });
  return { status, stdout, stderr };
}

describe("farpage p2p", () => {
  it("reads a dump from standard input and prints the matrix", () => {
    const dump = readFileSync(`${DATA}qemu-q35-intel-viommu/lspci-vvvxxxx.txt`);
    const { status, stdout } = p2p(["matrix", "nvme", "--from", "-"], dump);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^SSD0 +X +PIX\+/m);
  });

  it("takes several dumps of one machine", () => {
    const folder = `${DATA}qemu-q35-intel-viommu/`;
    const files = ["lspci-vvvxxxx.txt", "sysfs.tar.gz", "cpuinfo.txt"];
    const from = files.flatMap((name) => ["--from", `${folder}${name}`]);
    const { status, stdout } = p2p(["explain", "nvme0", "nvme1", "--json", ...from]);
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      event: "path",
      schema: "farpage-p2p-1",
      path: { answer: "direct", distance: 4, common: "0000:01:00.0" },
    });
  });

  it("check tells scripts by its exit status", () => {
    const check = (folder: string, ...pairs: string[]) =>
      p2p(["check", ...pairs, "--from", `${DATA}${folder}`]).status;
    expect(check("qemu-q35-intel-viommu", "nvme0:nvme1")).toBe(0);
    expect(check("qemu-q35-intel-viommu", "nvme0:nvme1", "nvme0:nvme2")).toBe(1);
    expect(check("laptop-2x-rtx3090-thunderbolt", "GPU2:GPU3")).toBe(3);
    expect(check("qemu-q35-intel-viommu", "nvme0:nvme99")).toBe(2);
    expect(p2p(["check"]).status).toBe(2);
    expect(p2p(["check", "--no-such-flag", "nvme0:nvme1"]).status).toBe(2);
    expect(p2p(["check", "--help"]).status).toBe(0);
  });

  it("draws to standard output", () => {
    const { status, stdout } = p2p(["tree", "--svg", "-", "--from", `${DATA}dell-xe9680-h100`]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^<svg [\s\S]*<\/svg>\n$/);
  });

  it("of a file that is no dump says so in one line", () => {
    const { status, stderr } = p2p(["list", "--from", MAIN]);
    expect(status).toBe(1);
    expect(stderr.trim().split("\n")).toHaveLength(1);
    expect(stderr).toMatch(/^farpage: .*\(PCI_NOT_A_DUMP\)$/m);
  });

  it("on this machine lists it, or says that there is no PCI bus", () => {
    const { status, stdout, stderr } = p2p(["list", "all"]);
    if (status === 0) expect(stdout).toMatch(/\d+ of \d+ functions on \d+ root bus(es)?$/m);
    else expect(stderr).toMatch(/name a dump with --from/);
  });
});

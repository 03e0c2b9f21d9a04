// SPDX-License-Identifier: MIT
import { existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import type { FolderEntry } from "../pci/index.js";
import { type PciSysfs, readPciSysfs } from "./pci-sysfs.js";

const BRIDGE = "devices/pci0000:00/0000:00:02.0";
const DISK = `${BRIDGE}/0000:03:00.0`;

let root = "";
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "farpage-sysfs-"));
});
afterEach(() => rmSync(root, { recursive: true }));

function write(path: string, content: string | Uint8Array): void {
  mkdirSync(join(root, dirname(path)), { recursive: true });
  writeFileSync(join(root, path), content);
}

function link(path: string, target: string): void {
  mkdirSync(join(root, dirname(path)), { recursive: true });
  symlinkSync(target, join(root, path));
}

function makeMachine(): void {
  write(`sys/${BRIDGE}/config`, new Uint8Array(64));
  write(`sys/${BRIDGE}/vendor`, "0x8086\n");
  write(`sys/${DISK}/config`, new Uint8Array(4096));
  write(`sys/${DISK}/vendor`, "0x144d\n");
  write(`sys/${DISK}/resource0`, "the device's own memory");
  write(`sys/${DISK}/p2pmem/size`, "67108864\n");
  link("sys/bus/pci/devices/0000:00:02.0", `../../../${BRIDGE}`);
  link("sys/bus/pci/devices/0000:03:00.0", `../../../${DISK}`);
  link(`sys/${DISK}/iommu_group`, "../../../../kernel/iommu_groups/10");
  write("sys/kernel/iommu_groups/10/type", "DMA-FQ\n");
  link("sys/class/nvme/nvme0", `../../${DISK}/nvme/nvme0`);
  link("sys/class/drm/card0", `../../${DISK}/drm/card0`);
  link("sys/class/drm/card0-DP-1", `../../${DISK}/drm/card0/card0-DP-1`);
  write("proc/cpuinfo", "vendor_id\t: GenuineIntel\n");
  write("proc/cmdline", "quiet\n");
  write("proc/sys/kernel/osrelease", "6.1.0-49-amd64\n");
}

function read() {
  return readPciSysfs({ sys: join(root, "sys"), proc: join(root, "proc") });
}

function entriesOf(machine: PciSysfs): ReadonlyMap<string, FolderEntry> {
  const source = machine.sources[0];
  if (source === undefined || !("entries" in source)) throw new Error("no sysfs among the sources");
  return source.entries;
}

describe("live sysfs", () => {
  it("is read: facts, links between functions, names that the kernel gave", () => {
    makeMachine();
    const machine = read();
    const entries = entriesOf(machine);
    const text = (path: string) => {
      const entry = entries.get(path);
      return entry?.kind === "file" ? new TextDecoder().decode(entry.bytes) : entry?.kind;
    };
    expect(machine.functionCount).toBe(2);
    expect(machine.kernelRelease).toBe("6.1.0-49-amd64");
    expect(text(`${DISK}/vendor`)).toBe("0x144d\n");
    expect(text(`${DISK}/p2pmem/size`)).toBe("67108864\n");
    expect(text(`${DISK}/config`)?.length).toBe(4096);
    expect(text("kernel/iommu_groups/10/type")).toBe("DMA-FQ\n");
    expect(text(`${DISK}/nvme/nvme0`)).toBe("folder");
    expect(entries.get("bus/pci/devices/0000:03:00.0")).toEqual({
      kind: "link",
      target: `../../../${DISK}`,
    });
    expect([...entries.keys()].filter((path) => path.includes("drm"))).toEqual([
      "class/drm/card0",
      `${DISK}/drm/card0`,
    ]);
    expect(machine.sources.map(({ name }) => name).slice(1)).toEqual(["cpuinfo", "cmdline"]);
  });

  it("leaves a device's memory alone: only files that are known to be facts are opened", () => {
    makeMachine();
    expect([...entriesOf(read()).keys()].filter((path) => path.includes("resource0"))).toEqual([]);
  });

  it("counts functions whose configuration space was cut to 64 bytes", () => {
    makeMachine();
    expect(read().shortConfigCount).toBe(1);
  });

  it("follows no link out of sysfs", () => {
    makeMachine();
    write("secret/vendor", "0x0001\n");
    link("sys/bus/pci/devices/0000:04:00.0", "../../../../secret");
    const paths = [...entriesOf(read()).keys()];
    expect(paths.filter((path) => path.includes("secret"))).toEqual([]);
  });

  it("without PCI functions is ENOENT with what to do instead", () => {
    mkdirSync(join(root, "sys"));
    expect(read).toThrow(/has no PCI functions: name a dump with --from/);
  });

  it.runIf(existsSync("/sys/bus/pci/devices"))("of this machine has no surprises", () => {
    let machine: ReturnType<typeof readPciSysfs>;
    try {
      machine = readPciSysfs();
    } catch (error) {
      // A container may show an empty bus; anything else is a fault of ours.
      expect(error).toMatchObject({ code: "ENOENT" });
      return;
    }
    const configs = [...entriesOf(machine).keys()].filter((path) => path.endsWith("/config"));
    expect(configs.length).toBe(machine.functionCount);
  });
});

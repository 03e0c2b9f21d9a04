// SPDX-License-Identifier: MIT
// What the harness and its cases need of Debian: programs by name, and the packages that bring
// them. Missing ones are installed where that is possible; what stays missing is a reason to skip.

import { existsSync } from "node:fs";
import { run, succeeds } from "./processes.js";

/** Programs that every run needs, and the packages that bring them. */
const BASE: Readonly<Record<string, string>> = {
  "qemu-system-x86_64": "qemu-system-x86",
  busybox: "busybox-static",
  cpio: "cpio",
  depmod: "kmod",
  ip: "iproute2",
  rdma: "iproute2",
  setpriv: "util-linux",
  xz: "xz-utils",
};

/** What a case can need beside that. */
const PROGRAMS = {
  rping: "rdmacm-utils",
  ucmatose: "rdmacm-utils",
  udaddy: "rdmacm-utils",
  ibv_rc_pingpong: "ibverbs-utils",
  ibv_ud_pingpong: "ibverbs-utils",
  ib_write_bw: "perftest",
  fio: "fio",
  "mkfs.ext4": "e2fsprogs",
  "mkfs.xfs": "xfsprogs",
  "nbd-client": "nbd-client",
  "qemu-img": "qemu-utils",
  nbdinfo: "libnbd-bin",
  nbdcopy: "libnbd-bin",
  tcpdump: "tcpdump",
  tshark: "tshark",
  "/usr/lib/python3/dist-packages/pyverbs": "python3-pyverbs",
  // librdmacm and libibverbs find rxe through their providers.
  "/usr/lib/x86_64-linux-gnu/libibverbs": "ibverbs-providers",
} as const satisfies Readonly<Record<string, string>>;

/** A program of Debian's, or `rnbd-modules`: the kernel's own RTRS and RNBD. */
export type Need = keyof typeof PROGRAMS | "rnbd-modules";

let isUpdated = false;

/** Fetches the package lists, once per run. @throws when apt-get fails. */
export async function updateLists(): Promise<void> {
  if (isUpdated) return;
  isUpdated = true;
  process.stderr.write("apt-get update\n");
  await run(["apt-get", "update", "-qq"]);
}

/** Installs packages. @throws when apt-get fails. */
export async function install(packages: readonly string[]): Promise<void> {
  await updateLists();
  process.stderr.write(`apt-get install ${packages.join(" ")}\n`);
  await run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", ...packages], {
    env: { DEBIAN_FRONTEND: "noninteractive" },
    timeoutMs: 1_200_000,
  });
}

/** Why no guest can run on this machine at all, or null. */
export function whyNotHere(): string | null {
  if (process.platform !== "linux" || process.arch !== "x64") return "needs Linux on x86-64";
  if (process.getuid?.() !== 0) return "needs root, for network namespaces and tap devices";
  if (!existsSync("/usr/bin/apt-get")) return "needs Debian's apt-get, for kernel and programs";
  if (!existsSync("/dev/net/tun")) return "needs /dev/net/tun, for tap devices";
  return null;
}

/** Installs what every run needs. @returns why that can't be had, or null. */
export async function provideBase(): Promise<string | null> {
  return provide(BASE);
}

/**
 * Installs the programs that the chosen cases need.
 * @returns by need, why it can't be had.
 */
export async function provideNeeds(needs: ReadonlySet<Need>): Promise<Map<Need, string>> {
  const reasons = new Map<Need, string>();
  const programs = [...needs].filter((need) => need !== "rnbd-modules");
  const together = await provide(Object.fromEntries(programs.map((p) => [p, PROGRAMS[p]])));
  if (together === null) return reasons;
  // One by one, so that one missing package costs no more than its own cases.
  for (const program of programs) {
    const reason = await provide({ [program]: PROGRAMS[program] });
    if (reason !== null) reasons.set(program, reason);
  }
  return reasons;
}

async function provide(programs: Readonly<Record<string, string>>): Promise<string | null> {
  const missing = await missingOf(programs);
  if (missing.length === 0) return null;
  const packages = [...new Set(missing.map((program) => programs[program] ?? program))];
  try {
    await install(packages);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return `${packages.join(", ")}: not installed: ${why.split("\n").slice(0, 3).join(" ")}`;
  }
  const still = await missingOf(programs);
  return still.length === 0 ? null : `${still.join(", ")}: not there after apt-get install`;
}

async function missingOf(programs: Readonly<Record<string, string>>): Promise<string[]> {
  const missing: string[] = [];
  for (const program of Object.keys(programs)) {
    const isThere = program.startsWith("/")
      ? existsSync(program)
      : await succeeds(["sh", "-c", `command -v ${program}`]);
    if (!isThere) missing.push(program);
  }
  return missing;
}

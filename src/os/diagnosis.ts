// SPDX-License-Identifier: MIT
// Who is in the way: the process that holds a UDP port, a TCP port or a file, as far as procfs
// shows it to this user. Everything here is best effort, for messages.

import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { IpAddress } from "../base/index.js";

/** Another process, for messages: "qemu-nbd (process 4711)". */
export function processName(pid: number): string {
  const name = readText(`/proc/${pid}/comm`).trim();
  return name === "" ? `process ${pid}` : `${name} (process ${pid})`;
}

/**
 * Who holds a UDP port that `address` can't be bound to.
 * @returns a sentence for the end of an error message.
 */
export function describeUdpPortHolder(address: IpAddress, port: number): string {
  const inodes = [
    ...socketInodes(readText("/proc/net/udp"), address, port),
    ...socketInodes(readText("/proc/net/udp6"), address, port),
  ];
  for (const inode of inodes) {
    const pid = processWithDescriptor((target) => target === `socket:[${inode}]`);
    if (pid !== null) return `${processName(pid)} holds it`;
  }
  if (/^rdma_rxe /m.test(readText("/proc/modules"))) {
    return (
      "the kernel module rdma_rxe holds it while it is loaded " +
      "(remove it with: modprobe -r rdma_rxe, or run in another network namespace)"
    );
  }
  return inodes.length === 0
    ? "its holder is not visible in /proc/net/udp"
    : "its holder is a process of another user, or the kernel";
}

/**
 * Inodes of sockets in the text of /proc/net/udp or udp6 that hold `port` on `address` or on all
 * addresses. Exported for its test.
 */
export function socketInodes(table: string, address: IpAddress, port: number): number[] {
  const inodes: number[] = [];
  for (const line of table.split("\n").slice(1)) {
    const fields = line.trim().split(/\s+/);
    const [hexAddress, hexPort] = (fields[1] ?? "").split(":");
    if (hexAddress === undefined || hexPort === undefined) continue;
    if (Number.parseInt(hexPort, 16) !== port) continue;
    const held = parseProcAddress(hexAddress);
    if (held === null) continue;
    const isWildcard = held.word0 === 0 && held.word1 === 0 && held.word3 === 0;
    if (isWildcard || held.equals(address)) inodes.push(Number(fields[9]));
  }
  return inodes;
}

/**
 * procfs prints addresses as 32-bit words in host order, which is little-endian wherever this runs.
 */
function parseProcAddress(hex: string): IpAddress | null {
  const words: number[] = [];
  for (let i = 0; i < hex.length; i += 8) {
    const bytes = hex.slice(i, i + 8).match(/../g);
    if (bytes === null) return null;
    words.push(Number.parseInt(bytes.reverse().join(""), 16));
  }
  if (words.length === 1) return IpAddress.v4(words[0] as number);
  if (words.length !== 4) return null;
  return new IpAddress(...(words as [number, number, number, number]));
}

/**
 * The process, other than this one's descriptor `exceptDescriptor`, that holds a lock on the file
 * `device`:`inode`; null when none is visible. Locks of open file descriptions carry no process id
 * of their own: it is found through fdinfo.
 */
export function lockHolder(path: string, exceptDescriptor: number): number | null {
  const wanted = statOrNull(path);
  if (wanted === null) return null;
  return processWithDescriptor((target, pid, descriptor) => {
    if (pid === process.pid && descriptor === exceptDescriptor) return false;
    if (!target.startsWith("/")) return false;
    const found = statOrNull(`/proc/${pid}/fd/${descriptor}`);
    if (found === null || found.dev !== wanted.dev || found.ino !== wanted.ino) return false;
    return /^lock:/m.test(readText(`/proc/${pid}/fdinfo/${descriptor}`));
  });
}

/** The first visible process with a descriptor that `matches`. */
function processWithDescriptor(
  matches: (target: string, pid: number, descriptor: number) => boolean,
): number | null {
  for (const name of listDirectory("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const pid = Number(name);
    for (const descriptor of listDirectory(`/proc/${name}/fd`)) {
      if (matches(readLink(`/proc/${name}/fd/${descriptor}`), pid, Number(descriptor))) return pid;
    }
  }
  return null;
}

function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function readLink(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return "";
  }
}

function listDirectory(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function statOrNull(path: string): { dev: bigint; ino: bigint } | null {
  try {
    return statSync(path, { bigint: true });
  } catch {
    return null;
  }
}

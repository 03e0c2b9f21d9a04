// SPDX-License-Identifier: MIT
// A server's volumes, opened: files and block special files through `os/`, or memory.

import { createHash } from "node:crypto";
import { type BigIntStats, closeSync, readFileSync, statSync } from "node:fs";
import { FarpageError, type Random } from "../base/index.js";
import { type BlockDevice, FileDevice, MemoryDevice } from "../block/index.js";
import { makeMemoryFile, type OsBlockFile, openBlockFile } from "../os/index.js";
import type { SharedVolume } from "./lanes/protocol.js";
import type { Log } from "./log.js";
import type { Stack } from "./stack.js";
import { formatSize, type VolumeSpec } from "./uri.js";

/** A volume that is ready to be exported. */
export interface OpenVolume {
  readonly spec: VolumeSpec;
  readonly device: BlockDevice;
  /** Names the cache that acknowledged writes live in; see `VolumeOptions.epoch` of `rnbd/`. */
  readonly epoch: { readonly high: number; readonly low: number };
  /** Of its file, for `reopenVolumes`; null for one that only this lane can have. */
  readonly descriptor: number | null;
}

/** Requests that one volume's file takes on other threads at once. */
const FILE_QUEUE_DEPTH = 64;

/**
 * Opens every volume.
 * @param log hears of sizes that are not to be had: a file that is there keeps its own.
 * @param isShared other lanes will open them too: those in memory are files then, without a name.
 * @throws FarpageError ENOENT, EACCES, EBUSY (another server has it, or another of these volumes),
 *   EEXIST (a name twice), EINVAL; nothing stays open then.
 */
export async function openVolumes(
  specs: readonly VolumeSpec[],
  stack: Stack,
  log: Log,
  isShared = false,
): Promise<OpenVolume[]> {
  const open: OpenVolume[] = [];
  try {
    for (const spec of specs) {
      if (open.some((other) => other.spec.name === spec.name)) {
        throw new FarpageError("EEXIST", `two volumes are called "${spec.name}"`);
      }
      checkFile(spec, open);
      const volume = await openVolume(spec, stack, isShared);
      open.push(volume);
      const { sizeBytes } = volume.device.limits;
      if (spec.sizeBytes !== null && spec.sizeBytes !== sizeBytes) {
        log.warn(`"${spec.path}" is there and keeps its size of ${formatSize(sizeBytes)}`);
      }
    }
    return open;
  } catch (error) {
    for (const volume of open) volume.device.close();
    throw error;
  }
}

/**
 * Refuses the mistakes that would otherwise be told of as something else.
 * @throws FarpageError EINVAL for a misspelt option, which would be a part of the path; EBUSY for a
 *   file that an earlier volume has, which only readers can share.
 */
function checkFile({ name, path, readOnly }: VolumeSpec, earlier: readonly OpenVolume[]): void {
  if (path === null) return;
  const stats = statOf(path);
  const [, word] = /,([a-z][a-z_-]*)(=[^,/]*)?$/i.exec(path) ?? [];
  if (stats === null && word !== undefined) {
    throw new FarpageError(
      "EINVAL",
      `volume "${name}": there is no option "${word}" (but size=SIZE and readonly), and no file ` +
        `"${path}" either`,
    );
  }
  if (stats === null) return;
  for (const { spec } of earlier) {
    if (spec.path === null || (spec.readOnly && readOnly)) continue;
    if (!isSameDisk(statOf(spec.path), stats)) continue;
    throw new FarpageError(
      "EBUSY",
      `volumes "${spec.name}" and "${name}" are the same file, "${path}": only volumes that are ` +
        "readonly can share one",
    );
  }
}

function statOf(path: string): BigIntStats | null {
  try {
    return statSync(path, { bigint: true, throwIfNoEntry: false }) ?? null;
  } catch {
    return null; // Whoever opens it says what is wrong.
  }
}

/** One block device can have several special files. */
function isSameDisk(a: BigIntStats | null, b: BigIntStats): boolean {
  if (a === null) return false;
  if (a.isBlockDevice() && b.isBlockDevice()) return a.rdev === b.rdev;
  return a.dev === b.dev && a.ino === b.ino;
}

function openVolume(spec: VolumeSpec, stack: Stack, isShared: boolean): Promise<OpenVolume> {
  if (spec.path !== null) return openFile(spec, spec.path, stack);
  return isShared ? openMemoryFile(spec, stack) : Promise.resolve(openMemory(spec, stack));
}

function memorySizeOf(spec: VolumeSpec): number {
  if (spec.sizeBytes !== null) return spec.sizeBytes;
  throw new FarpageError("EINVAL", `volume "${spec.name}" in memory needs a size`);
}

function openMemory(spec: VolumeSpec, stack: Stack): OpenVolume {
  const device = new MemoryDevice({
    name: spec.name,
    sizeBytes: memorySizeOf(spec),
    readOnly: spec.readOnly,
  });
  // Memory dies with the process: every start is another epoch.
  return { spec, device, epoch: randomEpoch(stack.random), descriptor: null };
}

async function openMemoryFile(spec: VolumeSpec, stack: Stack): Promise<OpenVolume> {
  const descriptor = makeMemoryFile(spec.name, memorySizeOf(spec));
  try {
    const epoch = randomEpoch(stack.random);
    return await openDescriptor(spec, descriptor, epoch, stack);
  } finally {
    // The open file keeps it.
    closeSync(descriptor);
  }
}

async function openFile(spec: VolumeSpec, path: string, stack: Stack): Promise<OpenVolume> {
  const file = await openBlockFile(path, {
    readOnly: spec.readOnly,
    poller: stack.poller,
    backend: stack.backend,
    ...(spec.sizeBytes === null ? {} : { create: true, sizeBytes: spec.sizeBytes }),
  });
  const epoch = fileEpoch(path) ?? randomEpoch(stack.random);
  return { spec, device: deviceOf(file, spec, stack), epoch, descriptor: file.descriptor };
}

async function openDescriptor(
  spec: VolumeSpec,
  descriptor: number,
  epoch: OpenVolume["epoch"],
  stack: Stack,
): Promise<OpenVolume> {
  const file = await openBlockFile(spec.path ?? spec.name, {
    readOnly: spec.readOnly,
    poller: stack.poller,
    backend: stack.backend,
    descriptor,
  });
  return { spec, device: deviceOf(file, spec, stack), epoch, descriptor: file.descriptor };
}

function deviceOf(file: OsBlockFile, spec: VolumeSpec, stack: Stack): FileDevice {
  return new FileDevice(file, {
    name: spec.name,
    readOnly: spec.readOnly,
    // Clients must know that a server that comes back has another memory.
    volatileCache: spec.path !== null,
    queueDepth: FILE_QUEUE_DEPTH,
    memory: stack.memory,
  });
}

/**
 * Opens, for another lane, the volumes that lane 0 has open and goes on having open until this lane
 * has begun. Each lane has a description of its own of each file, so that an error of writeback is
 * told to the flushes of every lane (fsync(2)).
 * @throws FarpageError EACCES, EMFILE; nothing stays open then.
 */
export async function reopenVolumes(
  volumes: readonly SharedVolume[],
  stack: Stack,
): Promise<OpenVolume[]> {
  const open: OpenVolume[] = [];
  try {
    for (const { spec, descriptor, epoch } of volumes) {
      open.push(await openDescriptor(spec, descriptor, epoch, stack));
    }
    return open;
  } catch (error) {
    for (const volume of open) volume.device.close();
    throw error;
  }
}

/**
 * The kernel's page cache outlives this process but not a boot, which its id names; nor does the
 * cache of one file help another that was put in its place. (Not the number of the file system's
 * device, which may be another after a boot.)
 */
function fileEpoch(path: string): { high: number; low: number } | null {
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
    const stats = statSync(path, { bigint: true });
    const file = stats.isBlockDevice() ? stats.rdev : `${stats.ino} ${stats.birthtimeNs}`;
    const digest = createHash("sha256").update(`${boot} ${file}`).digest();
    return { high: digest.readUInt32LE(0), low: (digest.readUInt32LE(4) | 1) >>> 0 };
  } catch {
    return null;
  }
}

function randomEpoch(random: Random): { high: number; low: number } {
  return { high: random.nextU32(), low: (random.nextU32() | 1) >>> 0 };
}

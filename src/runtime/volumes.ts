// SPDX-License-Identifier: MIT
// A server's volumes, opened: files and block special files through `os/`, or memory.

import { readFileSync } from "node:fs";
import { FarpageError, type Random } from "../base/index.js";
import { type BlockDevice, FileDevice, MemoryDevice } from "../block/index.js";
import { openBlockFile } from "../os/index.js";
import type { Log } from "./log.js";
import type { Stack } from "./stack.js";
import { formatSize, type VolumeSpec } from "./uri.js";

/** A volume that is ready to be exported. */
export interface OpenVolume {
  readonly spec: VolumeSpec;
  readonly device: BlockDevice;
  /** Names the cache that acknowledged writes live in; see `VolumeOptions.epoch` of `rnbd/`. */
  readonly epoch: { readonly high: number; readonly low: number };
}

/** Requests that one volume's file takes on other threads at once. */
const FILE_QUEUE_DEPTH = 64;

/**
 * Opens every volume.
 * @param log hears of sizes that are not to be had: a file that is there keeps its own.
 * @throws FarpageError ENOENT, EACCES, EBUSY (another server has it), EINVAL; nothing stays open
 *   then.
 */
export async function openVolumes(
  specs: readonly VolumeSpec[],
  stack: Stack,
  log: Log,
): Promise<OpenVolume[]> {
  const open: OpenVolume[] = [];
  try {
    for (const spec of specs) {
      if (open.some((other) => other.spec.name === spec.name)) {
        throw new FarpageError("EEXIST", `two volumes are called "${spec.name}"`);
      }
      const volume =
        spec.path === null ? openMemory(spec, stack) : await openFile(spec, spec.path, stack);
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

function openMemory(spec: VolumeSpec, stack: Stack): OpenVolume {
  if (spec.sizeBytes === null) {
    throw new FarpageError("EINVAL", `volume "${spec.name}" in memory needs a size`);
  }
  const device = new MemoryDevice({
    name: spec.name,
    sizeBytes: spec.sizeBytes,
    readOnly: spec.readOnly,
  });
  // Memory dies with the process: every start is another epoch.
  return { spec, device, epoch: randomEpoch(stack.random) };
}

async function openFile(spec: VolumeSpec, path: string, stack: Stack): Promise<OpenVolume> {
  const file = await openBlockFile(path, {
    readOnly: spec.readOnly,
    poller: stack.poller,
    backend: stack.backend,
    ...(spec.sizeBytes === null ? {} : { create: true, sizeBytes: spec.sizeBytes }),
  });
  const device = new FileDevice(file, {
    name: spec.name,
    readOnly: spec.readOnly,
    queueDepth: FILE_QUEUE_DEPTH,
    memory: stack.memory,
  });
  return { spec, device, epoch: bootEpoch() ?? randomEpoch(stack.random) };
}

/** The kernel's page cache outlives this process but not a boot: the boot's id names it. */
function bootEpoch(): { high: number; low: number } | null {
  try {
    const id = readFileSync("/proc/sys/kernel/random/boot_id", "latin1").replaceAll("-", "");
    const high = Number.parseInt(id.slice(0, 8), 16);
    const low = Number.parseInt(id.slice(8, 16), 16);
    return Number.isNaN(high + low) || high + low === 0 ? null : { high, low };
  } catch {
    return null;
  }
}

function randomEpoch(random: Random): { high: number; low: number } {
  return { high: random.nextU32(), low: random.nextU32() | 1 };
}

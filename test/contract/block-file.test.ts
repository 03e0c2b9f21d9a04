// SPDX-License-Identifier: MIT
import { closeSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { HeapMemorySource, SeededRandom } from "../../src/base/index.js";
import {
  type Backend,
  foreignCallsUnavailable,
  makeMemoryFile,
  openBlockFile,
  openMemorySource,
  openPoller,
} from "../../src/os/index.js";
import { SimClock, SimDisk, SimPlatter } from "../../src/sim/index.js";
import {
  type BlockFileBench,
  blockFileContract,
  CONTRACT_FILE_BYTES,
} from "./block-file.contract.js";

const MEMORY_BYTES = 512 * 1024;

async function diskBench(backend: Backend, parent: string): Promise<BlockFileBench> {
  const directory = mkdtempSync(join(parent, "farpage-file-"));
  const poller = openPoller(backend);
  const source = openMemorySource({ backend });
  const file = await openBlockFile(join(directory, "disk"), {
    poller,
    backend,
    create: true,
    sizeBytes: CONTRACT_FILE_BYTES,
  });
  return {
    file,
    memory: source.allocate(MEMORY_BYTES),
    settle: () => poller.wait(20_000_000),
    close: () => {
      file.close();
      poller.close();
      source.close();
      rmSync(directory, { recursive: true });
    },
  };
}

/** A file in memory, as the lanes of a host share one. */
async function memoryBench(): Promise<BlockFileBench> {
  const descriptor = makeMemoryFile("bench", CONTRACT_FILE_BYTES);
  const poller = openPoller("native");
  const source = openMemorySource({ backend: "native" });
  const file = await openBlockFile("bench", { poller, backend: "native", descriptor });
  return {
    file,
    memory: source.allocate(MEMORY_BYTES),
    settle: () => poller.wait(20_000_000),
    close: () => {
      file.close();
      closeSync(descriptor);
      poller.close();
      source.close();
    },
  };
}

async function simBench(blockRate: number): Promise<BlockFileBench> {
  const clock = new SimClock();
  const random = new SeededRandom(1);
  const platter = new SimPlatter(CONTRACT_FILE_BYTES, random);
  const file = new SimDisk(clock, random, platter, { faults: { blockRate } });
  return {
    file,
    memory: new HeapMemorySource().allocate(MEMORY_BYTES),
    settle: async () => clock.advanceTo(clock.nowNs + 100_000_000),
    close: () => file.close(),
  };
}

if (foreignCallsUnavailable() === null) {
  blockFileContract("native", () => diskBench("native", tmpdir()));
  blockFileContract("native, in memory", () => memoryBench());
  if (existsSync("/dev/shm")) {
    blockFileContract("native, tmpfs", () => diskBench("native", "/dev/shm"));
  }
}
blockFileContract("node:fs", () => diskBench("node", tmpdir()));
blockFileContract("simulated", () => simBench(0));
blockFileContract("simulated, always blocking", () => simBench(1));

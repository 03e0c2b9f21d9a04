// SPDX-License-Identifier: MIT
// `farpage mem`: how the memory of this machine lies, or of a saved copy.

import { z } from "zod";
import {
  arenaText,
  bytesText,
  type MachineMemory,
  machineJson,
  machineText,
  orderViews,
  shareText,
  sumCounts,
} from "../mm/index.js";
import {
  ControlClient,
  FarpageError,
  MEMORY_STATISTICS,
  type MemoryStatistics,
  readMachineMemory,
} from "../runtime/index.js";
import { findInstance } from "./instances.js";
import { MEM_OPTIONS, type MemOptions } from "./mem-options.js";
import { checkOptions } from "./options.js";
import type { Reporter } from "./reporter.js";

/** Changes when a program that reads the object would misunderstand. */
export const MEM_SCHEMA = "farpage-mem-1";
/** Exit statuses with `--need`. */
export const NEED_STATUS = { enough: 0, short: 1, error: 2, unknown: 3 } as const;

/** @param target the instance whose memory is meant; undefined: the machine's. */
export async function runMem(
  target: string | undefined,
  raw: Readonly<Record<string, unknown>>,
  reporter: Reporter,
): Promise<void> {
  if (raw["need"] !== undefined) {
    runNeed(target, raw, reporter);
    return;
  }
  const options = checkOptions(MEM_OPTIONS, raw);
  if (target !== undefined || options.data !== undefined) {
    if (options.from !== undefined) {
      throw new FarpageError("EINVAL", "--from is of a machine's memory, not of an instance's");
    }
    await runArena(target, options.data, reporter);
    return;
  }
  const machine = read(options, reporter);
  const name = options.from ?? "this machine";
  const fields = { schema: MEM_SCHEMA, source: name, ...machineJson(machine) };
  reporter.event("machine-memory", fields, machineText(machine, name).join("\n"));
}

const REPLY = z.object({ memory: MEMORY_STATISTICS });

async function runArena(
  target: string | undefined,
  data: string | undefined,
  reporter: Reporter,
): Promise<void> {
  const instance = await findInstance(target, data);
  const client = await ControlClient.connect(instance.path);
  try {
    const reply = REPLY.safeParse(await client.ask({ request: "memory" }));
    if (!reply.success) throw new FarpageError("EPROTO", "the instance's answer is no memory");
    const { memory } = reply.data;
    const { pid, name } = instance;
    const text = [
      `memory of ${name} (process ${pid}) on ${instance.addresses.join(", ")}${lanesText(memory)}`,
      ...systemText(memory),
      ...arenaText(memory),
    ].join("\n");
    reporter.event("arena", { schema: MEM_SCHEMA, pid, name, ...memory }, text);
  } finally {
    client.close();
  }
}

function lanesText({ laneCount }: MemoryStatistics): string {
  return laneCount === 1 ? "" : `, ${laneCount} lanes, each with an arena of its own`;
}

/** What the system gave for the arena: huge pages or not. */
function systemText({ system }: MemoryStatistics): string[] {
  if (system === null) return ["  the system doesn't tell what pages it gave"];
  const { mappedBytes, residentBytes, transparentHugeBytes, hugetlbBytes } = system;
  const huge = transparentHugeBytes + hugetlbBytes;
  const share = residentBytes === 0 ? "" : ` (${shareText(huge / residentBytes)})`;
  return [
    `  ${bytesText(mappedBytes)} mapped, ${bytesText(residentBytes)} of it touched, ` +
      `${bytesText(huge)}${share} in huge pages`,
  ];
}

/**
 * For scripts: could so much be had in huge pages as memory lies now? Sets the exit status, also
 * for flags that are wrong: that must not look like "no".
 */
function runNeed(target: string | undefined, raw: unknown, reporter: Reporter): void {
  try {
    const options = checkOptions(MEM_OPTIONS, raw);
    const need = options.need ?? 0;
    if (target !== undefined || options.data !== undefined) {
      throw new FarpageError("EINVAL", "--need asks about a machine, not about an instance");
    }
    const machine = read(options, reporter);
    const bytes = hugeBytes(machine);
    const status = bytes === null ? "unknown" : bytes >= need ? "enough" : "short";
    const text =
      bytes === null
        ? "unknown: the free blocks could not be read"
        : `${status}: ${bytesText(bytes)} free in blocks of ` +
          `${bytesText(machine.hugePageBytes)} and above, ${bytesText(need)} wanted`;
    reporter.event("need", { schema: MEM_SCHEMA, status, bytes, need }, text);
    process.exitCode = NEED_STATUS[status];
  } catch (error) {
    reporter.fail(error);
    process.exitCode = NEED_STATUS.error;
  }
}

/** Free bytes in blocks of a huge page and above; null: not known. */
function hugeBytes(machine: MachineMemory): number | null {
  if (machine.zones.length === 0) return null;
  const order = Math.round(Math.log2(machine.hugePageBytes / machine.pageBytes));
  const counts = sumCounts(machine.zones.map((zone) => zone.counts));
  let pages = 0;
  for (const { order: size, freeBlocks } of orderViews(counts)) {
    if (size >= order) pages += freeBlocks * 2 ** size;
  }
  return pages * machine.pageBytes;
}

function read(options: MemOptions, reporter: Reporter): MachineMemory {
  const machine = readMachineMemory(options.from);
  const { notices, noticesDropped } = machine;
  if (options.verbose) {
    for (const { file, line, message } of notices) reporter.warn(`${file}:${line}: ${message}`);
  }
  const untold = options.verbose ? noticesDropped : notices.length + noticesDropped;
  if (untold > 0) {
    const hint = options.verbose ? "" : " (--verbose)";
    reporter.warn(`${untold} odd place${untold === 1 ? "" : "s"} in what was read${hint}`);
  }
  return machine;
}

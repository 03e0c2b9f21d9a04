// SPDX-License-Identifier: MIT
// `farpage mem lab`: a seeded week of a server's life under each policy of allocation.

import { writeFile } from "node:fs/promises";
import {
  type AllocatorPolicy,
  bytesText,
  hourOfLoss,
  hoursText,
  hourText,
  LEGEND,
  POLICIES,
  shareText,
  summaryText,
  Week,
  type WeekResult,
  weeksCsv,
  weeksSvg,
} from "../mm/index.js";
import { FarpageError } from "../runtime/index.js";
import { MEM_SCHEMA } from "./mem.js";
import { MEM_LAB_OPTIONS } from "./mem-options.js";
import { checkOptions } from "./options.js";
import { StatusLine } from "./progress-line.js";
import type { Reporter } from "./reporter.js";

/** Hours between two lines of the table. */
const TABLE_STEP = 12;
const LOST_SHARE = 0.34;

/**
 * Plays and shows the weeks.
 * @throws FarpageError EINVAL for a policy that isn't there; errors of writing the files.
 */
export async function runMemLab(raw: unknown, reporter: Reporter): Promise<void> {
  const options = checkOptions(MEM_LAB_OPTIONS, raw);
  const { seed, hours, memory: memoryBytes } = options;
  const policies = choosePolicies(options.policy);
  // Better now than after minutes of work.
  for (const path of [options.svg, options.csv]) if (path !== undefined) await save(path, "");
  const progress = new StatusLine(options.quiet);
  const weeks: WeekResult[] = [];
  try {
    for (const policy of policies) {
      const week = new Week({ policy, seed, memoryBytes, hours });
      while (!week.isOver) {
        const { hour } = week.playHour();
        const done = weeks.length + hour / hours;
        const place = `${policy.name}, ${hourText(hour)}`;
        progress.show(
          done / policies.length,
          `policy ${weeks.length + 1} of ${policies.length}: ${place}`,
        );
        // Signals are heard between two hours.
        await new Promise((resolve) => setImmediate(resolve));
      }
      weeks.push(week.finish());
    }
  } finally {
    progress.clear();
  }
  const title = `A server's week: ${bytesText(memoryBytes)}, ${hours} hours, seed ${seed}`;
  if (options.svg !== undefined) await save(options.svg, weeksSvg(weeks, memoryBytes, title));
  if (options.csv !== undefined) await save(options.csv, weeksCsv(weeks));
  const fields = { schema: MEM_SCHEMA, seed, memoryBytes, hours, weeks };
  const text = [
    title,
    ...(options.table === "hours"
      ? weeks.flatMap((week) => ["", ...hoursText(week, TABLE_STEP)])
      : []),
    "",
    ...summaryText(weeks),
    ...LEGEND.map((line) => `  ${line}`),
    ...lossText(weeks),
  ];
  reporter.event("weeks", fields, text.join("\n"));
}

/** The published figure: a third of the blocks lost to a few percent of the bytes. */
function lossText(weeks: readonly WeekResult[]): string[] {
  return weeks.flatMap((week) => {
    const sample = hourOfLoss(week, LOST_SHARE);
    if (sample === null) return [];
    return [
      `${week.policy}: by ${hourText(sample.hour)} ${shareText(sample.stuckShareOfBytes)} of the ` +
        `bytes keep ${shareText(sample.stuckShareOfBlocks)} of the blocks`,
    ];
  });
}

function choosePolicies(names: readonly string[]): readonly AllocatorPolicy[] {
  if (names.length === 0) return POLICIES;
  return [...new Set(names)].map((name) => {
    const policy = POLICIES.find((one) => one.name === name);
    if (policy === undefined) {
      const known = POLICIES.map((one) => one.name).join(", ");
      throw new FarpageError("EINVAL", `no policy "${name}"; there are ${known}`);
    }
    return policy;
  });
}

async function save(path: string, text: string): Promise<void> {
  try {
    await writeFile(path, text);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? "EIO";
    throw new FarpageError(code, `can't write ${path}: ${code}`, { cause });
  }
}

// SPDX-License-Identifier: MIT
// The options of `farpage mem`, checked.

import { z } from "zod";
import { FarpageError, parseSize } from "../runtime/index.js";
import { parsed, wholeNumber } from "./options.js";

export const MEM_OPTIONS = z.object({
  json: z.boolean(),
  verbose: z.boolean(),
  from: z.string().min(1).optional(),
  need: parsed(parseSize).optional(),
  data: z.string().optional(),
});
export type MemOptions = z.infer<typeof MEM_OPTIONS>;

/** Of the lab's memory: whole page blocks, enough for the mix, and frame tables that fit here. */
const MEMORY_BYTES_MIN = 64 * 2 ** 20;
const MEMORY_BYTES_MAX = 64 * 2 ** 30;

function parseMemory(text: string): number {
  const bytes = parseSize(text);
  if (bytes < MEMORY_BYTES_MIN || bytes > MEMORY_BYTES_MAX || bytes % (2 << 20) !== 0) {
    throw new FarpageError("EINVAL", `${text}: 64M to 64G in steps of 2M are wanted`);
  }
  return bytes;
}

export const MEM_LAB_OPTIONS = z.object({
  json: z.boolean(),
  quiet: z.boolean(),
  seed: wholeNumber(0, 2 ** 32 - 1),
  hours: wholeNumber(1, 10_000),
  memory: parsed(parseMemory),
  policy: z.array(z.string()).default([]),
  table: z.enum(["summary", "hours"]),
  svg: z.string().min(1).optional(),
  csv: z.string().min(1).optional(),
});

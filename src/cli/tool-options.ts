// SPDX-License-Identifier: MIT
// Options of the test programs' commands, checked.

import { z } from "zod";
import { FarpageError, parseSize } from "../runtime/index.js";
import { COMMON, ipAddress, parsed, seconds, wholeNumber } from "./options.js";

/** What every test program takes. */
const TOOL = {
  ...COMMON,
  address: z.array(ipAddress).min(1).optional(),
  timeout: seconds.refine((value) => value > 0, "more than 0 seconds are wanted"),
};

const port = wholeNumber(1, 65_535);
const COUNT_MAX = 0x7fff_ffff;

export const RPING_OPTIONS = z.object({
  ...TOOL,
  server: z.boolean(),
  client: ipAddress.optional(),
  port,
  count: wholeNumber(0, COUNT_MAX),
  size: parsed(parseSize),
  persistent: z.boolean(),
  validate: z.boolean(),
  showPings: z.boolean(),
});

export const PINGPONG_OPTIONS = z.object({
  ...TOOL,
  kind: z.enum(["rc", "ud"]),
  server: ipAddress.optional(),
  port,
  size: parsed(parseSize).optional(),
  iters: wholeNumber(1, COUNT_MAX),
  mtu: z
    .enum(["256", "512", "1024", "2048", "4096"])
    .transform((text) => Number(text) as 256 | 512 | 1024 | 2048 | 4096),
  rxDepth: wholeNumber(1, 16_000),
  validate: z.boolean(),
});

/** Of ucmatose and udaddy. */
export const CONNECTIONS_OPTIONS = z.object({
  ...TOOL,
  server: z.boolean(),
  client: ipAddress.optional(),
  port,
  connections: wholeNumber(1, 4096),
  count: wholeNumber(0, 16_000),
  size: parsed(parseSize),
  validate: z.boolean(),
});

/** @throws FarpageError EINVAL unless exactly one role is asked for. */
export function checkRole(options: { readonly server: boolean; readonly client?: unknown }): void {
  if (options.server !== (options.client !== undefined)) return;
  throw new FarpageError("EINVAL", "say either --server, or --client with the server's address");
}

// SPDX-License-Identifier: MIT
// The options of `farpage p2p`, checked.

import { z } from "zod";
import { ACS } from "../pci/index.js";
import { FarpageError } from "../runtime/index.js";
import { parsed } from "./options.js";

/** An ACS control word: `off`, `redirect` (as an IOMMU driver sets it), or seven bits in hex. */
function parseAcs(text: string): number {
  if (text === "off") return 0;
  if (text === "redirect") {
    return (
      ACS.SOURCE_VALIDATION |
      ACS.REQUEST_REDIRECT |
      ACS.COMPLETION_REDIRECT |
      ACS.UPSTREAM_FORWARDING
    );
  }
  const value = /^(?:0x)?([0-9a-f]{1,2})$/i.exec(text)?.[1];
  if (value === undefined || Number.parseInt(value, 16) > 0x7f) {
    throw new FarpageError(
      "EINVAL",
      `"${text}": off, redirect or a control word (00 to 7f) is wanted`,
    );
  }
  return Number.parseInt(value, 16);
}

export const P2P_OPTIONS = z.object({
  json: z.boolean(),
  verbose: z.boolean(),
  from: z.array(z.string().min(1)).default([]),
  kernel: z.string().optional(),
  assumeAcs: parsed(parseAcs).optional(),
  to: z.array(z.string()).default([]),
});
export type P2pCommandOptions = z.infer<typeof P2P_OPTIONS>;

export const P2P_TREE_OPTIONS = P2P_OPTIONS.extend({
  svg: z.string().min(1).optional(),
  all: z.boolean(),
  path: z.string().optional(),
});

// SPDX-License-Identifier: MIT
// The options of `farpage mem`, checked.

import { z } from "zod";
import { parseSize } from "../runtime/index.js";
import { parsed } from "./options.js";

export const MEM_OPTIONS = z.object({
  json: z.boolean(),
  verbose: z.boolean(),
  from: z.string().min(1).optional(),
  need: parsed(parseSize).optional(),
  data: z.string().optional(),
});
export type MemOptions = z.infer<typeof MEM_OPTIONS>;

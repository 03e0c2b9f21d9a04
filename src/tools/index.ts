// SPDX-License-Identifier: MIT
// The field's own test programs, spoken by farpage: wire-compatible with the stock ones.
export { CompletionReader, completionFailure } from "./completions.js";
export { interruptible, type ToolEnvironment } from "./environment.js";
export {
  PERF_DEFAULTS,
  PERF_KINDS,
  PERF_VERBS,
  type PerfFigures,
  type PerfOptions,
  runPerftest,
} from "./perftest/index.js";
export { bringUpRc, bringUpUd, type RcEnds, type UdEnds } from "./queue-pairs.js";
export { SideChannel, SideListener } from "./side-channel.js";

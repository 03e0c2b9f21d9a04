// SPDX-License-Identifier: MIT
export type { BandwidthFigures, LatencyFigures } from "./figures.js";
export { PERF_DEFAULTS, PERF_KINDS, PERF_VERBS, type PerfOptions } from "./options.js";
export { type PerfFigures, runPerftest } from "./perftest.js";

// SPDX-License-Identifier: MIT
export { type BenchResult, type BenchRun, runBenchTest } from "./initiator.js";
export { BENCH_TEST, type BenchTest } from "./protocol.js";
export { startBenchResponder } from "./responder.js";

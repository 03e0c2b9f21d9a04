// SPDX-License-Identifier: MIT
// The field's own test programs, spoken by farpage: wire-compatible with the stock ones.
export { Area, type Piece, type Place, Poster, type Recipient } from "./area.js";
export { CmDesk, CmLink, type LinkQueues } from "./cm-desk.js";
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
export { type PingpongOptions, type PingpongResult, runPingpong } from "./pingpong/index.js";
export { bringUpRc, bringUpUd, type RcEnds, type UdEnds } from "./queue-pairs.js";
export { type QueueOptions, Queues } from "./queues.js";
export { type RpingClientOptions, type RpingResult, runRpingClient } from "./rping/client.js";
export { type RpingServerOptions, runRpingServer } from "./rping/server.js";
export { SideChannel, SideListener } from "./side-channel.js";
export { runUcmatose, type UcmatoseOptions, type UcmatoseResult } from "./ucmatose/ucmatose.js";
export { runUdaddy, type UdaddyOptions, type UdaddyResult } from "./udaddy/udaddy.js";

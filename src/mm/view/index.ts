// SPDX-License-Identifier: MIT

export { type ArenaPins, type ArenaView, type ArenaZone, arenaView } from "./arena.js";
export { arenaText } from "./arena-text.js";
export { type Finding, findingsOf, type Remedy } from "./findings.js";
export { type OrderView, orderViews, sumCounts } from "./fragmentation.js";
export { parseBuddyinfo, parsePagetypeinfo } from "./free-lists-text.js";
export {
  type HugePagePool,
  type MachineFiles,
  type MachineMemory,
  parseMachineMemory,
  type UnreadFile,
} from "./machine.js";
export { machineJson, machineText } from "./machine-report.js";
export { Notices, type TextNotice } from "./machine-text.js";
export { bytesText, columnsText, shareText } from "./words.js";

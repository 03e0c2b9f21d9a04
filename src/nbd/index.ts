// SPDX-License-Identifier: MIT
export { type ByteStream, IoVector } from "./byte-stream.js";
export { NbdConnection } from "./nbd-connection.js";
export { NBD_CLOSE_REASONS, type NbdCloseReason, NbdCounters } from "./nbd-counters.js";
export { NbdExport, NbdExports } from "./nbd-export.js";
export { NBD_LIMITS_DEFAULT, type NbdLimits } from "./nbd-limits.js";
export { NbdServer, type NbdServerOptions } from "./nbd-server.js";

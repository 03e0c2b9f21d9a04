// SPDX-License-Identifier: MIT
export { type CopyClientOptions, runCopyClient } from "./copy-client.js";
export type { CopyStatus } from "./copy-job.js";
export { CopyServer } from "./copy-server.js";
export type { ExportSpec } from "./export-rules.js";

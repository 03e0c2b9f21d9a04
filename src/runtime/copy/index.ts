// SPDX-License-Identifier: MIT
export { type CopyClientOptions, runCopyClient } from "./copy-client.js";
export type { CopyStatus } from "./copy-job.js";
export { CopyServer, type ExportSpec } from "./copy-server.js";

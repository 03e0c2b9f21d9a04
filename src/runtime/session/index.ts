// SPDX-License-Identifier: MIT
export { type PathListener, tellOfPaths } from "./path-log.js";
export { type PathSpec, pairPaths, parsePath, pathName } from "./path-spec.js";
export { controlSession } from "./session-control.js";
export { type PathStatus, SESSION_STATUS, type SessionStatus } from "./session-status.js";

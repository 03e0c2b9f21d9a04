// SPDX-License-Identifier: MIT
export { LaneGroup, type LaneGroupOptions, openLaneGroup } from "./lane-group.js";
export type { LanePlace } from "./place.js";
export type { AttachLaneSettings, ServerLaneSettings, SharedVolume } from "./protocol.js";
export { groupOf, type SharedSessions, shareSessions } from "./shared-sessions.js";

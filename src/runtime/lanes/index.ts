// SPDX-License-Identifier: MIT
export { LANE_COUNT_MAX, LaneGroup, type LaneGroupOptions } from "./lane-group.js";
export type { LanePlace } from "./place.js";
export type { ServerLaneSettings, SharedVolume } from "./protocol.js";

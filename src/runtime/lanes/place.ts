// SPDX-License-Identifier: MIT
import type { BoundSocket, LaneBox } from "../../os/index.js";
import type { LaneNumber, Steering } from "../../wire/index.js";

/** Where a stack stands among the lanes of its host: plain data, for every thread. */
export interface LanePlace {
  readonly lane: LaneNumber;
  readonly steering: Steering;
  /** The lane's own, one per address. */
  readonly sockets: readonly BoundSocket[];
  /** Those of all lanes. */
  readonly boxes: readonly LaneBox[];
}

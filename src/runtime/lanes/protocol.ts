// SPDX-License-Identifier: MIT
// What the host's own thread and the threads of its further lanes say to each other: control
// alone, a few messages at start, end, and when somebody looks. Both sides are the same program, so
// nothing is checked.

import type { HostStatistics, TraceControlRequest } from "../observe/index.js";
import type { VolumeSpec } from "../uri.js";
import type { LanePlace } from "./place.js";

/** A volume that lane 0 has open. */
export interface SharedVolume {
  readonly spec: VolumeSpec;
  readonly descriptor: number;
  readonly epoch: { readonly high: number; readonly low: number };
  /** The word of its `VolumeRights`. */
  readonly rights: SharedArrayBuffer;
}

/** What a lane of a server is made of. */
export interface ServerLaneSettings {
  readonly port: number;
  readonly queueDepth: number;
  readonly chunkBytes: number;
  readonly sessionCountMax: number;
  readonly pathCountMax: number;
  readonly alwaysInvalidate: boolean;
  /** Texts of access rules, in order. */
  readonly rules: readonly string[];
  readonly regionCountMax: number;
}

/** The data that a lane's thread starts with. */
export interface LaneStart {
  readonly place: LanePlace;
  readonly addresses: readonly string[];
  readonly segmentation: boolean;
  readonly server: ServerLaneSettings;
  readonly volumes: readonly SharedVolume[];
  /** Trace 0 of the lane begins with its first packet. */
  readonly isTraced: boolean;
  /** Sessions of all lanes: see `SessionRoster`. */
  readonly roster: SharedArrayBuffer;
}

/** From the host's thread to a lane's. */
export type ToLane =
  /** Take no more clients, end the sessions; `sessionsClosed` follows. */
  | { readonly kind: "closeSessions" }
  /** Make everything durable, close everything; `closed` follows and is the last. */
  | { readonly kind: "close" }
  | { readonly kind: "statistics"; readonly id: number }
  | { readonly kind: "trace"; readonly id: number; readonly request: TraceControlRequest }
  /** The bytes of the last `traced` are written; further ones may come. */
  | { readonly kind: "traceTaken"; readonly id: number }
  /** No more packets, but what there is; or nothing more at all. */
  | { readonly kind: "traceStop"; readonly id: number; readonly isAborted: boolean };

/** An error on its way between threads. */
export interface LaneError {
  readonly code: string | null;
  readonly message: string;
  readonly stack: string;
}

/** From a lane's thread to the host's. */
export type FromLane =
  | { readonly kind: "ready" }
  /** It did not come up, and is gone. */
  | { readonly kind: "refused"; readonly error: LaneError }
  | { readonly kind: "sessionsClosed" }
  /** @param error of the first volume that could not be made durable. */
  | { readonly kind: "closed"; readonly error: LaneError | null }
  /** It has stopped by a bug. */
  | { readonly kind: "failed"; readonly error: LaneError }
  | {
      readonly kind: "log";
      readonly level: "debug" | "info" | "warn" | "error";
      readonly text: string;
    }
  | { readonly kind: "statistics"; readonly id: number; readonly statistics: HostStatistics }
  /** Bytes of a trace; null: it has ended. */
  | { readonly kind: "traced"; readonly id: number; readonly bytes: Uint8Array | null };

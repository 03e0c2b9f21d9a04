// SPDX-License-Identifier: MIT
// What the host's own thread and the threads of its further lanes say to each other: control
// alone, a few messages at start, end, and when somebody looks. Both sides are the same program, so
// nothing is checked.

import type { AttachLaneOptions } from "../attach-lane.js";
import type {
  HostStatistics,
  MemoryStatistics,
  SessionControlRequest,
  TraceControlRequest,
} from "../observe/index.js";
import type { SessionStatus } from "../session/index.js";
import type { VolumeSpec } from "../uri.js";
import type { LanePlace } from "./place.js";
import type { SharedSessions } from "./shared-sessions.js";

/** A volume that lane 0 has open. */
export interface SharedVolume {
  readonly spec: VolumeSpec;
  readonly descriptor: number;
  readonly epoch: { readonly high: number; readonly low: number };
  /** The memory of its `VolumeRights`. */
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

/** What a lane of a client is made of: `AttachLaneOptions` as plain data. */
export interface AttachLaneSettings {
  readonly target: { readonly addresses: readonly string[]; port: number; volume: string };
  readonly morePaths: readonly { readonly source: string | null; readonly destination: string }[];
  readonly rest: Omit<AttachLaneOptions, "target" | "morePaths" | "log" | "onSession" | "onPath">;
  readonly sessions: SharedSessions;
  /** Whether the host's thread wants to hear of the session and its paths. */
  readonly tellsSession: boolean;
  readonly tellsPath: boolean;
}

/** What a lane does. */
export type LaneRole =
  | {
      readonly kind: "serve";
      readonly server: ServerLaneSettings;
      readonly volumes: readonly SharedVolume[];
      /** Sessions of all lanes: see `SessionRoster`. */
      readonly roster: SharedArrayBuffer;
    }
  | { readonly kind: "attach"; readonly attach: AttachLaneSettings };

/** The data that a lane's thread starts with. */
export interface LaneStart {
  readonly place: LanePlace;
  readonly addresses: readonly string[];
  readonly segmentation: boolean;
  readonly role: LaneRole;
  /** Trace 0 of the lane begins with its first packet. */
  readonly isTraced: boolean;
}

/** From the host's thread to a lane's. */
export type ToLane =
  /** Take no more clients, end the sessions; `sessionsClosed` follows. */
  | { readonly kind: "closeSessions" }
  /** Make everything durable, close everything; `closed` follows and is the last. */
  | { readonly kind: "close" }
  | { readonly kind: "statistics"; readonly id: number }
  | { readonly kind: "memory"; readonly id: number }
  /** An NBD connection is the lane's from now on. */
  | { readonly kind: "nbd"; readonly descriptor: number; readonly peer: string }
  | { readonly kind: "session"; readonly id: number; readonly request: SessionControlRequest }
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
  | { readonly kind: "memory"; readonly id: number; readonly memory: MemoryStatistics }
  | { readonly kind: "session"; readonly id: number; readonly status: SessionStatus | LaneError }
  /** An NBD connection of the lane is gone. */
  | { readonly kind: "nbdGone" }
  | { readonly kind: "sessionTold"; readonly isUp: boolean; readonly text: string }
  | {
      readonly kind: "pathTold";
      readonly isUp: boolean;
      readonly path: string;
      readonly text: string;
    }
  /** Bytes of a trace; null: it has ended. */
  | { readonly kind: "traced"; readonly id: number; readonly bytes: Uint8Array | null };

// SPDX-License-Identifier: MIT
// What a client session and its paths have counted, as plain data. Names are those of Linux's sysfs
// (`/sys/class/rtrs-client/SESSION/`) where it has them.

import { z } from "zod";
import type { IpAddress } from "../../base/index.js";
import { RTRS_PATH_POLICIES, type RtrsClient, type RtrsClientPath } from "../../rtrs/index.js";
import { pathName } from "./path-spec.js";

const count = z.number().nonnegative();

const CONNECTION = z.object({
  cid: count,
  requests: count,
  bytes: count,
  inflight: count,
});

/** One path; `latency` is of answers, in microseconds. */
const PATH = z.object({
  /** Its name in sysfs: `ip:SOURCE@ip:DESTINATION`. */
  path: z.string(),
  src_addr: z.string(),
  dst_addr: z.string(),
  state: z.enum(["connected", "disconnected"]),
  /** The state machine's own word, and attempts since the path was last connected. */
  stage: z.string(),
  attempts: count,
  last_error: z.string().nullable(),
  hca_name: z.string(),
  hca_port: count,
  /** Nanoseconds from the last measured heartbeat to its acknowledgement; 0: none yet. */
  cur_latency: count,
  stats: z.object({
    rdma: z.object({
      reads: count,
      read_bytes: count,
      writes: count,
      write_bytes: count,
      inflight: count,
      failed_over: count,
    }),
    reconnects: z.object({ ok: count, failed: count }),
    cpu_migration_from: count,
    cpu_migration_to: count,
  }),
  latency: z.object({
    count,
    mean_us: count,
    max_us: count,
    /** Null: no bound. */
    histogram: z.array(z.object({ below_us: count.nullable(), count })),
  }),
  connections: z.array(CONNECTION),
});
export type PathStatus = z.infer<typeof PATH>;

export const SESSION_STATUS = z.object({
  lane: z.number().default(0),
  sessname: z.string(),
  state: z.string(),
  mpath_policy: z.enum(RTRS_PATH_POLICIES),
  /** -1: endless. */
  max_reconnect_attempts: z.number(),
  queue_depth: count,
  inflight: count,
  completed: count,
  reissued: count,
  reconnects: count,
  paths: z.array(PATH),
});
export type SessionStatus = z.infer<typeof SESSION_STATUS>;

/** Copies everything out; costs nothing until it is asked for. */
export function sessionStatus(client: RtrsClient, own: readonly IpAddress[]): SessionStatus {
  const { inflight, completed, reissued, reconnects } = client.counters();
  return {
    lane: 0,
    sessname: client.sessionName,
    state: client.state,
    mpath_policy: client.policy,
    max_reconnect_attempts: -1,
    queue_depth: client.queueDepth,
    inflight,
    completed,
    reissued,
    reconnects,
    paths: client.paths.map((path) => pathStatus(path, own)),
  };
}

function pathStatus(path: RtrsClientPath, own: readonly IpAddress[]): PathStatus {
  const { counters } = path;
  const { latency } = counters;
  return {
    path: pathName(path),
    src_addr: `ip:${path.source}`,
    dst_addr: `ip:${path.destination}`,
    state: path.state === "CONNECTED" ? "connected" : "disconnected",
    stage: path.state,
    attempts: path.attemptCount,
    last_error: path.lastError === null ? null : path.lastError.message,
    hca_name: "farpage0",
    hca_port: own.findIndex((address) => address.equals(path.source)) + 1,
    cur_latency: path.latencyNs,
    stats: {
      rdma: {
        reads: counters.reads,
        read_bytes: counters.readBytes,
        writes: counters.writes,
        write_bytes: counters.writeBytes,
        inflight: path.inflight,
        failed_over: counters.failedOver,
      },
      reconnects: { ok: counters.reconnectsOk, failed: counters.reconnectsFailed },
      // A session has one lane: its requests are answered where they were made.
      cpu_migration_from: 0,
      cpu_migration_to: 0,
    },
    latency: {
      count: latency.count,
      mean_us: Math.round(latency.meanNs / 100) / 10,
      max_us: Math.round(latency.maxNs / 100) / 10,
      histogram: latency.buckets().map((bucket) => ({
        below_us: Number.isFinite(bucket.limitUs) ? bucket.limitUs : null,
        count: bucket.count,
      })),
    },
    connections: counters.connections.map(({ requests, bytes, inflight }, cid) => ({
      cid,
      requests,
      bytes,
      inflight,
    })),
  };
}

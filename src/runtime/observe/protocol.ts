// SPDX-License-Identifier: MIT
// What is said on a control socket: a request is one JSON object on a line of its own, and so is
// its answer. After the answer to `trace` the instance sends the bytes of a pcapng file until the
// trace is over, and the asker may say `stop`. Both sides check everything that they read.

import { z } from "zod";
import { RTRS_PATH_POLICIES } from "../../rtrs/index.js";

/** Changes when an older asker would misunderstand. */
export const CONTROL_VERSION = 1;
/** Longest request, and longest answer. */
export const REQUEST_BYTES_MAX = 4096;
export const REPLY_BYTES_MAX = 16 << 20;

const count = (max: number) => z.number().int().min(1).max(max);

/** What an instance can be asked, by the value of `request`. */
export const REQUESTS = {
  hello: z.strictObject({ request: z.literal("hello") }),
  stat: z.strictObject({ request: z.literal("stat") }),
  memory: z.strictObject({ request: z.literal("memory") }),
  trace: z.strictObject({
    request: z.literal("trace"),
    /** Addresses of peers; QPNs, of either side. */
    peers: z.array(z.string().max(64)).max(64).optional(),
    qpns: z.array(z.number().int().min(0).max(0xff_ffff)).max(64).optional(),
    packets: count(Number.MAX_SAFE_INTEGER).optional(),
    snapBytes: z.number().int().min(64).max(65_535).optional(),
    ringBytes: z.number().int().positive().optional(),
  }),
  stop: z.strictObject({ request: z.literal("stop") }),
  /** Of instances with a client session: its state, after these changes. */
  session: z.strictObject({
    request: z.literal("session"),
    policy: z.enum(RTRS_PATH_POLICIES).optional(),
    addPaths: z.array(z.string().max(128)).max(16).optional(),
    removePaths: z.array(z.string().max(128)).max(16).optional(),
    /** Counters from 0 again. */
    reset: z.boolean().optional(),
  }),
} as const;

export const REQUEST = z.discriminatedUnion("request", [
  REQUESTS.hello,
  REQUESTS.stat,
  REQUESTS.memory,
  REQUESTS.trace,
  REQUESTS.stop,
  REQUESTS.session,
]);
export type ControlRequest = z.infer<typeof REQUEST>;
export type TraceControlRequest = z.infer<typeof REQUESTS.trace>;
export type SessionControlRequest = z.infer<typeof REQUESTS.session>;

/** Who an instance is. */
export const HELLO = z.object({
  version: z.number(),
  pid: z.number().int().positive(),
  /** The command: "serve". */
  name: z.string(),
  /** Its state folder, null where it has none. */
  data: z.string().nullable(),
  addresses: z.array(z.string()),
  startedMs: z.number(),
});
export type Hello = z.infer<typeof HELLO>;

export const FAILURE = z.object({ ok: z.literal(false), code: z.string(), text: z.string() });
export const SUCCESS = z.looseObject({ ok: z.literal(true) });
export const REPLY = z.union([FAILURE, SUCCESS]);

// SPDX-License-Identifier: MIT
// The commands' options, checked: what the command line handed over as text becomes numbers,
// addresses and endpoints, or a FarpageError that says which flag is wrong and what it takes.

import { homedir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import {
  FarpageError,
  IpAddress,
  parseAccessRule,
  parseExport,
  parseNbdEndpoint,
  parsePath,
  parseSize,
  parseVolume,
  RTRS_PATH_POLICIES,
} from "../runtime/index.js";
import { PERF_KINDS, PERF_VERBS } from "../tools/index.js";

/** What every command takes. */
export const COMMON = {
  json: z.boolean(),
  verbose: z.boolean(),
  backend: z.enum(["auto", "native", "node"]),
  segmentation: z.boolean(),
  trace: z.string().optional(),
};

export const wholeNumber = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d+$/, "not a whole number")
    .transform(Number)
    .refine((value) => value >= min && value <= max, `${min} to ${max} is wanted`);

/** Both commands with an NBD endpoint have it. */
const nbdConnections = wholeNumber(1, 4096);

/** Node's timers go off at once beyond 2^31 milliseconds. */
const SECONDS_MAX = 2_000_000;

export const seconds = z
  .string()
  .regex(/^\d+(\.\d+)?$/, "not a number of seconds")
  .transform(Number)
  .refine((value) => value <= SECONDS_MAX, `at most ${SECONDS_MAX} seconds, 23 days`);

/** Lets a parser that throws FarpageError report through zod, with the flag's name. */
export function parsed<T>(parse: (text: string) => T) {
  return z.string().transform((text, context): T => {
    try {
      return parse(text);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      context.addIssue({ code: "custom", message });
      return z.NEVER;
    }
  });
}

export const ipAddress = parsed((text) => IpAddress.parse(text));

export const UP_OPTIONS = z.object({
  ...COMMON,
  data: z.string().optional(),
  size: parsed(parseSize).optional(),
  nbd: parsed(parseNbdEndpoint).optional(),
  nbdConnections,
  address: z.array(ipAddress).length(2, "two addresses are wanted: server, client").optional(),
});

export const SERVE_OPTIONS = z.object({
  ...COMMON,
  address: z.array(ipAddress).min(1),
  volume: z.array(parsed(parseVolume)).default([]),
  copy: z.array(parsed(parseExport)).default([]),
  copyPort: wholeNumber(1, 65_535),
  allow: z.array(parsed(parseAccessRule)).default([]),
  allowFile: z.string().min(1).optional(),
  port: wholeNumber(1, 65_535),
  data: z.string().optional(),
  queueDepth: wholeNumber(1, 65_535),
  chunk: parsed(parseSize),
  sessions: wholeNumber(1, 65_535),
  paths: wholeNumber(1, 128),
  lanes: wholeNumber(1, 64),
  untilStdinEnds: z.boolean(),
  plainLog: z.boolean(),
  alwaysInvalidate: z.boolean(),
});

/** By Linux's names, short and long. */
const policy = z
  .string()
  .transform((name) => POLICY_NAMES[name] ?? name)
  .pipe(
    z.enum(RTRS_PATH_POLICIES, `one of ${RTRS_PATH_POLICIES.join(", ")} (rr, mi, ml) is wanted`),
  );
const POLICY_NAMES: Readonly<Record<string, string>> = {
  rr: "round-robin",
  mi: "min-inflight",
  ml: "min-latency",
};

export const ATTACH_OPTIONS = z.object({
  ...COMMON,
  address: z.array(ipAddress, "a local address to connect from is wanted").min(1),
  path: z.array(parsed(parsePath)).default([]),
  policy: policy.optional(),
  nbd: parsed(parseNbdEndpoint).optional(),
  nbdConnections,
  data: z.string().optional(),
  readonly: z.boolean(),
  connections: wholeNumber(1, 64),
  lanes: wholeNumber(1, 64),
  session: z.string().optional(),
  timeout: seconds,
  ioTimeout: seconds.optional(),
  alwaysInvalidate: z.boolean(),
});

export const COPY_OPTIONS = z.object({
  ...COMMON,
  address: ipAddress.optional(),
  connections: wholeNumber(1, 64),
  timeout: seconds,
  quiet: z.boolean(),
});

/** `attach` on an instance that runs. */
export const SESSION_OPTIONS = z.object({
  json: z.boolean(),
  data: z.string().optional(),
  addPath: z.array(z.string()).default([]),
  removePath: z.array(z.string()).default([]),
  policy: policy.optional(),
  resetCounters: z.boolean(),
});

export const BENCH_OPTIONS = z.object({
  ...COMMON,
  duration: seconds.refine((value) => value > 0, "more than 0 seconds are wanted"),
  size: parsed(parseSize).optional(),
  address: z
    .array(ipAddress)
    .length(2, "two addresses are wanted: responder, initiator")
    .optional(),
  role: z.enum(["responder"]).optional(),
});

export const PERF_OPTIONS = z.object({
  ...COMMON,
  address: z.array(ipAddress).min(1).optional(),
  verb: z.enum(PERF_VERBS, `one of ${PERF_VERBS.join(", ")} is wanted`),
  kind: z.enum(PERF_KINDS, `one of ${PERF_KINDS.join(", ")} is wanted`),
  size: parsed(parseSize).optional(),
  all: z.boolean(),
  iterations: wholeNumber(1, 1e9).optional(),
  duration: seconds.refine((value) => value > 0, "more than 0 seconds are wanted").optional(),
  port: wholeNumber(0, 65_535),
  cm: z.boolean(),
  connection: z.enum(["RC", "UD"]),
  bidirectional: z.boolean(),
  mtu: z.enum(["256", "512", "1024", "2048", "4096"]).transform(Number).optional(),
  txDepth: wholeNumber(1, 16_000),
  rxDepth: wholeNumber(1, 16_000),
  outs: wholeNumber(1, 128),
  qpTimeout: wholeNumber(1, 31),
});

/** A packet filter: a QPN, decimal or hexadecimal, or the address of a peer. */
const filter = parsed((text): number | IpAddress => {
  const qpn = /^(?:qpn=)?(0x[0-9a-f]+|\d+)$/i.exec(text)?.[1];
  if (qpn === undefined) return IpAddress.parse(text);
  const value = Number(qpn);
  if (value > 0xff_ffff) throw new FarpageError("EINVAL", `${text}: a QPN has 24 bits`);
  return value;
});

export const TRACE_OPTIONS = z.object({
  json: z.boolean(),
  write: z.string().min(1),
  data: z.string().optional(),
  duration: seconds.optional(),
  packets: wholeNumber(1, Number.MAX_SAFE_INTEGER).optional(),
  filter: z.array(filter).default([]),
  snap: wholeNumber(64, 65_535).optional(),
  buffer: parsed(parseSize).optional(),
});

export const STAT_OPTIONS = z.object({
  json: z.boolean(),
  data: z.string().optional(),
});

/**
 * Checks what commander handed over.
 * @throws FarpageError EINVAL naming the flag.
 */
export function checkOptions<T>(schema: z.ZodType<T>, raw: unknown): T {
  const result = schema.safeParse(raw);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const flag = String(issue?.path[0] ?? "").replace(/[A-Z]/g, (c) => `-${c.toLowerCase()}`);
  throw new FarpageError("EINVAL", `--${flag}: ${issue?.message ?? "invalid"}`);
}

/** Where state goes when nobody says: the XDG state folder of this user. */
export function defaultDataDirectory(): string {
  const base = process.env["XDG_STATE_HOME"];
  return join(
    base === undefined || base === "" ? join(homedir(), ".local", "state") : base,
    "farpage",
  );
}

// SPDX-License-Identifier: MIT
// What a client session and a server can be told, with what they do when told nothing. Times are
// nanoseconds. Every bound on memory is here.

import { FarpageError, type IpAddress } from "../base/index.js";
import {
  isRtrsSessionName,
  RTRS_CHUNK_BYTES_MIN,
  RTRS_CONNECTION_COUNT_MAX,
  RTRS_QUEUE_DEPTH_MAX,
  rtrsFitsImmediate,
} from "../wire/index.js";
import type { SessionRoster } from "./session-roster.js";

export const RTRS_PORT = 1234;
/** Paths of a session (facts page 2): Linux's bound. */
export const RTRS_PATH_COUNT_MAX = 128;
/** The part of a chunk that is kept for headers (facts page 2 and 6): Linux's page. */
export const RTRS_HEADER_BYTES = 4096;

const MILLISECOND = 1_000_000;
const SECOND = 1_000 * MILLISECOND;

/** The two ends of a path: addresses of this host and of the server. */
export interface RtrsPathAddresses {
  readonly source: IpAddress;
  readonly destination: IpAddress;
}

/** How a session chooses the path of a request; Linux's three, by Linux's names. */
export const RTRS_PATH_POLICIES = ["round-robin", "min-inflight", "min-latency"] as const;
export type RtrsPathPolicy = (typeof RTRS_PATH_POLICIES)[number];

export interface RtrsClientOptions {
  /** Unique on the server; 1 .. 254 bytes without "/" and ".". */
  readonly sessionName: string;
  /** 1 .. 128 to begin with, no two alike; the first makes the session. */
  readonly paths: readonly RtrsPathAddresses[];
  /** Default `"min-inflight"`, as Linux's. */
  readonly policy?: RtrsPathPolicy;
  /** The server's port, default 1234. */
  readonly port?: number;
  /**
   * Connections per path that carry requests, besides the service connection; 1 .. 4095, default 1.
   */
  readonly connectionCount?: number;
  /** Room for a user message, default 512; with headers within the server's `headerBytesMax`. */
  readonly userBytesMax?: number;
  /**
   * Reads go through a key of their own, which is valid while the request is outstanding and for
   * its bytes alone (default true): the client invalidates it before the request completes. False:
   * through the long-lived key of the whole registered memory.
   */
  readonly invalidate?: boolean;
  /**
   * The server is asked to invalidate that key as well, by SEND with invalidate before its reply,
   * as Linux's client does (default false: one packet more per read, and no safer).
   */
  readonly remoteInvalidate?: boolean;
  /**
   * Requests that `acquireReserved` alone may take, 0 .. 16, default 1; `acquire` has so many fewer
   * than the server has chunks.
   */
  readonly reservedRequests?: number;
  /** Most permits to use, whatever the server offers; default 1024. */
  readonly queueDepthMax?: number;
  /** First wait before connecting again, and the bound to which it doubles; 50 ms and 5 s. */
  readonly reconnectDelayNs?: number;
  readonly reconnectDelayNsMax?: number;
  /** Attempts in a row before giving up, default Infinity; counts the first connect too. */
  readonly connectAttemptsMax?: number;
  /**
   * Each stage of connecting (one connection, the info exchange) may take this long, default 5 s.
   */
  readonly connectTimeoutNs?: number;
  /**
   * How long a disconnect may take before the connection is dropped unilaterally, default 500 ms.
   */
  readonly disconnectTimeoutNs?: number;
  /** Requests still waiting when the session has been down this long fail; default Infinity. */
  readonly requestTimeoutNs?: number;
  /**
   * A request that a connected server has not answered for so long makes the session connect anew,
   * default 60 s; with each reissue it gets twice the time. Found by a quarter of it late.
   */
  readonly answerTimeoutNs?: number;
  /** Heartbeat interval (default 5 s) and how many may be missed (default 5). */
  readonly heartbeatIntervalNs?: number;
  readonly heartbeatMissedMax?: number;
}

export interface RtrsServerOptions {
  /** Addresses to listen on; null = all of the host's. */
  readonly addresses?: readonly IpAddress[] | null;
  /** Default 1234. */
  readonly port?: number;
  /** Requests outstanding per session, chunks per path; 1 .. 65,535, default 512. */
  readonly queueDepth?: number;
  /**
   * Bytes of a chunk: a power of two, at least 8192, default 131,072 (4096 of them for headers).
   */
  readonly chunkBytes?: number;
  /**
   * A chunk's key is invalid while the server looks at the chunk, and each reply carries a fresh
   * one (default true). False: keys stay valid for the session; what a late write can then do is
   * told in docs/rtrs.md.
   */
  readonly alwaysInvalidate?: boolean;
  /**
   * With `alwaysInvalidate`: a request of at most so many bytes of data and user message is copied
   * to memory that the client can't reach, and the chunk keeps its key: cheaper than to take it
   * (default 8,192; bench/README.md has where the two meet). 0: never. Each chunk has so much
   * memory more.
   */
  readonly copyBytesMax?: number;
  /** Sessions at a time, default 16. */
  readonly sessionCountMax?: number;
  /** Paths of one session, 1 .. 128, default 4; a further one is refused with ECONNRESET. */
  readonly pathCountMax?: number;
  /** Connections of one path, 1 .. 4096, default 256. */
  readonly connectionCountMax?: number;
  /** Longest user message that reaches the user, default 512; longer ones get EMSGSIZE. */
  readonly userBytesMax?: number;
  /** A path must be through with connecting in this time, default 30 s. */
  readonly connectTimeoutNs?: number;
  /** How long a disconnect may take before the connection is dropped unilaterally, default 2 s. */
  readonly disconnectTimeoutNs?: number;
  readonly heartbeatIntervalNs?: number;
  readonly heartbeatMissedMax?: number;
  /** Where the servers on the other lanes of the host have their sessions; none by default. */
  readonly roster?: SessionRoster | null;
}

export type ClientSettings = Readonly<Required<RtrsClientOptions>>;
export type ServerSettings = Readonly<Required<RtrsServerOptions>>;

/** @throws FarpageError EINVAL naming the option that is out of range. */
export function clientSettings(options: RtrsClientOptions): ClientSettings {
  if (!isRtrsSessionName(options.sessionName)) {
    invalid(`session name "${options.sessionName}" must be 1 to 254 bytes without "/" and "."`);
  }
  checkPaths(options.paths);
  const policy = options.policy ?? "min-inflight";
  if (!RTRS_PATH_POLICIES.includes(policy)) {
    invalid(`policy is "${policy}", must be one of ${RTRS_PATH_POLICIES.join(", ")}`);
  }
  return {
    sessionName: options.sessionName,
    paths: options.paths,
    policy,
    port: integer("port", options.port ?? RTRS_PORT, 1, 65_535),
    connectionCount: integer(
      "connectionCount",
      options.connectionCount ?? 1,
      1,
      RTRS_CONNECTION_COUNT_MAX - 1,
    ),
    userBytesMax: integer("userBytesMax", options.userBytesMax ?? 512, 1, RTRS_HEADER_BYTES - 24),
    invalidate: options.invalidate ?? true,
    remoteInvalidate: options.remoteInvalidate ?? false,
    reservedRequests: integer("reservedRequests", options.reservedRequests ?? 1, 0, 16),
    queueDepthMax: integer("queueDepthMax", options.queueDepthMax ?? 1024, 1, RTRS_QUEUE_DEPTH_MAX),
    reconnectDelayNs: duration("reconnectDelayNs", options.reconnectDelayNs, 50 * MILLISECOND),
    reconnectDelayNsMax: duration("reconnectDelayNsMax", options.reconnectDelayNsMax, 5 * SECOND),
    connectAttemptsMax: count("connectAttemptsMax", options.connectAttemptsMax),
    connectTimeoutNs: duration("connectTimeoutNs", options.connectTimeoutNs, 5 * SECOND),
    disconnectTimeoutNs: duration(
      "disconnectTimeoutNs",
      options.disconnectTimeoutNs,
      500 * MILLISECOND,
    ),
    requestTimeoutNs: duration("requestTimeoutNs", options.requestTimeoutNs, Infinity),
    answerTimeoutNs: duration("answerTimeoutNs", options.answerTimeoutNs, 60 * SECOND),
    ...heartbeatSettings(options),
  };
}

/** @throws FarpageError EINVAL naming the option that is out of range. */
export function serverSettings(options: RtrsServerOptions): ServerSettings {
  const queueDepth = integer("queueDepth", options.queueDepth ?? 512, 1, RTRS_QUEUE_DEPTH_MAX);
  const chunkBytes = integer(
    "chunkBytes",
    options.chunkBytes ?? 131_072,
    RTRS_CHUNK_BYTES_MIN,
    1 << 28,
  );
  if ((chunkBytes & (chunkBytes - 1)) !== 0) invalid(`chunkBytes ${chunkBytes} is no power of two`);
  if (!rtrsFitsImmediate(queueDepth, chunkBytes)) {
    invalid(`queueDepth ${queueDepth} x chunkBytes ${chunkBytes} do not fit the 28-bit immediate`);
  }
  return {
    addresses: options.addresses ?? null,
    port: integer("port", options.port ?? RTRS_PORT, 1, 65_535),
    queueDepth,
    chunkBytes,
    alwaysInvalidate: options.alwaysInvalidate ?? true,
    copyBytesMax: integer("copyBytesMax", options.copyBytesMax ?? 8192, 0, 1 << 28),
    sessionCountMax: integer("sessionCountMax", options.sessionCountMax ?? 16, 1, 65_535),
    pathCountMax: integer("pathCountMax", options.pathCountMax ?? 4, 1, RTRS_PATH_COUNT_MAX),
    connectionCountMax: integer(
      "connectionCountMax",
      options.connectionCountMax ?? 256,
      1,
      RTRS_CONNECTION_COUNT_MAX,
    ),
    userBytesMax: integer("userBytesMax", options.userBytesMax ?? 512, 0, RTRS_HEADER_BYTES - 24),
    connectTimeoutNs: duration("connectTimeoutNs", options.connectTimeoutNs, 30 * SECOND),
    disconnectTimeoutNs: duration("disconnectTimeoutNs", options.disconnectTimeoutNs, 2 * SECOND),
    ...heartbeatSettings(options),
    roster: options.roster ?? null,
  };
}

function checkPaths(paths: readonly RtrsPathAddresses[]): void {
  if (paths.length < 1 || paths.length > RTRS_PATH_COUNT_MAX) {
    invalid(`a session has 1 to ${RTRS_PATH_COUNT_MAX} paths, not ${paths.length}`);
  }
  for (const [index, path] of paths.entries()) {
    if (paths.some((other, at) => at < index && joinsTheSame(other, path))) {
      invalid(`the path from ${path.source} to ${path.destination} is named twice`);
    }
  }
}

export function joinsTheSame(one: RtrsPathAddresses, other: RtrsPathAddresses): boolean {
  return one.source.equals(other.source) && one.destination.equals(other.destination);
}

function heartbeatSettings(options: {
  readonly heartbeatIntervalNs?: number;
  readonly heartbeatMissedMax?: number;
}): { heartbeatIntervalNs: number; heartbeatMissedMax: number } {
  return {
    heartbeatIntervalNs: duration("heartbeatIntervalNs", options.heartbeatIntervalNs, 5 * SECOND),
    heartbeatMissedMax: integer("heartbeatMissedMax", options.heartbeatMissedMax ?? 5, 1, 1000),
  };
}

function integer(name: string, value: number, min: number, max: number): number {
  if (!Number.isInteger(value) || value < min || value > max) {
    invalid(`${name} is ${value}, must be an integer from ${min} to ${max}`);
  }
  return value;
}

function duration(name: string, value: number | undefined, otherwise: number): number {
  const result = value ?? otherwise;
  if (!(result > 0)) invalid(`${name} is ${result}, must be a positive number of nanoseconds`);
  return result;
}

function count(name: string, value: number | undefined): number {
  const result = value ?? Infinity;
  if (!(result >= 1)) invalid(`${name} is ${result}, must be at least 1`);
  return result;
}

function invalid(message: string): never {
  throw new FarpageError("EINVAL", message);
}

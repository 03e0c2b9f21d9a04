// SPDX-License-Identifier: MIT
// One lane of a client host: a session with the server, its volumes, and the NBD connections that
// use them here. A host has one or more; each is whole in itself.

import { hostname } from "node:os";
import { FarpageError, type IpAddress } from "../base/index.js";
import { NbdExports, NbdServer } from "../nbd/index.js";
import type { StreamListener } from "../os/index.js";
import { RNBD_ACCESS, RnbdClient, type RnbdDevice, type SessionGroup } from "../rnbd/index.js";
import { RtrsClient, type RtrsPathPolicy } from "../rtrs/index.js";
import type { Failure } from "./failure.js";
import type { Log } from "./log.js";
import { NbdEndpoint } from "./nbd-endpoint.js";
import type { SessionControlRequest } from "./observe/index.js";
import {
  controlSession,
  type PathListener,
  type PathSpec,
  pairPaths,
  type SessionStatus,
  tellOfPaths,
} from "./session/index.js";
import type { Stack } from "./stack.js";
import { formatSize, type RnbdUri } from "./uri.js";

export interface AttachLaneOptions {
  /** Each of its addresses is a path, from `addresses` of the same family in turn. */
  readonly target: RnbdUri;
  /** Further paths of the session. */
  readonly morePaths?: readonly PathSpec[];
  /** How paths are chosen, default min-inflight. */
  readonly policy?: RtrsPathPolicy;
  /** Further volumes of the same server, opened in the same session; no name twice. */
  readonly moreVolumes?: readonly string[];
  readonly readOnly?: boolean;
  /** NBD clients served at once, 1 .. 4,096, default 16: the bound of memory. */
  readonly nbdConnectionCountMax?: number;
  /** RC connections that carry requests, default 1. */
  readonly connectionCount?: number;
  /** Give the server a key to a read's buffer only while the read is under way (default). */
  readonly invalidate?: boolean;
  /** Unique on the server; default made from this machine's name. */
  readonly sessionName?: string;
  /** How long `start` tries to reach the server and to open the volume, default 30,000. */
  readonly connectTimeoutMs?: number;
  /** Requests fail with ETIMEDOUT when the server has been away for so long; default never. */
  readonly ioTimeoutMs?: number;
  /**
   * How long clients, the last flush and the server each get when the host closes, default 10,000.
   */
  readonly closeTimeoutMs?: number;
  /**
   * The session is lost (false), or is back (true), and what that means in a sentence. Where nobody
   * listens the log says it.
   */
  readonly onSession?: (up: boolean, text: string) => void;
  /** The same for a path, while the session has several. */
  readonly onPath?: PathListener;
  readonly log: Log;
}

/** NBD clients at once where nobody says how many. */
const NBD_CONNECTION_COUNT_MAX = 16;
const CONNECT_TIMEOUT_MS = 30_000;
/**
 * A client that died holds its volume until the server has missed it; we wait for that. The server
 * says a word to it within 5 s, and gives up after eight timeouts of 0.54 s, of up to 2.15 s each
 * where answers have been slow.
 */
const BUSY_RETRY_MS = 25_000;
/** How often an attempt to attach is looked at for whether it can come to anything. */
const LOOK_MS = 50;
const BUSY_PAUSE_MS = 500;
const CLOSE_TIMEOUT_MS = 10_000;

export class AttachLane {
  readonly devices: readonly RnbdDevice[];
  readonly endpoint: NbdEndpoint;
  private readonly stack: Stack;
  private readonly client: RnbdClient;
  private readonly session: RtrsClient;
  private readonly log: Log;
  private readonly closeTimeoutMs: number;

  private constructor(
    stack: Stack,
    parts: {
      readonly client: RnbdClient;
      readonly session: RtrsClient;
      readonly devices: readonly RnbdDevice[];
      readonly endpoint: NbdEndpoint;
    },
    options: AttachLaneOptions,
  ) {
    this.stack = stack;
    this.client = parts.client;
    this.session = parts.session;
    this.devices = parts.devices;
    this.endpoint = parts.endpoint;
    this.log = options.log;
    this.closeTimeoutMs = options.closeTimeoutMs ?? CLOSE_TIMEOUT_MS;
  }

  /**
   * Connects, opens the volumes and serves NBD clients.
   * @param listener where they come from; null: by `endpoint.adopt`.
   * @param group the sessions of all lanes; null where there is but one.
   * @throws FarpageError as `AttachHost.start`.
   */
  static async open(
    stack: Stack,
    listener: StreamListener | null,
    options: AttachLaneOptions,
    failure: Failure,
    group: SessionGroup | null,
  ): Promise<AttachLane> {
    const { client, session } = openClient(options, stack, failure, group);
    const devices = await openVolumes(options, { stack, client, session, failure });
    const exports = new NbdExports();
    for (const device of devices) {
      exports.add(device.name, device, `rnbd volume on ${options.target.addresses[0]}`);
      warnOfResize(device, options.log);
    }
    const share = nbdShare(options, group, client);
    const limits = share === undefined ? {} : { connectionCountMax: share };
    const server = new NbdServer({ exports, memory: stack.memory, limits });
    for (const memory of server.memories) client.registerMemory(memory);
    const endpoint = new NbdEndpoint(server, listener, options.log);
    stack.lane.add(endpoint);
    return new AttachLane(stack, { client, session, devices, endpoint }, options);
  }

  /** Whether the server lets the sessions of all lanes write together. */
  get isInGroup(): boolean {
    return this.client.isInGroup;
  }

  /**
   * Changes the session's paths and policy, and tells how it is then.
   * @throws FarpageError as `controlSession`.
   */
  control(change: Omit<SessionControlRequest, "request">): SessionStatus {
    const { addresses, device, lane } = this.stack;
    try {
      const request = { request: "session", ...change } as const;
      const status = controlSession(this.session, addresses, request);
      return { ...status, lane: device.lane.index };
    } finally {
      lane.wake();
    }
  }

  /**
   * Finishes the requests under way, flushes, closes the volumes and the session. Where the server
   * is away, what waits for it is given up after a while, and the log says so.
   */
  async finish(): Promise<void> {
    this.endpoint.drain();
    this.stack.lane.wake();
    const drained = await this.stack.until(() => this.endpoint.isIdle, this.closeTimeoutMs);
    if (!drained) {
      this.log.error("requests were still waiting for the server; they are lost");
      this.endpoint.abort();
    } else if (this.client.isConnected) {
      // The server may go away meanwhile, and a flush would wait for its return.
      const written = this.devices.filter(({ limits }) => !limits.readOnly);
      const flushes = written.map((device) => this.stack.flush(device, this.closeTimeoutMs));
      for (const flushed of await Promise.allSettled(flushes)) {
        if (flushed.status === "rejected") this.log.error((flushed.reason as Error).message);
      }
    }
    this.endpoint.sayUnsaid();
    if (this.devices.every(({ inflight }) => inflight === 0)) {
      this.client.close();
      this.stack.lane.wake();
      await this.stack.until(() => this.client.isClosed, this.closeTimeoutMs);
    }
  }
}

/**
 * How many of the NBD clients are this lane's: all where there is one, or can be but one, since the
 * server knows no groups.
 */
function nbdShare(
  { nbdConnectionCountMax, readOnly }: AttachLaneOptions,
  group: SessionGroup | null,
  client: RnbdClient,
): number | undefined {
  if (group === null || (readOnly !== true && !client.isInGroup)) return nbdConnectionCountMax;
  return Math.ceil((nbdConnectionCountMax ?? NBD_CONNECTION_COUNT_MAX) / group.laneCount);
}

function openClient(
  options: AttachLaneOptions,
  stack: Stack,
  failure: Failure,
  group: SessionGroup | null,
): { readonly client: RnbdClient; readonly session: RtrsClient } {
  const { target } = options;
  const paths = pairPaths(target.addresses, options.morePaths ?? [], stack.addresses);
  const environment = {
    context: stack.context,
    cm: stack.cm,
    memory: stack.memory,
    random: stack.random.fork("rtrs"),
  };
  const settings = {
    sessionName: options.sessionName ?? defaultSessionName(stack.random.nextU32()),
    paths,
    port: target.port,
    policy: options.policy ?? "min-inflight",
    connectionCount: options.connectionCount ?? 1,
    invalidate: options.invalidate ?? true,
    ...(group === null ? {} : { group }),
    ...(options.ioTimeoutMs === undefined ? {} : { ioTimeoutNs: options.ioTimeoutMs * 1e6 }),
  };
  let session!: RtrsClient;
  const client = new RnbdClient(environment, settings, (user) => {
    session = new RtrsClient(environment, settings, user);
    return session;
  });
  tellOfPaths(client, session, options.log, options.onPath);
  tellOfSession(client, options, paths[0]?.destination as IpAddress);
  client.onFailed = (error) => failure.fail(error);
  client.connect();
  stack.lane.add(client);
  return { client, session };
}

/** Has people told what the session and its devices go through. */
function tellOfSession(client: RnbdClient, options: AttachLaneOptions, server: IpAddress): void {
  const { log, ioTimeoutMs } = options;
  const waiting =
    ioTimeoutMs === undefined
      ? "requests wait until it is back"
      : `requests wait for ${ioTimeoutMs / 1000} s, then fail with ETIMEDOUT`;
  const refusals = new Map<string, string>();
  let wasUp = false;
  client.onUp = () => {
    refusals.clear();
    const text = `connected to ${server} again`;
    if (!wasUp) wasUp = true;
    else if (options.onSession === undefined) log.info(text);
    else options.onSession(true, text);
  };
  client.onDown = () => {
    const text = `lost the session with ${server}; ${waiting}`;
    if (options.onSession === undefined) log.warn(text);
    else options.onSession(false, text);
  };
  client.onRefused = (device, error) => {
    const fate = device.state === "CLOSED" ? "all requests fail; attach it anew" : waiting;
    const refusal = `${server}: ${error.message}; ${fate}`;
    // It is asked for each second.
    if (refusals.get(device.name) !== refusal) log.warn(refusal);
    refusals.set(device.name, refusal);
  };
}

/** NBD can't tell its clients: those that are connected go on with the old size. */
function warnOfResize(device: RnbdDevice, log: Log): void {
  let oldBytes = device.limits.sizeBytes;
  device.onResize = () => {
    const newBytes = device.limits.sizeBytes;
    const less = newBytes < oldBytes ? ", and what lay behind the end is gone" : "";
    log.warn(
      `volume "${device.name}" has another size now: ${sizeText(newBytes)}, before ` +
        `${sizeText(oldBytes)}${less}; nbd clients see it when they connect anew`,
    );
    oldBytes = newBytes;
  };
}

/** Sizes that differ must not look the same. */
function sizeText(bytes: number): string {
  return `${formatSize(bytes)} (${bytes} bytes)`;
}

/** Unique on the server and telling people whose it is; RTRS allows neither "." nor "/". */
export function defaultSessionName(random: number): string {
  const name = hostname()
    .replace(/[^\w-]/g, "-")
    .slice(0, 200);
  return `${name}-${random.toString(16).padStart(8, "0")}`;
}

/** Opens all volumes, or none: an error says which could not be had. */
async function openVolumes(
  options: AttachLaneOptions,
  parts: Omit<Opening, "startMs">,
): Promise<RnbdDevice[]> {
  const startMs = performance.now();
  const names = [options.target.volume, ...(options.moreVolumes ?? [])];
  const devices: RnbdDevice[] = [];
  for (const name of names) {
    devices.push(await openVolume(name, options, { ...parts, startMs }));
  }
  return devices;
}

/** What opening a volume needs; `startMs` is when the attempt to attach began. */
interface Opening {
  readonly stack: Stack;
  readonly client: RnbdClient;
  readonly session: RtrsClient;
  readonly failure: Failure;
  readonly startMs: number;
}

async function openVolume(
  name: string,
  options: AttachLaneOptions,
  opening: Opening,
): Promise<RnbdDevice> {
  const { stack, client, failure, startMs } = opening;
  const { target } = options;
  const server = `${target.addresses[0]} port ${target.port}`;
  const timeoutMs = options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS;
  const patienceMs = Math.min(BUSY_RETRY_MS, timeoutMs - BUSY_PAUSE_MS);
  let isTold = false;
  for (;;) {
    const end = hopeless(opening, name, server, startMs + timeoutMs);
    try {
      return await Promise.race([
        openOnce(name, options, stack, client),
        failure.promise,
        end.promise,
      ]);
    } catch (error) {
      const isBusy = error instanceof FarpageError && /^(EPERM|EBUSY)$/.test(error.code);
      const waitedMs = performance.now() - startMs + BUSY_PAUSE_MS;
      if (!isBusy || waitedMs > patienceMs) {
        throw isRefused(opening) ? error : explain(error, name, server);
      }
      if (!isTold) {
        const seconds = Math.round(patienceMs / 1000);
        options.log.warn(
          `"${name}" is held by another client; tries for ${seconds} s, in case it has died`,
        );
      }
      isTold = true;
      await new Promise((resolve) => setTimeout(resolve, BUSY_PAUSE_MS));
    } finally {
      end.stop();
    }
  }
}

function openOnce(
  name: string,
  options: AttachLaneOptions,
  stack: Stack,
  client: RnbdClient,
): Promise<RnbdDevice> {
  return new Promise((resolve, reject) => {
    const access = options.readOnly === true ? RNBD_ACCESS.RO : RNBD_ACCESS.RW;
    client.open(name, access, (error, device) => {
      if (device !== null) resolve(device);
      else reject(error);
    });
    stack.lane.wake();
  });
}

/** What the last attempt died of, in parentheses. */
function reasonOf(client: RnbdClient): string {
  return client.lastError === null ? "" : ` (${client.lastError.message})`;
}

/** Why a volume is not open when the time is over. */
function lateError(client: RnbdClient, name: string, server: string): FarpageError {
  if (client.isConnected) {
    const message = `${server} does not answer the request to open "${name}"`;
    return new FarpageError("ETIMEDOUT", message);
  }
  const reason = reasonOf(client);
  if (client.lastError?.code === "EACCES") {
    const message = `${server} refuses this client: no access rule there (--allow) is for it`;
    return new FarpageError("EACCES", message);
  }
  const hint = "is farpage serve running there, and UDP port 4791 open?";
  return new FarpageError("ETIMEDOUT", `${server} can't be reached${reason}: ${hint}`);
}

/** Whether the server's rules let in none of the paths: trying again would change nothing. */
function isRefused({ client, session }: Opening): boolean {
  if (client.isConnected) return false;
  return session.paths.every(({ lastError }) => lastError?.code === "EACCES");
}

/** Rejects when the time is over (`endMs` of `performance.now`), or all paths are refused. */
function hopeless(
  opening: Opening,
  name: string,
  server: string,
  endMs: number,
): { readonly promise: Promise<never>; stop(): void } {
  let look!: NodeJS.Timeout;
  const promise = new Promise<never>((_, reject) => {
    look = setInterval(() => {
      if (performance.now() < endMs && !isRefused(opening)) return;
      clearInterval(look);
      reject(lateError(opening.client, name, server));
    }, LOOK_MS);
    look.unref();
  });
  return { promise, stop: () => clearInterval(look) };
}

/** The server's errno in the words of somebody who wants to attach a volume. */
function explain(error: unknown, volume: string, server: string): unknown {
  if (!(error instanceof FarpageError)) return error;
  const reasons: Readonly<Record<string, string>> = {
    ENOENT: `${server} has no volume "${volume}"`,
    EPERM: `volume "${volume}" of ${server} is open for writing elsewhere; --readonly can share it`,
    EROFS: `volume "${volume}" of ${server} is read-only: attach it with --readonly`,
    EACCES: `no access rule of ${server} gives volume "${volume}" to this client (its --allow)`,
    EBUSY: `volume "${volume}" of ${server} is open elsewhere, and one of both must be alone`,
  };
  const reason = reasons[error.code];
  return reason === undefined ? error : new FarpageError(error.code, reason, { cause: error });
}

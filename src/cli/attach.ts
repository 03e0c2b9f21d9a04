// SPDX-License-Identifier: MIT
// `farpage attach`: volumes of a server as an NBD endpoint on this machine.

import { join, resolve } from "node:path";
import {
  AttachHost,
  FarpageError,
  formatSize,
  makeFolder,
  type NbdEndpointAddress,
  parseRnbdUri,
  type RnbdUri,
} from "../runtime/index.js";
import { createLog } from "./log.js";
import { observing } from "./observe.js";
import { ATTACH_OPTIONS, checkOptions, defaultDataDirectory } from "./options.js";
import type { Reporter } from "./reporter.js";
import { isAboutSession, runSession } from "./session.js";
import { type StopCause, StopSignal } from "./signals.js";

export async function runAttach(
  uris: readonly string[],
  raw: Readonly<Record<string, unknown>>,
  reporter: Reporter,
): Promise<void> {
  if (isAboutSession(uris, raw)) return runSession(uris, raw, reporter);
  const options = checkOptions(ATTACH_OPTIONS, raw);
  if (uris.length === 0) {
    throw new FarpageError("EINVAL", "name a volume: rnbd://IP[,IP…][:PORT]/NAME");
  }
  const stop = new StopSignal();
  const [target, ...more] = sameServer(uris);
  const attached = await AttachHost.start({
    addresses: options.address,
    target,
    morePaths: options.path,
    ...(options.policy === undefined ? {} : { policy: options.policy }),
    moreVolumes: more.map(({ volume }) => volume),
    nbdConnectionCountMax: options.nbdConnections,
    nbd: options.nbd ?? socketIn(options.data ?? defaultDataDirectory(), target.volume),
    readOnly: options.readonly,
    connectionCount: options.connections,
    lanes: options.lanes,
    invalidate: options.alwaysInvalidate,
    connectTimeoutMs: options.timeout * 1000,
    ...(options.session === undefined ? {} : { sessionName: options.session }),
    ...(options.ioTimeout === undefined ? {} : { ioTimeoutMs: options.ioTimeout * 1000 }),
    backend: options.backend,
    segmentation: options.segmentation,
    ...observing("attach", options),
    log: createLog(options),
    onSession: (up, text) => reporter.event(up ? "connected" : "disconnected", { text }, text),
    onPath: (up, path, text) => reporter.event(up ? "path-up" : "path-down", { path, text }, text),
  });
  reporter.event("ready", attachedFields(attached), attachedText(attached));
  let signal: StopCause;
  try {
    signal = await stop.wait(attached.failed);
  } catch (error) {
    // What closing finds is a consequence; what is told is the cause.
    await attached.close().catch((closing) => reporter.warn(String(closing)));
    throw error;
  }
  await attached.close();
  reporter.event("stopped", { signal }, "detached");
}

/** One session has one server: all URIs must name the same, each another volume of it. */
function sameServer(uris: readonly string[]): [RnbdUri, ...RnbdUri[]] {
  const targets = uris.map(parseRnbdUri) as [RnbdUri, ...RnbdUri[]];
  const serverOf = ({ addresses, port }: RnbdUri) => `${addresses.join(",")} port ${port}`;
  const names = new Set<string>();
  for (const target of targets) {
    if (serverOf(target) !== serverOf(targets[0])) {
      throw new FarpageError(
        "EINVAL",
        `one attach has one server, but ${serverOf(targets[0])} and ${serverOf(target)} are ` +
          "named: start another farpage attach, with an --address of its own, for the other",
      );
    }
    if (names.has(target.volume)) {
      throw new FarpageError("EINVAL", `volume "${target.volume}" is named twice`);
    }
    names.add(target.volume);
  }
  return targets;
}

/** Bytes that the path of a socket may have (sun_path of unix(7), without its NUL). */
const SOCKET_PATH_BYTES_MAX = 107;

/**
 * The socket's place when nobody names one.
 * @throws FarpageError ENAMETOOLONG when such a path can't be.
 */
export function socketIn(directory: string, volume: string): NbdEndpointAddress {
  const folder = resolve(directory);
  const path = join(folder, `${volume.replace(/[^\w.-]/g, "_")}.sock`);
  const bytes = Buffer.byteLength(path);
  if (bytes > SOCKET_PATH_BYTES_MAX) {
    throw new FarpageError(
      "ENAMETOOLONG",
      `the NBD socket would be "${path}", ${bytes} bytes, but the path of a socket can have ` +
        `${SOCKET_PATH_BYTES_MAX}: name a shorter one with --nbd unix:PATH, or use --nbd tcp:HOST`,
    );
  }
  makeFolder(folder, 0o700);
  return { kind: "unix", path };
}

export function attachedFields(attached: AttachHost): Readonly<Record<string, unknown>> {
  return {
    addresses: attached.addresses.map(String),
    nbd: attached.nbdUri,
    volume: attached.volume,
    sizeBytes: attached.sizeBytes,
    readOnly: attached.readOnly,
    volumes: attached.volumes.map(({ nbdUri, ...volume }) => ({ ...volume, nbd: nbdUri })),
    memoryBytesMax: attached.memoryBytesMax,
    lanes: attached.laneCount,
    backend: attached.backend,
  };
}

export function attachedText(attached: AttachHost): string {
  const { volumes } = attached;
  const memory = `memory for requests: up to ${formatSize(attached.memoryBytesMax)}`;
  const lines = volumes.map(
    ({ name, sizeBytes, readOnly }) =>
      `${name}: ${formatSize(sizeBytes)}${readOnly ? ", read-only" : ""}`,
  );
  return [...lines, memory, ...volumes.map(({ nbdUri }) => `NBD: ${nbdUri}`)].join("\n");
}

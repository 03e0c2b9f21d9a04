// SPDX-License-Identifier: MIT
// `farpage attach`: a volume of a server as an NBD endpoint on this machine.

import { mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { AttachHost, formatSize, type NbdEndpointAddress, parseRnbdUri } from "../runtime/index.js";
import { createLog } from "./log.js";
import { ATTACH_OPTIONS, checkOptions, defaultDataDirectory } from "./options.js";
import type { Reporter } from "./reporter.js";
import { type StopCause, StopSignal } from "./signals.js";

export async function runAttach(uri: string, raw: unknown, reporter: Reporter): Promise<void> {
  const options = checkOptions(ATTACH_OPTIONS, raw);
  const stop = new StopSignal();
  const target = parseRnbdUri(uri);
  const attached = await AttachHost.start({
    addresses: options.address,
    target,
    nbd: options.nbd ?? socketIn(options.data ?? defaultDataDirectory(), target.volume),
    readOnly: options.readonly,
    connectionCount: options.connections,
    invalidate: options.alwaysInvalidate,
    connectTimeoutMs: options.timeout * 1000,
    ...(options.session === undefined ? {} : { sessionName: options.session }),
    ...(options.ioTimeout === undefined ? {} : { ioTimeoutMs: options.ioTimeout * 1000 }),
    backend: options.backend,
    segmentation: options.segmentation,
    log: createLog(options),
    onSession: (up) =>
      up
        ? reporter.event("connected", {}, "connected again")
        : reporter.event("disconnected", {}, "the server is gone; requests wait until it is back"),
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

/** The socket's place when nobody names one. */
export function socketIn(directory: string, volume: string): NbdEndpointAddress {
  const folder = resolve(directory);
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  return { kind: "unix", path: join(folder, `${volume.replace(/[^\w.-]/g, "_")}.sock`) };
}

export function attachedFields(attached: AttachHost): Readonly<Record<string, unknown>> {
  return {
    addresses: attached.addresses.map(String),
    nbd: attached.nbdUri,
    volume: attached.volume,
    sizeBytes: attached.sizeBytes,
    readOnly: attached.readOnly,
    memoryBytesMax: attached.memoryBytesMax,
    backend: attached.backend,
  };
}

export function attachedText(attached: AttachHost): string {
  const access = attached.readOnly ? ", read-only" : "";
  return [
    `${attached.volume}: ${formatSize(attached.sizeBytes)}${access}`,
    `memory for requests: up to ${formatSize(attached.memoryBytesMax)}`,
    `NBD: ${attached.nbdUri}`,
  ].join("\n");
}

// SPDX-License-Identifier: MIT
// `farpage serve`: a server host.

import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import type { z } from "zod";
import {
  type AccessRule,
  FarpageError,
  formatSize,
  type IpAddress,
  parseAccessFile,
  ServerHost,
} from "../runtime/index.js";
import { createLog } from "./log.js";
import { observing } from "./observe.js";
import { checkOptions, SERVE_OPTIONS } from "./options.js";
import type { Reporter } from "./reporter.js";
import { type StopCause, StopSignal } from "./signals.js";

export async function runServe(raw: unknown, reporter: Reporter): Promise<void> {
  const options = checkOptions(SERVE_OPTIONS, raw);
  if (options.volume.length + options.copy.length === 0) {
    throw new FarpageError("EINVAL", "nothing to serve: name a --volume or a --copy");
  }
  const stop = new StopSignal({ orStdinEnd: options.untilStdinEnds });
  const folder = resolve(options.data ?? ".");
  const allow = [...options.allow, ...readAllowFile(options.allowFile)];
  const server = await ServerHost.start({
    addresses: options.address,
    port: options.port,
    volumes: options.volume.map((volume) =>
      volume.path === null ? volume : { ...volume, path: resolve(folder, volume.path) },
    ),
    exports: options.copy.map((one) => ({ ...one, path: resolve(folder, one.path) })),
    copyPort: options.copyPort,
    allow,
    queueDepth: options.queueDepth,
    chunkBytes: options.chunk,
    sessionCountMax: options.sessions,
    pathCountMax: options.paths,
    lanes: options.lanes,
    alwaysInvalidate: options.alwaysInvalidate,
    backend: options.backend,
    segmentation: options.segmentation,
    ...observing("serve", options),
    log: createLog(options),
  });
  const addresses = server.addresses.map(String);
  const lines = servedLines(server, options, allow);
  reporter.event(
    "ready",
    {
      addresses,
      port: server.port,
      volumes: server.volumes,
      exports: server.exports,
      copyPort: server.copyPort,
      allow: allow.map(({ text }) => text),
      memoryBytesMax: server.memoryBytesMax,
      lanes: server.laneCount,
      backend: server.backend,
    },
    lines.join("\n"),
  );
  let signal: StopCause;
  try {
    signal = await stop.wait(server.failed);
  } catch (error) {
    // What closing finds is a consequence; what is told is the cause.
    await server.close().catch((closing) => reporter.warn(String(closing)));
    throw error;
  }
  await server.close();
  reporter.event("stopped", { signal }, "stopped; everything is on disk");
}

/** What is served, to whom, and what to do at the other end. */
function servedLines(
  server: ServerHost,
  options: z.output<typeof SERVE_OPTIONS>,
  allow: readonly AccessRule[],
): string[] {
  const addresses = server.addresses.map(String);
  const lines = [
    `serving on ${addresses.join(", ")}, RTRS port ${server.port} (RoCEv2, UDP port 4791)` +
      (server.laneCount > 1 ? `, ${server.laneCount} lanes` : ""),
    ...server.volumes.map(
      (volume) =>
        `  ${volume.name}: ${volume.path ?? "in memory"}, ${formatSize(volume.sizeBytes)}` +
        (volume.readOnly ? ", read-only" : ""),
    ),
    ...server.exports.map(
      ({ name, path, readOnly }) =>
        `  copies of ${name}: ${path}${readOnly ? ", read-only" : ""}, port ${server.copyPort}`,
    ),
    clientsLine(allow, options.address),
    `memory for requests: up to ${formatSize(server.memoryBytesMax)} ` +
      `(${options.sessions} sessions x ${options.paths} paths x ${options.queueDepth} requests x ` +
      `${formatSize(server.requestBytes)}${server.exports.length > 0 ? ", and for copies" : ""})`,
  ];
  const first = server.volumes[0];
  if (first !== undefined) {
    const host = addresses[0]?.includes(":") ? `[${addresses[0]}]` : addresses[0];
    const port = server.port === 1234 ? "" : `:${server.port}`;
    lines.push(
      `on the other machine: farpage attach rnbd://${host}${port}/` +
        `${encodeURIComponent(first.name)} --address ITS-IP`,
    );
  }
  return lines;
}

/** @throws FarpageError EINVAL naming file and line; ENOENT and others of reading it. */
function readAllowFile(path: string | undefined): readonly AccessRule[] {
  if (path === undefined) return [];
  try {
    return parseAccessFile(readFileSync(path, "utf8"));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new FarpageError(code ?? "EIO", `--allow-file "${path}": ${message}`, { cause: error });
  }
}

/** Who may connect, for people; loudest where a server would be served in vain. */
function clientsLine(allow: readonly AccessRule[], addresses: readonly IpAddress[]): string {
  if (allow.length > 0) return `allowed: ${allow.map(({ text }) => text).join("; ")}; loopback`;
  const isLocal = addresses.every((address) => /^(127\.|::1$)/.test(String(address)));
  const hint = isLocal ? "" : " (others are refused: --allow CLIENTS lets them in)";
  return `allowed: clients on loopback alone${hint}`;
}

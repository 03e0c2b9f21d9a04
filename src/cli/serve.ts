// SPDX-License-Identifier: MIT
// `farpage serve`: a server host.

import { resolve } from "node:path";
import { formatSize, ServerHost } from "../runtime/index.js";
import { createLog } from "./log.js";
import { observing } from "./observe.js";
import { checkOptions, SERVE_OPTIONS } from "./options.js";
import type { Reporter } from "./reporter.js";
import { type StopCause, StopSignal } from "./signals.js";

export async function runServe(raw: unknown, reporter: Reporter): Promise<void> {
  const options = checkOptions(SERVE_OPTIONS, raw);
  const stop = new StopSignal({ orStdinEnd: options.untilStdinEnds });
  const folder = resolve(options.data ?? ".");
  const server = await ServerHost.start({
    addresses: options.address,
    port: options.port,
    volumes: options.volume.map((volume) =>
      volume.path === null ? volume : { ...volume, path: resolve(folder, volume.path) },
    ),
    queueDepth: options.queueDepth,
    chunkBytes: options.chunk,
    sessionCountMax: options.sessions,
    pathCountMax: options.paths,
    alwaysInvalidate: options.alwaysInvalidate,
    backend: options.backend,
    segmentation: options.segmentation,
    ...observing("serve", options),
    log: createLog(options),
  });
  const addresses = server.addresses.map(String);
  const lines = [
    `serving on ${addresses.join(", ")}, RTRS port ${server.port} (RoCEv2, UDP port 4791)`,
    ...server.volumes.map(
      (volume) =>
        `  ${volume.name}: ${volume.path ?? "in memory"}, ${formatSize(volume.sizeBytes)}` +
        (volume.readOnly ? ", read-only" : ""),
    ),
    `memory for requests: up to ${formatSize(server.memoryBytesMax)} ` +
      `(${options.sessions} sessions x ${options.paths} paths x ${options.queueDepth} requests x ` +
      `${formatSize(options.chunk)})`,
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
  reporter.event(
    "ready",
    {
      addresses,
      port: server.port,
      volumes: server.volumes,
      memoryBytesMax: server.memoryBytesMax,
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

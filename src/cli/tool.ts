// SPDX-License-Identifier: MIT
// How a command runs a test program: opens the host, turns a signal into the end of the program's
// waits, and closes what was opened.

import { networkInterfaces } from "node:os";
import { FarpageError, IpAddress, localAddressTowards, openHost } from "../runtime/index.js";
import type { ToolEnvironment } from "../tools/index.js";
import { createLog } from "./log.js";
import { commandName, observing } from "./observe.js";
import type { Reporter } from "./reporter.js";
import { StopSignal } from "./signals.js";

export interface ToolOptions {
  readonly json: boolean;
  readonly verbose: boolean;
  readonly backend: "auto" | "native" | "node";
  readonly segmentation: boolean;
  readonly trace?: string | undefined;
  /** Local addresses; default: towards `peer`, or every address of this machine. */
  readonly address?: readonly IpAddress[] | undefined;
  /** Whom a client talks to; null for a server. */
  readonly peer: IpAddress | null;
}

/**
 * Runs `tool` on a host of its own. A signal ends its waits with EINTR, which is no failure: it is
 * told, and the process ends with 0 as after any SIGINT.
 */
export async function runTool(
  options: ToolOptions,
  reporter: Reporter,
  tool: (environment: ToolEnvironment) => Promise<void>,
): Promise<void> {
  const stop = new StopSignal();
  const controller = new AbortController();
  let cause: string | null = null;
  void stop.wait(new Promise<never>(() => {})).then((signal) => {
    cause = signal;
    controller.abort();
  });
  await using host = await openHost({
    addresses: await localAddressesFor(options),
    backend: options.backend,
    segmentation: options.segmentation,
    ...observing(commandName(), options),
    log: createLog(options),
  });
  try {
    await tool({
      host,
      signal: controller.signal,
      report: (event, fields, text) => reporter.event(event, fields, text),
    });
  } catch (error) {
    if (cause === null || !(error instanceof FarpageError) || error.code !== "EINTR") throw error;
    reporter.event("stopped", { signal: cause }, null);
  }
}

async function localAddressesFor(options: ToolOptions): Promise<string[]> {
  if (options.address !== undefined) return options.address.map(String);
  if (options.peer !== null) return [String(await localAddressTowards(options.peer))];
  const own = Object.values(networkInterfaces())
    .flatMap((entries) => entries ?? [])
    .map((entry) => entry.address)
    .filter((text) => !text.startsWith("fe80:"))
    .map((text) => String(IpAddress.parse(text)));
  return [...new Set(own)];
}

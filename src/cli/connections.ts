// SPDX-License-Identifier: MIT
// `farpage ucmatose` and `farpage udaddy`, in either role.

import { runUcmatose, runUdaddy } from "../tools/index.js";
import { checkOptions } from "./options.js";
import type { Reporter } from "./reporter.js";
import { runTool } from "./tool.js";
import { CONNECTIONS_OPTIONS, checkRole } from "./tool-options.js";

export async function runConnections(
  name: "ucmatose" | "udaddy",
  raw: unknown,
  reporter: Reporter,
): Promise<void> {
  const options = checkOptions(CONNECTIONS_OPTIONS, raw);
  checkRole(options);
  const { port, connections, count, size, validate } = options;
  const server = options.client ?? null;
  const timeoutMs = options.timeout * 1000;
  await runTool({ ...options, peer: server }, reporter, async (environment) => {
    const run = name === "ucmatose" ? runUcmatose : runUdaddy;
    await run(environment, { server, port, connections, count, size, validate, timeoutMs });
  });
}

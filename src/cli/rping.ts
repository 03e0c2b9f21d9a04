// SPDX-License-Identifier: MIT
// `farpage rping`: rping's protocol, in either role.

import { runRpingClient, runRpingServer } from "../tools/index.js";
import { checkOptions } from "./options.js";
import type { Reporter } from "./reporter.js";
import { runTool } from "./tool.js";
import { checkRole, RPING_OPTIONS } from "./tool-options.js";

export async function runRping(raw: unknown, reporter: Reporter): Promise<void> {
  const options = checkOptions(RPING_OPTIONS, raw);
  checkRole(options);
  const { client, port, validate, showPings } = options;
  const timeoutMs = options.timeout * 1000;
  await runTool({ ...options, peer: client ?? null }, reporter, async (environment) => {
    if (client === undefined) {
      const { persistent } = options;
      await runRpingServer(environment, { port, persistent, validate, showPings, timeoutMs });
      return;
    }
    const { count, size } = options;
    const pings = { port, count, size, validate, showPings, timeoutMs };
    await runRpingClient(environment, { server: client, ...pings });
  });
}

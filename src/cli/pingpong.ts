// SPDX-License-Identifier: MIT
// `farpage pingpong rc|ud`: the protocol of the ibv_*_pingpong programs, in either role.

import { runPingpong } from "../tools/index.js";
import { checkOptions } from "./options.js";
import type { Reporter } from "./reporter.js";
import { runTool } from "./tool.js";
import { PINGPONG_OPTIONS } from "./tool-options.js";

/** The stock programs' defaults. */
const SIZES = { rc: 4096, ud: 2048 } as const;

export async function runPingpongCommand(
  game: { readonly kind: string; readonly server: string | undefined },
  raw: object,
  reporter: Reporter,
): Promise<void> {
  const options = checkOptions(PINGPONG_OPTIONS, { ...raw, ...game });
  const peer = options.server ?? null;
  await runTool({ ...options, peer }, reporter, async (environment) => {
    await runPingpong(environment, {
      kind: options.kind,
      server: peer === null ? null : String(peer),
      port: options.port,
      size: options.size ?? SIZES[options.kind],
      iterations: options.iters,
      mtu: options.mtu,
      receiveDepth: options.rxDepth,
      validate: options.validate,
      timeoutMs: options.timeout * 1000,
    });
  });
}

// SPDX-License-Identifier: MIT
// How every command that runs a host lets itself be observed: `--trace` and the control socket.

import { resolve } from "node:path";
import type { ObserveOptions } from "../runtime/index.js";

/**
 * @param name the command, by which `farpage trace` finds the instance.
 */
export function observing(
  name: string,
  options: { readonly trace?: string | undefined; readonly data?: string | undefined },
): ObserveOptions {
  const { trace, data } = options;
  return {
    ...(trace === undefined ? {} : { traceFile: trace }),
    control: { name, ...(data === undefined ? {} : { data: resolve(data) }) },
  };
}

/** The name of the command that this process runs, from its command line. */
export function commandName(): string {
  return process.argv.slice(2).find((word) => !word.startsWith("-")) ?? "farpage";
}

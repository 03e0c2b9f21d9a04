// SPDX-License-Identifier: MIT
// What every tool is handed: a host, a way to be stopped, a way to tell.

import { FarpageError, type Host } from "../runtime/index.js";

/** What a tool works in. The command line makes it (`src/cli/tool.ts`); tests make their own. */
export interface ToolEnvironment {
  /** Open, and closed by whoever made it. */
  readonly host: Host;
  /** Aborted when the user wants the tool to stop: its waits end with EINTR. */
  readonly signal: AbortSignal;
  /**
   * Tells the user.
   * @param event the `event` field of the JSON object.
   * @param fields the rest of it.
   * @param text the same for people; null where they needn't hear of it.
   */
  readonly report: (
    event: string,
    fields: Readonly<Record<string, unknown>>,
    text: string | null,
  ) => void;
}

/**
 * Waits for `waiting`, or for the user to stop the tool.
 * @throws FarpageError EINTR when `signal` is aborted first; what `waiting` rejects with. A
 *   rejection of `waiting` that comes after the end of the wait is nobody's any more.
 */
export function interruptible<T>(signal: AbortSignal, waiting: Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(new FarpageError("EINTR", "stopped by a signal"));
    const settled = () => signal.removeEventListener("abort", onAbort);
    waiting.then(resolve, reject).finally(settled);
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
}

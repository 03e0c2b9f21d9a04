// SPDX-License-Identifier: MIT
// What a command tells its user: with `--json` one object a line on standard output and nothing
// else there, otherwise sentences. Warnings and errors go to standard error in both.

import { FarpageError } from "../base/index.js";

/** For the `error` event of an output stream: whoever read it is gone, the disks are not. */
export function ignoreBrokenPipe(error: NodeJS.ErrnoException): void {
  if (error.code !== "EPIPE") throw error;
}

export class Reporter {
  readonly json: boolean;

  constructor(json: boolean) {
    this.json = json;
  }

  /**
   * Something happened.
   * @param event name of the event, the `event` field of the JSON object.
   * @param fields the rest of the object.
   * @param text the same for people; null where they needn't hear of it.
   */
  event(event: string, fields: Readonly<Record<string, unknown>>, text: string | null): void {
    if (this.json) process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
    else if (text !== null) process.stdout.write(`${text}\n`);
  }

  warn(text: string): void {
    process.stderr.write(`farpage: warning: ${text}\n`);
  }

  /** One clear line for an error; the stack only for what is a bug of ours. */
  fail(error: unknown): void {
    const known = error instanceof FarpageError;
    const code = known ? error.code : "EBUG";
    const text = error instanceof Error ? error.message : String(error);
    if (this.json) process.stdout.write(`${JSON.stringify({ event: "error", code, text })}\n`);
    const isTold = text.endsWith(`(${code})`) || text.endsWith(`: ${code}`);
    const suffix = known && !isTold ? ` (${code})` : "";
    // Of several lines the first says what is wrong; a list follows.
    const [first, ...list] = text.split("\n");
    process.stderr.write(`farpage: ${[`${first}${suffix}`, ...list].join("\n")}\n`);
    if (!known && error instanceof Error) process.stderr.write(`${error.stack ?? ""}\n`);
  }
}

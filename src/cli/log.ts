// SPDX-License-Identifier: MIT
import pino from "pino";
import type { Log } from "../runtime/index.js";
import { ignoreBrokenPipe } from "./reporter.js";

/** Controls, formats (text that runs backwards), and all that begins another line. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;

/** Peers choose names that stand in messages: none may act on a terminal, or look like a line. */
function printable(message: string): string {
  return message.replace(UNPRINTABLE, (c) => `\\u{${(c.codePointAt(0) ?? 0).toString(16)}}`);
}

/**
 * Logs to standard error: JSON lines with `--json`, else plain sentences; warnings alone unless
 * verbose.
 */
export function createLog(options: {
  readonly json: boolean;
  readonly verbose: boolean;
  /** Sentences even with `json`: the events are for another program, the log for people. */
  readonly plainLog?: boolean;
}): Log {
  const level = options.verbose ? "debug" : "warn";
  if (options.json && options.plainLog !== true) {
    const destination = pino.destination({ fd: 2, sync: true });
    destination.on("error", ignoreBrokenPipe);
    const logger = pino({ level, base: { name: "farpage" } }, destination);
    return {
      debug: (message) => logger.debug(message),
      info: (message) => logger.info(message),
      warn: (message) => logger.warn(message),
      error: (message) => logger.error(message),
    };
  }
  const say = (word: string) => (message: string) => {
    process.stderr.write(`farpage: ${word}${printable(message)}\n`);
  };
  const nothing = () => {};
  return {
    debug: options.verbose ? say("") : nothing,
    info: options.verbose ? say("") : nothing,
    warn: say("warning: "),
    error: say("error: "),
  };
}

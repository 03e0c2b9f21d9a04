// SPDX-License-Identifier: MIT

/** What this room needs of a logger; `pino`'s is one. Messages are lowercase sentences. */
export interface Log {
  debug(message: string): void;
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

/** Says nothing; the default of the library. */
export const SILENT_LOG: Log = {
  debug() {},
  info() {},
  warn() {},
  error() {},
};

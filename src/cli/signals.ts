// SPDX-License-Identifier: MIT

/** How a command is asked to stop. */
export type StopCause = NodeJS.Signals | "stdin";

/**
 * SIGINT and SIGTERM, caught from construction on: a command makes one before it does anything, so
 * that no signal finds it between being ready and listening. A second signal ends the process at
 * once.
 */
export class StopSignal {
  private readonly stopped: Promise<StopCause>;

  /**
   * @param options.orStdinEnd also stop when standard input ends: a child's way to notice that the
   *   process which started it is gone, however it went.
   */
  constructor(options: { readonly orStdinEnd?: boolean } = {}) {
    this.stopped = new Promise((resolve) => {
      let count = 0;
      const onSignal = (name: NodeJS.Signals): void => {
        count++;
        if (count > 1) process.exit(130);
        resolve(name);
      };
      process.on("SIGINT", onSignal);
      process.on("SIGTERM", onSignal);
      if (options.orStdinEnd !== true) return;
      // Watching it must not keep a process alive that has nothing else to do.
      (process.stdin as { unref?: () => void }).unref?.();
      process.stdin.resume();
      process.stdin.on("end", () => resolve("stdin"));
      process.stdin.on("error", () => resolve("stdin"));
    });
  }

  /**
   * Waits to be stopped.
   * @returns why.
   * @throws what `failed` rejects with, if that comes first.
   */
  wait(failed: Promise<never>): Promise<StopCause> {
    return Promise.race([this.stopped, failed]);
  }
}

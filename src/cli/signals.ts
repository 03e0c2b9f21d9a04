// SPDX-License-Identifier: MIT

/** How a command is asked to stop. */
export type StopCause = NodeJS.Signals | "stdin" | "parent";

/** How often to look whether the process that started this one is still there. */
const PARENT_CHECK_MS = 1000;

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
   * @param options.orParentEnd the same for one whose standard input is its user's: stop when the
   *   parent is another than at the start (npm, a shell, a test runner that was killed).
   */
  constructor(options: { readonly orStdinEnd?: boolean; readonly orParentEnd?: boolean } = {}) {
    this.stopped = new Promise((resolve) => {
      let count = 0;
      const onSignal = (name: NodeJS.Signals): void => {
        count++;
        if (count > 1) process.exit(130);
        resolve(name);
      };
      process.on("SIGINT", onSignal);
      process.on("SIGTERM", onSignal);
      if (options.orParentEnd === true) watchParent(() => resolve("parent"));
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

/** Whoever is started by init (or in the background, by something that has ended) has no parent. */
function watchParent(onEnd: () => void): void {
  const parent = process.ppid;
  if (parent <= 1) return;
  const timer = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(timer);
    onEnd();
  }, PARENT_CHECK_MS);
  timer.unref();
}

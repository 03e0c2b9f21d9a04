// SPDX-License-Identifier: MIT

/**
 * Waits for SIGINT or SIGTERM, or for `failed`. A second signal while the first is being handled
 * ends the process at once.
 * @param options.orStdinEnd also stop when standard input ends: a child's way to notice that the
 *   process which started it is gone, however it went.
 * @returns the signal's name, or "stdin".
 * @throws what `failed` rejects with.
 */
export async function untilSignal(
  failed: Promise<never>,
  options: { readonly orStdinEnd?: boolean } = {},
): Promise<NodeJS.Signals | "stdin"> {
  const signal = new Promise<NodeJS.Signals | "stdin">((resolve) => {
    let count = 0;
    const onSignal = (name: NodeJS.Signals): void => {
      count++;
      if (count > 1) process.exit(130);
      resolve(name);
    };
    process.on("SIGINT", onSignal);
    process.on("SIGTERM", onSignal);
    if (options.orStdinEnd === true) {
      process.stdin.resume();
      process.stdin.on("end", () => resolve("stdin"));
      process.stdin.on("error", () => resolve("stdin"));
    }
  });
  try {
    return await Promise.race([signal, failed]);
  } finally {
    // An open standard input would keep the process alive.
    if (options.orStdinEnd === true) process.stdin.destroy();
  }
}

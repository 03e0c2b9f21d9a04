// SPDX-License-Identifier: MIT
// Running programs and taking their numbers.

import { execFile, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

export const FARPAGE = fileURLToPath(new URL("../cli/main.js", import.meta.url));

/** Whether a program is installed. */
export function has(program: string): boolean {
  try {
    execFileSync("sh", ["-c", `command -v ${program}`], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** Runs a program to its end. @returns its standard output. */
export function run(
  program: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(
      program,
      [...args],
      { timeout: 180_000, maxBuffer: 64 << 20, env: { ...process.env, ...env } },
      (error, stdout, stderr) => {
        if (error === null) resolve(stdout);
        else
          reject(new Error(`${program} ${args.join(" ")}: ${error.message}\n${stdout}${stderr}`));
      },
    );
  });
}

/** A program that runs until it is stopped. */
export interface Service {
  stop(): Promise<void>;
}

/** Starts `program` and waits until `ready` holds. */
export async function start(
  program: string,
  args: readonly string[],
  ready: () => Promise<boolean>,
  env: Readonly<Record<string, string>> = {},
): Promise<Service> {
  const child = spawn(program, [...args], { stdio: "ignore", env: { ...process.env, ...env } });
  const exited = once(child, "exit");
  for (let tries = 0; !(await ready()); tries++) {
    if (tries > 200 || child.exitCode !== null) {
      child.kill("SIGKILL");
      throw new Error(`${program} did not start`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return {
    async stop() {
      child.kill("SIGTERM");
      await exited;
    },
  };
}

/**
 * Starts a farpage command.
 * @param program main file of the build.
 * @returns its first event with it.
 */
export async function startFarpage(
  args: readonly string[],
  program = FARPAGE,
): Promise<Service & { readonly ready: Readonly<Record<string, unknown>> }> {
  const child = spawn(process.execPath, [program, ...args, "--json"], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  const lines = createInterface({ input: child.stdout });
  const first = await Promise.race([once(lines, "line"), exited.then(() => null)]);
  if (first === null) throw new Error(`farpage ${args.join(" ")} ended`);
  return {
    ready: JSON.parse(String(first[0])) as Readonly<Record<string, unknown>>,
    async stop() {
      child.kill("SIGTERM");
      await exited;
    },
  };
}

/** Whether somebody listens on a Unix socket. */
export function listens(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

// SPDX-License-Identifier: MIT
// A stock program in the guest and farpage here as the two sides of one conversation.

import { type CaseContext, check, type Direction, Unfit } from "../case.js";
import type { Farpage } from "../farpage.js";
import type { GuestCommand } from "../guest.js";

/** Where the server waits, and so how to see that it does. */
export interface Door {
  readonly kind: "tcp" | "cm";
  readonly port: number;
}

/** The two command lines of one conversation. */
export interface Pair {
  readonly direction: Direction;
  /** In the guest. */
  readonly kernel: string;
  /** Here, without `farpage`. */
  readonly farpage: readonly string[];
  readonly door: Door;
  readonly timeoutMs?: number;
}

/** What both have said, when both have ended well. */
export interface PairResult {
  readonly kernel: GuestCommand;
  readonly farpage: Farpage;
}

/**
 * Starts the server, the client when the server listens, and waits for both to end with status 0.
 * @throws with what both have said when one doesn't.
 */
export async function runPair(context: CaseContext, pair: Pair): Promise<PairResult> {
  const started = await startPair(context, pair);
  await endPair(started, pair.timeoutMs);
  return started;
}

/** Starts both sides, the server first. */
export async function startPair(context: CaseContext, pair: Pair): Promise<PairResult> {
  const { guest } = context;
  if (pair.direction === "kernel to farpage") {
    const farpage = context.farpage(...pair.farpage);
    await farpage.event("ready listening");
    return { farpage, kernel: guest.start(pair.kernel) };
  }
  const kernel = guest.start(pair.kernel);
  await untilListening(context, kernel, pair.door);
  return { kernel, farpage: context.farpage(...pair.farpage) };
}

/** Waits for both ends. @throws with what both have said unless both statuses are 0. */
export async function endPair(sides: PairResult, timeoutMs = 180_000): Promise<void> {
  const { kernel, farpage } = sides;
  try {
    // A side that fails ends the case at once: the other might wait for it for ever.
    const kernelEnd = kernel.end(timeoutMs).then((status) => {
      if (status !== 0) throw new Error("the kernel's side failed");
    });
    await Promise.all([kernelEnd, farpage.end(timeoutMs)]);
  } catch (error) {
    const why = error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
    throw new Error(`${why}\nguest: ${kernel.evidence()}\n${farpage.evidence()}`);
  }
}

/** Checks what farpage says in the end that it has done. */
export function checkDone(farpage: Farpage, wanted: Readonly<Record<string, unknown>>): void {
  const done = farpage.events.filter(({ event }) => event === "done").at(-1);
  for (const [name, value] of Object.entries(wanted)) {
    check(done?.[name] === value, `farpage's ${name} is not ${value}`, farpage.evidence());
  }
}

/** Waits until a program of the guest listens. @throws when it ends before. */
export async function untilListening(
  context: CaseContext,
  command: GuestCommand,
  door: Door,
): Promise<void> {
  const listens =
    door.kind === "tcp"
      ? `ss -Hltn 'sport = :${door.port}' | grep -q LISTEN`
      : `rdma resource show cm_id | grep LISTEN | grep -q ':${door.port}\\b'`;
  const wait = context.guest.start(`until ${listens}; do sleep 0.1; done`);
  const status = await Promise.race([wait.end(60_000), command.exited.then(() => -1)]);
  if (status === 0) return;
  wait.signal("KILL");
  if (command.status === 127) throw new Unfit(`no such program: ${command.text}`);
  throw new Error(`guest: the server doesn't listen: ${command.evidence()}`);
}

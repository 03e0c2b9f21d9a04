// SPDX-License-Identifier: MIT
// One cell of the table: one exchange, one misfortune, one verdict. An exchange completes with the
// right data and with effects that happen once, in time; or, when the link is dead, fails as the
// specification says. Afterwards everything can be closed, and nothing is left.

import {
  everyPair,
  everySingle,
  type Luck,
  luckText,
  NO_MISFORTUNE,
  parseLuck,
  type SecondPsns,
} from "./luck.js";
import { MS, SECOND, Stage } from "./stage.js";

/** One run of an exchange. Made on a sound network, with everything before the exchange done. */
export interface Scene {
  /** Begins. */
  start(): void;
  /** Whether everybody knows how it ended. */
  isOver(): boolean;
  /** "ok", or how it failed. @throws Error when data or effects are wrong. */
  outcome(): string;
  /** Begins once more between the same queue pairs, which have rested. */
  startAgain?(psns: SecondPsns): void;
  /** Ends everything, in order. */
  close(): void;
  isClosed(): boolean;
}

/** A row of the table. */
export interface Exchange {
  readonly name: string;
  /** Longest time by which one lost packet may delay the end. */
  readonly stallNs: number;
  /** When it must have failed on a dead link, at the latest. */
  readonly deadNs: number;
  /** How it may end on a dead link, "ok" besides. */
  readonly deadOutcomes: RegExp;
  /** Ghosts come to second connections with these PSNs. */
  readonly seconds: readonly SecondPsns[];
  /** The link lives again so long after its death, if it does: then the end must be "ok". */
  readonly deathNs?: number;
  build(stage: Stage): Scene;
}

/** What a run without misfortune looks like. */
export interface CleanRun {
  readonly packets: number;
  readonly elapsedNs: number;
}

/** All reordering and lateness that is no loss. */
const LATE_NS = 10 * MS;
/** Late copies have come by then. */
const QUIET_NS = 2 * SECOND;
const CLOSE_NS_MAX = 90 * SECOND;
/** The longest that anything lingers: the CM's last words, timewait, a peer's MRA. */
const REST_NS = 120 * SECOND;

/** Runs `exchange` without misfortune. @throws Error when that fails. */
export function cleanRun(exchange: Exchange): CleanRun {
  let clean: CleanRun | null = null;
  runStage(exchange, NO_MISFORTUNE, (stage) => {
    clean = { packets: stage.count, elapsedNs: stage.elapsedNs };
  });
  return clean as unknown as CleanRun;
}

/** The columns of an exchange: all of them, or one of `every`, another one for each row. */
export function columnsOf(
  exchange: Exchange,
  clean: CleanRun,
  o: { readonly pairs: boolean; readonly every: number; readonly shift: number },
): Luck[] {
  const isRevived = exchange.deathNs !== undefined;
  const all = everySingle(clean.packets, exchange.seconds).filter(
    // The other columns are those of the row of the same name.
    (luck) => !isRevived || luck.kind === "dead",
  );
  if (o.pairs && !isRevived) all.push(...everyPair(clean.packets));
  return all.filter((_, index) => (index + o.shift) % o.every === 0);
}

/** What became of one row. */
export interface RowReport {
  readonly cells: number;
  /** Each failed cell: how to see it again, what is wrong, its packets. */
  readonly failures: readonly string[];
}

/** Runs the columns of a row that `columnsOf` gives. */
export function runRow(exchange: Exchange, o: Parameters<typeof columnsOf>[2]): RowReport {
  const clean = cleanRun(exchange);
  if (clean.packets === 0) throw new Error(`${exchange.name}: no packets, so no cells`);
  const columns = columnsOf(exchange, clean, o);
  const failures: string[] = [];
  for (const luck of columns) {
    try {
      runCell(exchange, luck, clean);
    } catch (error) {
      failures.push(String(error));
    }
  }
  return { cells: columns.length, failures };
}

/** Runs one cell. @throws Error that says what is wrong, where, and how to see it again. */
export function runCell(exchange: Exchange, luck: Luck, clean: CleanRun): void {
  const limitNs = limitOf(exchange, luck, clean);
  runStage(exchange, luck, (stage) => {
    if (stage.elapsedNs <= limitNs) return;
    const took = (stage.elapsedNs / MS).toFixed(1);
    throw new Error(`took ${took} ms, more than ${(limitNs / MS).toFixed(1)} ms`);
  });
}

/** Runs the cell of a text "exchange / misfortune". @returns the packets. */
export function replayCell(exchanges: readonly Exchange[], text: string): readonly string[] {
  const cut = text.lastIndexOf(" / ");
  const name = text.slice(0, cut);
  const exchange = exchanges.find((candidate) => candidate.name === name);
  if (exchange === undefined) throw new Error(`there is no exchange "${name}"`);
  const clean = cleanRun(exchange);
  const luck = parseLuck(text.slice(cut + 3));
  let lines: readonly string[] = [];
  const limitNs = limitOf(exchange, luck, clean);
  runStage(exchange, luck, (stage) => {
    lines = [...stage.lines, `over after ${(stage.elapsedNs / MS).toFixed(3)} ms`];
    if (stage.elapsedNs > limitNs) throw new Error(`more than ${limitNs / MS} ms`);
  });
  return lines;
}

function limitOf(exchange: Exchange, luck: Luck, clean: CleanRun): number {
  const { stallNs, deadNs } = exchange;
  switch (luck.kind) {
    case "lose":
      return clean.elapsedNs + luck.packets.length * stallNs;
    case "dead":
      return deadNs;
    default:
      return clean.elapsedNs + stallNs + LATE_NS;
  }
}

function runStage(exchange: Exchange, luck: Luck, judgeTime: (stage: Stage) => void): void {
  const stage = new Stage();
  try {
    playScene(exchange, luck, stage, judgeTime);
  } catch (error) {
    const what = error instanceof Error ? error.message : String(error);
    const cell = `${exchange.name} / ${luckText(luck)}`;
    const packets = stage.lines.slice(-60).join("\n");
    throw new Error(`BADLUCK="${cell}": ${what}\n${packets}`, { cause: error });
  }
}

function playScene(
  exchange: Exchange,
  luck: Luck,
  stage: Stage,
  judgeTime: (stage: Stage) => void,
): void {
  const scene = exchange.build(stage);
  const { world } = stage;
  stage.begin(luck);
  scene.start();
  const { deathNs } = exchange;
  if (luck.kind === "dead" && deathNs !== undefined) {
    world.run(deathNs, () => scene.isOver());
    stage.heal();
  }
  demand(stage, "the exchange is over", 10 * exchange.deadNs, () => scene.isOver());
  judgeTime(stage);
  const isFailureAllowed = luck.kind === "dead" && deathNs === undefined;
  judgeOutcome(exchange, scene, isFailureAllowed);
  if (luck.kind === "again") {
    world.run(QUIET_NS);
    judgeOutcome(exchange, scene, false);
  }
  if (luck.kind === "ghost") {
    if (scene.startAgain === undefined) throw new Error("this exchange has no second run");
    stage.lines.push("--- again");
    scene.startAgain(luck.psns);
    stage.beginAgain(luck);
    demand(stage, "the second run is over", 10 * exchange.deadNs, () => scene.isOver());
    judgeTime(stage);
    judgeOutcome(exchange, scene, false);
  }
  stage.heal();
  stage.lines.push("--- close");
  scene.close();
  stage.wake();
  demand(stage, "everything closes", CLOSE_NS_MAX, () => scene.isClosed());
  world.run(REST_NS);
  stage.checkRest();
}

function judgeOutcome(exchange: Exchange, scene: Scene, isFailureAllowed: boolean): void {
  const outcome = scene.outcome();
  if (outcome === "ok") return;
  if (isFailureAllowed && exchange.deadOutcomes.test(outcome)) return;
  throw new Error(`ended with ${outcome}`);
}

function demand(stage: Stage, what: string, limitNs: number, isTrue: () => boolean): void {
  if (stage.world.run(limitNs, isTrue) || isTrue()) return;
  throw new Error(`did not happen: ${what}`);
}

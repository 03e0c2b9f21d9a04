// SPDX-License-Identifier: MIT
// What docs/p2p.md shows of the p2p commands is what they print.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, it } from "vitest";
import { runP2pList, runP2pMatrix, runP2pPath } from "./p2p.js";
import { Reporter } from "./reporter.js";

const DATA = fileURLToPath(new URL("../../test/data/topologies/", import.meta.url));
const PAGE = readFileSync(new URL("../../docs/p2p.md", import.meta.url), "utf8");

/** A command of the page and the lines below it. */
interface Sample {
  readonly command: string;
  readonly lines: readonly string[];
}

function samples(): readonly Sample[] {
  const found: { command: string; lines: string[] }[] = [];
  for (const fence of PAGE.matchAll(/^```\n(\$ farpage p2p [\s\S]*?)^```$/gm)) {
    for (const line of (fence[1] as string).trimEnd().split("\n")) {
      if (line.startsWith("$ farpage p2p ")) found.push({ command: line.slice(14), lines: [] });
      else found.at(-1)?.lines.push(line);
    }
  }
  const matrix = /^`farpage p2p (matrix [^`]+)` \(shortened\):\n\n```\n([\s\S]*?)^```$/m.exec(PAGE);
  if (matrix !== null) {
    const lines = (matrix[2] as string).trimEnd().split("\n");
    found.push({ command: matrix[1] as string, lines });
  }
  return found;
}

class Listener extends Reporter {
  readonly texts: string[] = [];

  constructor() {
    super(false);
  }

  override event(_event: string, _fields: Readonly<Record<string, unknown>>, text: string | null) {
    this.texts.push(text ?? "");
  }

  override warn(): void {}
}

async function print(command: string): Promise<readonly string[]> {
  const listener = new Listener();
  const words: string[] = [];
  const options: Record<string, unknown> = { json: false, verbose: false };
  const [name, ...rest] = command.split(" ");
  for (let at = 0; at < rest.length; at++) {
    const word = rest[at] as string;
    if (word === "--from") options["from"] = [join(DATA, rest[++at] as string)];
    else if (word === "--kernel") options["kernel"] = rest[++at];
    else words.push(word);
  }
  const [client = "", provider = ""] = words;
  if (name === "list") await runP2pList(options, words, listener);
  else if (name === "matrix") await runP2pMatrix(words, options, listener);
  else await runP2pPath({ client, provider }, options, name === "explain", listener);
  return listener.texts.join("\n").split("\n");
}

/** Columns and cells count, the room between them doesn't; names come from the system's pci.ids. */
function cells(line: string): readonly string[] {
  return line.trim().split(/ {2,}/);
}

it("docs/p2p.md: every command that is shown prints what is shown", async () => {
  const all = samples();
  expect(all.length).toBeGreaterThanOrEqual(8);
  for (const { command, lines } of all) {
    const printed = await print(command);
    const isTable = command.startsWith("list") || command.startsWith("matrix");
    for (const line of lines) {
      if (line.trim() === "...") continue;
      if (!isTable) expect([command, printed]).toEqual([command, expect.arrayContaining([line])]);
      else expect([command, line, isShown(line, lines[0] as string, printed)]).toContain(true);
    }
  }
});

/** A table's line with the cells of the columns that are shown, without a device's name. */
function isShown(line: string, head: string, printed: readonly string[]): boolean {
  const wanted = cells(line);
  const whole = printed.map(cells);
  const columns = cells(head).map((name) => whole[0]?.indexOf(name) ?? -1);
  if (whole.some((row) => row[0] === "device")) {
    return whole.some((row) => wanted.slice(0, -1).every((cell, at) => row[at] === cell));
  }
  const isHead = line === head;
  return whole.some((row) =>
    wanted.every((cell, at) => {
      if (isHead) return row.includes(cell);
      return at === 0 ? row[0] === cell : row[(columns[at - 1] ?? -2) + 1] === cell;
    }),
  );
}

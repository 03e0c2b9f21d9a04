// SPDX-License-Identifier: MIT
// Real dumps as a mailer wraps them: at a blank, the rest unindented. Not a fact may be lost or
// changed by it.

import { expect, it } from "vitest";
import { readTopology } from "../../src/pci/index.js";
import { sourceOf } from "../support/topologies.js";
import { factsOf } from "../support/topology-facts.js";

const DUMPS = [
  ["amd-r1000-pericom-switch", "lspci-vv.txt"],
  ["arm-n1sdp-pex8749", "lspci-vvvxxx.txt"],
  ["laptop-2x-rtx3090-thunderbolt", "lspci-v.txt"],
] as const;
const WIDTHS = [66, 72, 76, 80, 100];

/** Columns that a character takes at a column. */
function widthOf(character: string, column: number): number {
  return character === "\t" ? 8 - (column % 8) : 1;
}

function wrapLine(line: string, width: number): string[] {
  const parts: string[] = [];
  let rest = line;
  while (rest !== "") {
    let column = 0;
    let blank = -1;
    let at = 0;
    for (; at < rest.length; at++) {
      column += widthOf(rest.charAt(at), column);
      if (column > width) break;
      if (rest.charAt(at) === " ") blank = at;
    }
    if (at === rest.length || blank <= 0) break;
    parts.push(rest.slice(0, blank));
    rest = rest.slice(blank + 1);
  }
  return rest === "" && parts.length > 0 ? parts : [...parts, rest];
}

it.each(DUMPS)("%s, %s: wrapped at any width it tells the same", (machine, name) => {
  const text = new TextDecoder().decode(sourceOf(machine, name).bytes);
  const read = (lines: string) =>
    factsOf(readTopology([{ name, bytes: new TextEncoder().encode(lines) }]));
  const whole = read(text);
  expect(whole.size).toBeGreaterThan(400);
  for (const width of WIDTHS) {
    const wrapped = text.split("\n").flatMap((line) => wrapLine(line, width));
    expect([width, wrapped.length > text.split("\n").length]).toEqual([width, true]);
    expect(read(wrapped.join("\n"))).toEqual(whole);
  }
});

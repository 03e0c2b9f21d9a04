// SPDX-License-Identifier: MIT
// A part of the table: every exchange, some of its misfortunes. The whole is in
// badluck.long.test.ts. A failure names its cell: `BADLUCK="exchange / misfortune" npx vitest run
// test/badluck/badluck.test.ts` runs that one alone and shows its packets.

import { describe, expect, it } from "vitest";
import { replayCell, runRow } from "./cell.js";
import { EXCHANGES } from "./exchanges.js";
import { everyPair, everySingle, luckText, parseLuck } from "./luck.js";

const one = process.env["BADLUCK"];
/** Of each row one cell in so many, another one in each row. */
const EVERY = 97;

describe.runIf(one !== undefined)("one cell", () => {
  it(`${one}`, () => {
    const lines = replayCell(EXCHANGES, one as string);
    console.log(lines.join("\n"));
    expect(lines.length).toBeGreaterThan(0);
  });
});

describe.runIf(one === undefined)("bad luck", () => {
  it.each(EXCHANGES.map((exchange, row) => ({ name: exchange.name, exchange, row })))(
    "$name",
    ({ exchange, row }) => {
      const report = runRow(exchange, { pairs: false, every: EVERY, shift: row * 7 });
      expect(report.failures, report.failures.join("\n\n")).toEqual([]);
    },
  );

  it("every misfortune has a text that names it again", () => {
    const all = [...everySingle(3, ["behind", "ahead", "fresh"]), ...everyPair(3)];
    for (const luck of all) expect(parseLuck(luckText(luck))).toEqual(luck);
    expect(new Set(all.map(luckText)).size).toBe(all.length);
    expect(() => parseLuck("lose x")).toThrow(/no misfortune/);
    expect(() => parseLuck("hope 3")).toThrow(/no misfortune/);
  });

  it("names of rows are unique", () => {
    expect(new Set(EXCHANGES.map(({ name }) => name)).size).toBe(EXCHANGES.length);
  });
});

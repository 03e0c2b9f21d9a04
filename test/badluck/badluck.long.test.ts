// SPDX-License-Identifier: MIT
// The whole table: every exchange, every misfortune of every packet, every pair of packets lost.

import { describe, expect, it } from "vitest";
import { runRow } from "./cell.js";
import { EXCHANGES } from "./exchanges.js";

describe("bad luck, the whole table", () => {
  it.each(EXCHANGES.map((exchange) => ({ name: exchange.name, exchange })))(
    "$name",
    ({ exchange }) => {
      const { cells, failures } = runRow(exchange, { pairs: true, every: 1, shift: 0 });
      console.log(`${exchange.name}: ${cells} cells`);
      expect(failures.length, failures.slice(0, 3).join("\n\n")).toBe(0);
    },
  );
});

// SPDX-License-Identifier: MIT

import fc from "fast-check";
import { describe, it } from "vitest";
import { EXCHANGES, exchange, PAGES } from "./pages-orders.fixture.js";
import { Paging, step } from "./paging.fixture.js";

const HOUR_MS = 3_600_000;

describe("memory that comes and goes, at length", () => {
  it.each(EXCHANGES)(
    "%s: each page goes before each packet, once and from there on",
    (_name, opcode, side) => {
      const packets = exchange(opcode, side, 0, () => false);
      for (let page = 0; page < PAGES; page++) {
        for (let first = 0; first < packets; first++) {
          for (let end = first + 1; end <= packets + 2; end++) {
            exchange(opcode, side, page, (i) => i >= first && i < end);
          }
        }
      }
    },
    HOUR_MS,
  );

  it(
    "any work arrives as between pinned memories",
    () => {
      fc.assert(
        fc.property(fc.array(step, { maxLength: 10, minLength: 1 }), fc.nat(), (steps, seed) => {
          new Paging(seed).play(steps);
        }),
        { numRuns: 500 },
      );
    },
    HOUR_MS,
  );
});

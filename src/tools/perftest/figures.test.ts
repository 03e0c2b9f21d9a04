// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import {
  bandwidthOf,
  figuresOf,
  headingOf,
  latencyOf,
  lineOf,
  reportOf,
  sumOf,
} from "./figures.js";

describe("bandwidth", () => {
  it("1024 KiB messages in a tenth of a second, 50 of them → 500 MiB/s", () => {
    const figures = bandwidthOf(2 ** 20, 50, 1e8);
    expect(figures).toMatchObject({ mibPerSecond: 500, messagesPerSecond: 500 });
    expect(reportOf(figures)).toMatchObject({ peak: 0, average: 500, messageRate: 0.0005 });
    expect(figuresOf(reportOf(figures))).toEqual(figures);
    expect(sumOf(figures, figures).mibPerSecond).toBe(1000);
    expect(lineOf(figures).trim().split(/ +/)).toEqual(["1048576", "50", "500.00", "0.000500"]);
  });

  it("no time at all is no division by zero", () => {
    expect(bandwidthOf(8, 5, 0).mibPerSecond).toBeLessThan(Number.POSITIVE_INFINITY);
  });
});

describe("latency", () => {
  it("hundred messages of 1 to 100 us, shuffled → median, percentiles, both halves", () => {
    const posted = new Float64Array(101);
    for (let i = 0; i < 100; i++) {
      const us = ((i * 37) % 100) + 1;
      posted[i + 1] = (posted[i] as number) + us * 1000;
    }
    expect(latencyOf(2, posted, false)).toMatchObject({
      iterations: 100,
      minUs: 1,
      maxUs: 100,
      medianUs: 51,
      meanUs: 50.5,
      p99Us: 100,
      p999Us: 100,
    });
    expect(latencyOf(2, posted, true)).toMatchObject({ minUs: 0.5, maxUs: 50, meanUs: 25.25 });
    expect(latencyOf(2, posted, false).stdevUs).toBeCloseTo(28.866, 3);
  });

  it("as many columns as headings", () => {
    const columns = (text: string) => text.trim().split(/ {2,}/).length;
    expect(columns(lineOf(latencyOf(2, Float64Array.of(0, 1000, 3000), false)))).toBe(9);
    expect(columns(headingOf("lat"))).toBe(9);
    expect(columns(headingOf("bw"))).toBe(4);
  });
});

// SPDX-License-Identifier: MIT
// The floors of the house (docs/architecture.md) as a table. The compiler enforces the references
// of each room's tsconfig.json; tidy checks that those are exactly these, so that a new edge is a
// visible change of this file.

export interface Room {
  /** An import goes to the same floor or a lower one. */
  readonly floor: number;
  /** Rooms whose doors it may use. */
  readonly uses: readonly string[];
  /** Synchronous, without I/O, time or randomness of its own. */
  readonly isCore: boolean;
  /** Packages beside Node's own modules that it may import. */
  readonly packages: readonly string[];
}

/**
 * Floor 5 for the side rooms: they see the interfaces they implement, only floors above see them.
 */
export const ROOMS: Readonly<Record<string, Room>> = {
  base: { floor: 0, isCore: true, packages: [], uses: [] },
  wire: { floor: 1, isCore: true, packages: [], uses: ["base"] },
  transport: { floor: 2, isCore: true, packages: [], uses: ["base", "wire"] },
  mm: { floor: 2, isCore: true, packages: [], uses: ["base"] },
  pci: { floor: 2, isCore: true, packages: [], uses: ["base"] },
  verbs: { floor: 3, isCore: true, packages: [], uses: ["base", "wire", "transport"] },
  cm: { floor: 3, isCore: true, packages: [], uses: ["base", "wire", "verbs"] },
  block: { floor: 4, isCore: true, packages: [], uses: ["base"] },
  rtrs: { floor: 4, isCore: true, packages: [], uses: ["base", "wire", "verbs", "cm"] },
  rnbd: { floor: 5, isCore: true, packages: [], uses: ["base", "wire", "rtrs", "block"] },
  copy: { floor: 5, isCore: true, packages: [], uses: ["base", "rtrs"] },
  nbd: { floor: 5, isCore: true, packages: [], uses: ["base", "wire", "block"] },
  trace: { floor: 5, isCore: true, packages: [], uses: ["base", "wire", "transport"] },
  sim: {
    floor: 5,
    isCore: true,
    packages: [],
    uses: ["base", "wire", "transport", "block", "trace"],
  },
  os: {
    floor: 5,
    isCore: false,
    packages: ["koffi", "@node-rs/crc32"],
    uses: ["base", "wire", "transport", "mm", "block", "nbd", "copy", "pci"],
  },
  runtime: {
    floor: 6,
    isCore: false,
    packages: ["pino", "zod", "prom-client"],
    uses: [
      "base",
      "wire",
      "transport",
      "verbs",
      "cm",
      "rtrs",
      "rnbd",
      "copy",
      "block",
      "nbd",
      "os",
      "mm",
      "pci",
      "sim",
      "trace",
    ],
  },
  tools: {
    floor: 6,
    isCore: false,
    packages: [],
    uses: ["base", "wire", "transport", "verbs", "cm", "runtime"],
  },
  cli: {
    floor: 7,
    isCore: false,
    packages: ["commander", "zod", "pino"],
    uses: ["base", "mm", "pci", "runtime", "tools"],
  },
};

/** Rooms in which BigInt is banned for its cost. */
export const NO_BIGINT_ROOMS: readonly string[] = ["wire", "mm", "transport"];

// SPDX-License-Identifier: MIT
// `npm run bench -- [rdma|block|secure|copy|lanes|memory]... [--rounds N] [--json FILE]`, with
// `--backend B` on other sockets.
// `--before DIST` compares rdma and block with another build instead (the folder of its `cli/`).

import { writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { blockComparisons, blockPairs } from "./block.js";
import { copyComparisons } from "./copy.js";
import { laneComparisons } from "./lanes.js";
import { memoryComparisons } from "./memory.js";
import { type Comparison, compare, type Row, table } from "./ratio.js";
import { rdmaComparisons, rdmaPairs } from "./rdma.js";
import { secureComparisons } from "./secure.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    rounds: { type: "string", default: "5" },
    json: { type: "string" },
    backend: { type: "string", default: "auto" },
    only: { type: "string" },
    before: { type: "string" },
  },
});
const ALL = ["rdma", "block", "secure", "copy", "lanes", "memory"];
const rounds = Number(values.rounds);
const before = values.before === undefined ? null : resolve(values.before, "cli/main.js");
const all = before === null ? ALL : ["rdma", "block"];
const groups = positionals.length === 0 ? all : positionals;
const machine = {
  cpu: cpus()[0]?.model ?? "unknown",
  cores: cpus().length,
  memoryGiB: Math.round(totalmem() / 2 ** 30),
  kernel: release(),
  node: process.version,
};
const rows: Row[] = [];

async function measure(comparisons: readonly Comparison[]): Promise<void> {
  const chosen = comparisons.filter((one) => one.figure.includes(values.only ?? ""));
  for (const comparison of chosen) {
    process.stderr.write(`${comparison.figure} ...\n`);
    rows.push(...(await compare(comparison, rounds)));
  }
}

if (groups.includes("rdma")) {
  const { backend } = values;
  await measure(before === null ? rdmaComparisons(backend) : rdmaPairs(before, backend));
}
if (groups.includes("memory")) await measure(memoryComparisons());
for (const [group, prepare] of [
  ["block", before === null ? blockComparisons : (b: string) => blockPairs(before, b)],
  ["secure", secureComparisons],
  ["copy", copyComparisons],
  ["lanes", laneComparisons],
] as const) {
  if (!groups.includes(group)) continue;
  const { comparisons, close } = await prepare(values.backend);
  try {
    await measure(comparisons);
  } finally {
    await close();
  }
}
const title =
  `${machine.cores} cores of ${machine.cpu}, ${machine.memoryGiB} GiB, Linux ${machine.kernel}, ` +
  `Node ${machine.node}; medians of ${rounds} alternating runs`;
process.stdout.write(`${title}\n\n${table(rows)}\n`);
if (values.json !== undefined) {
  writeFileSync(values.json, `${JSON.stringify({ machine, rounds, rows }, null, 2)}\n`);
}

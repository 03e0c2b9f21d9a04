// SPDX-License-Identifier: MIT
// The 517-function server: reading its dump, and the matrix of its 30 peers (900 pairs).

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { bench, describe } from "vitest";
import { PciIds } from "../ids.js";
import { p2pPath } from "../path.js";
import { readTopology } from "../read.js";
import { Inventory } from "./inventory.js";
import { makeMatrix, matrixText } from "./matrix.js";
import { selectDefault } from "./select.js";

const DUMP = new URL(
  "../../../test/data/topologies/dell-xe9680-h100/lspci-vvv.txt",
  import.meta.url,
);
const bytes = readFileSync(fileURLToPath(DUMP));
const ids = new PciIds("");
const read = () => readTopology([{ name: "lspci-vvv.txt", bytes }]);
const topology = read();

describe("517 functions", () => {
  bench("read the dump", () => {
    read();
  });

  bench("judge and print 900 pairs", () => {
    const inventory = new Inventory(topology, ids);
    const peers = selectDefault(inventory);
    const judge = (client: string, provider: string) => p2pPath(topology, client, provider);
    matrixText(inventory, makeMatrix(peers, peers, "7.2", judge));
  });
});

// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { PciIds } from "../ids.js";
import { Inventory } from "./inventory.js";
import { type FunctionSpec, makeHop, makePath, makeTopology } from "./machine.fixture.js";
import { escapeXml, treeSvg } from "./svg.js";
import { makeTree, treeText } from "./tree.js";

const SWITCH: readonly FunctionSpec[] = [
  { address: "0000:00:00.0", class: 0x0600, name: "Host bridge", id: [0x8086, 0x09a2] },
  { address: "0000:00:01.0", secondary: 1, acs: 0x1d },
  { address: "0000:01:00.0", parent: "0000:00:01.0", secondary: 2, acs: null },
  { address: "0000:02:00.0", parent: "0000:01:00.0", secondary: 3, acs: 0 },
  { address: "0000:02:01.0", parent: "0000:01:00.0", secondary: 4, acs: 0x0c },
  { address: "0000:03:00.0", parent: "0000:02:00.0", class: 0x0302, name: "GPU <b>&\"'\u0001" },
  { address: "0000:04:00.0", parent: "0000:02:01.0", class: 0x0108, kernel: ["nvme0"] },
  { address: "0000:40:00.0", class: 0x0880, name: "uncore" },
  { address: "0000:40:00.1", class: 0x0880, name: "uncore" },
];
const inventory = new Inventory(makeTopology(SWITCH), new PciIds(""));

const refused = makePath({
  client: "0000:04:00.0",
  provider: "0000:03:00.0",
  mapType: "NOT_SUPPORTED",
  common: "0000:01:00.0",
  hops: [
    makeHop("0000:03:00.0", "provider", null),
    makeHop("0000:02:00.0", "provider"),
    makeHop("0000:01:00.0", "common", null),
    makeHop("0000:02:01.0", "client", 0x0c),
    makeHop("0000:04:00.0", "client", null),
  ],
  redirectPorts: ["0000:02:01.0"],
});

describe("the tree", () => {
  it("shows what matters with the bridges above it, and tells the rest in numbers", () => {
    expect(treeText(makeTree(inventory))).toEqual([
      "root bus 0000:00  first 00.0 8086:09a2",
      "├─ 0000:00:01.0  [01]  ACS SrcValid+ ReqRedir+ CmpltRedir+ UpstreamFwd+  REDIRECTS",
      "│  └─ 0000:01:00.0  [02]",
      "│     ├─ 0000:02:00.0  [03]",
      "│     │  └─ GPU0  0000:03:00.0  GPU <b>&\"'\u0001",
      "│     └─ 0000:02:01.0  [04]  ACS ReqRedir+ CmpltRedir+  REDIRECTS",
      "│        └─ SSD0 nvme0  0000:04:00.0  unknown device",
      "└─ 0000:00:00.0  Host bridge",
      "1 more root bus with 2 functions, none of which is a GPU, accelerator, NIC, " +
        "NVMe drive or memory",
    ]);
  });

  it("whole shows every function", () => {
    const tree = makeTree(inventory, { isWhole: true });
    const lines = treeText(tree).join("\n");
    for (const { address } of SWITCH) expect(lines).toContain(address);
    expect(tree.rest).toBeNull();
  });

  it("marks a path, up to the root where the traffic would go up", () => {
    const marked = treeText(makeTree(inventory, { path: refused })).filter((l) => /<--$/.test(l));
    // All but the host bridge: the redirecting port sends it up to the root.
    expect(marked).toHaveLength(7);
    const direct = makePath({ ...refused, mapType: "BUS_ADDR", redirectPorts: [] });
    const turns = treeText(makeTree(inventory, { path: direct })).filter((l) => /<--$/.test(l));
    expect(turns).toHaveLength(5);
  });

  it("keeps functions whose place is unknown, apart from the others", () => {
    const topology = makeTopology([{ address: "0000:05:00.0", class: 0x0302 }]);
    const lost = { ...topology.functions.get("0000:05:00.0")!, parent: "unknown" as const };
    const functions = new Map([["0000:05:00.0", lost]]);
    const tree = makeTree(
      new Inventory({ ...topology, functions, rootBuses: new Map() }, new PciIds("")),
    );
    expect(tree.roots.map(({ title }) => title)).toEqual(["place unknown"]);
    expect(tree.roots[0]?.children).toHaveLength(1);
  });
});

describe("the drawing", () => {
  it("has every node of the tree once, refusing ports in red, others not", () => {
    const svg = treeSvg(makeTree(inventory), "title");
    // Background, legend, boxes.
    expect(svg.match(/<rect /g)).toHaveLength(1 + 5 + 8);
    // The legend's box and two ports.
    expect(svg.match(/fill="#fbd5d5"/g)).toHaveLength(3);
  });

  it("escapes what dumps say, and leaves out what XML can't hold", () => {
    const svg = treeSvg(makeTree(inventory), "<script>");
    expect(svg).not.toContain("<b>");
    expect(svg).not.toContain("<script");
    expect(svg).toContain("&lt;b&gt;&amp;&quot;&#39;");
    expect(svg).not.toContain("\u0001");
    expect(escapeXml("a\ud800b\u0000\u{1f600}")).toBe("ab\u{1f600}");
  });

  it("keeps the whole text of a box that is too narrow for it", () => {
    const name = "A drive with a name that is much longer than any box of this drawing is wide";
    const long = makeTopology([{ address: "0000:05:00.0", class: 0x0108, name }]);
    const svg = treeSvg(makeTree(new Inventory(long, new PciIds(""))), "");
    expect(svg).toContain(`<title>SSD0  0000:05:00.0: ${name}</title>`);
    expect(svg).toMatch(/class="s">A drive with a name that is much longer[^<]*…</);
  });

  it("draws the marked path in the colour of its answer", () => {
    const svg = treeSvg(makeTree(inventory, { path: refused }), "refused");
    expect(svg.match(/stroke="#c81e1e" stroke-width="3.5"/g)).toHaveLength(6);
    expect(treeSvg(makeTree(inventory), "")).not.toContain('stroke-width="3.5"');
  });
});

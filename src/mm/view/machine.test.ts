// SPDX-License-Identifier: MIT
// What Linux says of its memory, understood: text of several kernels, cut off, odd and missing.

import { describe, expect, it } from "vitest";
import { findingsOf } from "./findings.js";
import { orderViews } from "./fragmentation.js";
import { parseBuddyinfo, parsePagetypeinfo } from "./free-lists-text.js";
import { type MachineFiles, parseMachineMemory } from "./machine.js";
import { machineJson, machineText } from "./machine-report.js";
import { Notices } from "./machine-text.js";

const BUDDYINFO = `Node 0, zone      DMA 0 0 0 0 0 0 0 0 1 1 3
Node 0, zone   Normal   6166  24430  17180   8822   5051   2841   1162    826    393    268    305
`;
const PAGETYPEINFO = `Page block order: 9
Pages per block:  512

Free pages count per migrate type at order       0      1      2 
Node    0, zone   Normal, type    Unmovable      4      2      1 
Node    0, zone   Normal, type      Movable >100000      0      3 

Number of blocks type     Unmovable      Movable  Reclaimable   HighAtomic      Isolate 
Node 0, zone   Normal           34           60            6            0            0 
`;
const MEMINFO = `MemTotal:       1000000 kB
MemFree:          20000 kB
Cached:          400000 kB
Shmem:            10000 kB
HugePages_Total:       7
Hugepagesize:      2048 kB
`;

function files(texts: Readonly<Record<string, string>>): MachineFiles {
  const encoder = new TextEncoder();
  return new Map(Object.entries(texts).map(([path, text]) => [path, encoder.encode(text)]));
}

const bytes = (text: string) => new TextEncoder().encode(text);
const ids = (texts: Readonly<Record<string, string>>) =>
  findingsOf(parseMachineMemory(files(texts))).map(({ id }) => id);

describe("buddyinfo", () => {
  it("is zones and their free blocks by order, however many orders the kernel has", () => {
    const zones = parseBuddyinfo(bytes(`${BUDDYINFO}Node 1, zone Movable 1 2 3\n`));
    expect(zones.map(({ node, zone }) => `${node} ${zone}`)).toEqual([
      "0 DMA",
      "0 Normal",
      "1 Movable",
    ]);
    expect(zones[1]?.counts).toHaveLength(11);
    expect(zones[2]?.counts).toEqual([1, 2, 3]);
  });

  it("a line that ends early: left out, for half a number is another number", () => {
    const notices = new Notices();
    const zones = parseBuddyinfo(bytes(BUDDYINFO.slice(0, -3)), notices);
    expect(zones).toHaveLength(1);
    expect(notices.kept).toEqual([
      { file: "proc/buddyinfo", line: 2, message: "the last line has no end: left out" },
    ]);
  });

  it.each([
    ["Node 0, zone Normal 1 2 x\n", "not a zone and its counts: left out"],
    ["Node 0, zone Normal -1 2\n", "not a zone and its counts: left out"],
    ["Node 0, zone Normal\n", "not a zone and its counts: left out"],
    ["Node 0, zone Normal 1 2\nNode 0, zone Normal 3 4\n", "the same zone again: left out"],
    [`Node 0, zone Normal ${"1 ".repeat(33)}\n`, "not a zone and its counts: left out"],
    ["Node 0, zone Normal 9999999999999999\n", "not a zone and its counts: left out"],
    [`${"x".repeat(5000)}\n`, "too long: left out"],
  ])("%j: told, and not believed", (text, message) => {
    const notices = new Notices();
    parseBuddyinfo(bytes(text), notices);
    expect(notices.kept.map((notice) => notice.message)).toEqual([message]);
  });
});

describe("pagetypeinfo", () => {
  it("is free lists by migrate type, some of them cut at 100,000, and page blocks", () => {
    const notices = new Notices();
    const types = parsePagetypeinfo(bytes(PAGETYPEINFO), notices);
    expect(types.pageBlockOrder).toBe(9);
    expect(types.free.map(({ type, isAtLeast }) => [type, isAtLeast])).toEqual([
      ["Unmovable", false],
      ["Movable", true],
    ]);
    expect(types.free[1]?.counts).toEqual([100_000, 0, 3]);
    expect(types.blocks[0]?.blocks.get("Reclaimable")).toBe(6);
    expect(notices.kept).toEqual([]);
  });

  it("a table of mixed blocks is another table", () => {
    const mixed = `Number of mixed blocks    Unmovable      Movable\nNode 0, zone   Normal  7  8\n`;
    const types = parsePagetypeinfo(bytes(`${PAGETYPEINFO}\n${mixed}`));
    expect(types.blocks).toHaveLength(1);
    expect(types.blocks[0]?.blocks.get("Unmovable")).toBe(34);
  });

  it("counts of page blocks without their heading: left out", () => {
    const notices = new Notices();
    expect(parsePagetypeinfo(bytes("Node 0, zone Normal 1 2\n"), notices).blocks).toEqual([]);
    expect(notices.kept[0]?.message).toMatch(/without a heading/);
  });
});

describe("fragmentation", () => {
  it("free memory in single pages: all of order 0, none of order 2, for it lies in pieces", () => {
    const views = orderViews([1000, 0, 0]);
    expect(views[0]).toEqual({
      order: 0,
      freeBlocks: 1000,
      usableShare: 1,
      fragmentationIndex: -1,
    });
    expect(views[2]?.usableShare).toBe(0);
    // Linux: 1000 - (1000 + 1000 * 1000 / 4) / 1000 = 749 thousandths.
    expect(views[2]?.fragmentationIndex).toBeCloseTo(0.749, 3);
  });

  it("little free memory: a request fails for want of it", () => {
    expect(orderViews([0, 1], 9)[9]?.fragmentationIndex).toBe(0);
    expect(orderViews([], 2)[2]).toEqual({
      order: 2,
      freeBlocks: 0,
      usableShare: 1,
      fragmentationIndex: 0,
    });
  });
});

describe("a machine", () => {
  const whole = {
    "proc/buddyinfo": BUDDYINFO,
    "proc/pagetypeinfo": PAGETYPEINFO,
    "proc/meminfo": MEMINFO,
    "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "0\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]\n",
    "proc/sys/vm/compaction_proactiveness": "0\n",
    "proc/vmstat": "compact_stall 3\nthp_fault_alloc 10\nthp_fault_fallback 90\nnr_x -4\n",
  };

  it("is told with what could be done about it", () => {
    expect(ids(whole)).toEqual([
      "short",
      "fragmented",
      "scattered",
      "totals-differ",
      "thp-off",
      "thp-fallback",
      "no-pool",
      "no-background",
    ]);
    const text = machineText(parseMachineMemory(files(whole)), "m").join("\n");
    expect(text).toMatch(/^ {2}2 MiB +269 .*<- huge page/m);
    expect(text).toMatch(/Unmovable .* 34 +34 %/);
    expect(text).toMatch(/drop_caches.*\n +costs: frees up to 381 MiB/);
    expect(text).toMatch(/waited for it 3/);
  });

  it("every finding has an id and sentences, every command its cost", () => {
    for (const { id, text, remedies } of findingsOf(parseMachineMemory(files(whole)))) {
      expect(id).toMatch(/^[a-z-]+$/);
      expect(text.length).toBeGreaterThan(20);
      for (const { command, cost } of remedies) {
        expect(command).not.toBe("");
        expect(cost).not.toBe("");
      }
    }
  });

  it("pages of 64 KiB are known by the size of a page block, or by the free memory", () => {
    const meminfo = "MemTotal: 9000000 kB\nMemFree: 640 kB\nHugepagesize: 524288 kB\n";
    const of = (texts: Readonly<Record<string, string>>) => parseMachineMemory(files(texts));
    const typed = of({ "proc/pagetypeinfo": "Page block order: 13\n", "proc/meminfo": meminfo });
    expect([typed.pageBytes, typed.isPageBytesKnown]).toEqual([65_536, true]);
    const lists = of({ "proc/buddyinfo": "Node 0, zone Normal 10\n", "proc/meminfo": meminfo });
    expect([lists.pageBytes, lists.isPageBytesKnown]).toEqual([65_536, true]);
    const nothing = of({ "proc/buddyinfo": "Node 0, zone Normal 10\n" });
    expect([nothing.pageBytes, nothing.isPageBytesKnown]).toEqual([4096, false]);
  });

  it("pagetypeinfo that is root's alone: said, with what to do", () => {
    const all = new Map([...files(whole)].filter(([path]) => path !== "proc/pagetypeinfo"));
    const denied = parseMachineMemory(new Map([...all, ["proc/pagetypeinfo", { code: "EACCES" }]]));
    const finding = findingsOf(denied).find(({ id }) => id === "no-page-types");
    expect(finding?.remedies[0]?.command).toBe("sudo farpage mem");
    expect(machineJson(denied)["pageTypes"]).toBeNull();
    expect(machineJson(denied)["unread"]).toEqual({ "proc/pagetypeinfo": "EACCES" });
  });

  it("neither free blocks nor totals: ENODATA", () => {
    expect(() => parseMachineMemory(files({ "proc/vmstat": "a 1\n" }))).toThrow(
      expect.objectContaining({ code: "ENODATA" }),
    );
  });
});

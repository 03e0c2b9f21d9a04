// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { parseSmaps } from "./memory-pages.js";

const SMAPS = `7f0000000000-7f0000400000 rw-p 00000000 00:00 0
Size:               4096 kB
KernelPageSize:        4 kB
Rss:                2052 kB
AnonHugePages:      2048 kB
Shared_Hugetlb:        0 kB
Private_Hugetlb:       0 kB
VmFlags: rd wr mr mw me ac sd hg
7f0000400000-7f0000800000 rw-p 00000000 00:0f 17 /anon_hugepage (deleted)
Size:               4096 kB
Rss:                   0 kB
AnonHugePages:         0 kB
Private_Hugetlb:    4096 kB
7f0010000000-7f0010100000 r-xp 00000000 08:01 99 /usr/lib/libc.so.6
Rss:                1024 kB
`;

describe("parseSmaps", () => {
  it("sums what lies in the ranges, and nothing else", () => {
    const range = { start: 0x7f0000000000, end: 0x7f0000800000 };
    expect(parseSmaps(SMAPS, [range])).toEqual({
      mappedBytes: 8 << 20,
      residentBytes: 2052 << 10,
      transparentHugeBytes: 2 << 20,
      hugetlbBytes: 4 << 20,
    });
  });

  it("a mapping that the system joined with a neighbour counts with its share", () => {
    const range = { start: 0x7f0000200000, end: 0x7f0000400000 };
    expect(parseSmaps(SMAPS, [range])).toMatchObject({
      mappedBytes: 2 << 20,
      residentBytes: 1026 << 10,
    });
  });

  it("ranges that aren't there → nothing", () => {
    expect(parseSmaps(SMAPS, [{ start: 0x1000, end: 0x2000 }]).mappedBytes).toBe(0);
  });
});

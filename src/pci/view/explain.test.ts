// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { PciIds } from "../ids.js";
import type { RootVerdict } from "../verdict.js";
import { explainText, headline, pathText, rootText } from "./explain.js";
import { Inventory } from "./inventory.js";
import { makeHop, makePath, makeTopology } from "./machine.fixture.js";
import { countAnswers, makeMatrix, matrixText } from "./matrix.js";

const GPU = "0000:03:00.0";
const DISK = "0000:04:00.0";
const FAR = "0000:40:00.0";
const inventory = new Inventory(
  makeTopology([
    { address: "0000:00:01.0", secondary: 1, acs: 0x1d },
    { address: GPU, parent: "0000:00:01.0", class: 0x0302 },
    { address: DISK, parent: "0000:00:01.0", class: 0x0108, kernel: ["nvme0"] },
    { address: FAR, class: 0x0200 },
  ]),
  new PciIds(""),
);

const ROOT: RootVerdict = {
  rootBus: "0000:00",
  representative: "0000:00:00.0",
  vendorId: 0x8086,
  deviceId: 0x6f00,
  isEligible: true,
  isListed: false,
  isSameBusOnly: false,
  listedAs: null,
  listedSince: null,
  isAssumed: false,
};

const refused = makePath({
  client: DISK,
  provider: GPU,
  mapType: "NOT_SUPPORTED",
  common: "0000:00:01.0",
  hops: [
    makeHop(GPU, "provider", null),
    makeHop("0000:00:01.0", "common", 0x1d),
    makeHop(DISK, "client", null),
  ],
  redirectPorts: ["0000:00:01.0"],
  hostBridge: { ...makePath({ client: DISK, provider: GPU }).hostBridge, roots: [ROOT] },
  kernelLog: ["cannot be used"],
  remedies: [
    {
      kind: "disable-acs-redir",
      command: "pci=disable_acs_redir=0000:00:01.0",
      action: "Boot with the redirection off.",
      predicted: "BUS_ADDR",
      cost: "one IOMMU group",
    },
  ],
  futile: [{ what: "pcie_acs_override", why: "it changes groups, not the ports" }],
});

describe("explain", () => {
  it("tells the walk, what decides, what would change it and what would not", () => {
    expect(explainText(inventory, refused)).toEqual([
      "nvme0 (0000:04:00.0) to the memory of GPU0 (0000:03:00.0): refused (NOT_SUPPORTED).",
      "  no route; distance 4; PIX: at most one bridge or switch between them",
      "",
      "The way:",
      "    1. GPU0 (0000:03:00.0) unknown device, whose memory it is: no ACS, it redirects nothing",
      "    2. 0000:00:01.0 unknown device, where the two ways meet: ACS REDIRECTS " +
        "(SrcValid+ ReqRedir+ CmpltRedir+ UpstreamFwd+): what peers send is sent up",
      "    3. nvme0 (0000:04:00.0) unknown device, that reads and writes: " +
        "no ACS, it redirects nothing",
      "",
      "What decides, by the rules of kernel 7.1:",
      "  The ways meet at 0000:00:01.0.",
      "  ACS redirects at 1 function of the way (0000:00:01.0): " +
        "what peers send is sent up to the host bridge.",
      "  Processor: an Intel processor: no rule for it.",
      "  for root bus 0000:00 stands 0000:00:00.0 8086:6f00, which the kernel does not list.",
      "  So the host bridge is not trusted to pass it on.",
      "",
      "What the kernel would log:",
      "  cannot be used",
      "",
      "What would change it:",
      "  * Boot with the redirection off. (then BUS_ADDR)",
      "      pci=disable_acs_redir=0000:00:01.0",
      "      cost: one IOMMU group",
      "",
      "What would not help:",
      "  pcie_acs_override: it changes groups, not the ports",
    ]);
  });

  it("in short tells the answer, the ports and the first remedy", () => {
    const lines = pathText(inventory, refused);
    expect(lines[0]).toBe(headline(inventory, refused));
    expect(lines).toContain("  ACS redirects at 0000:00:01.0");
    expect(lines).toContain("  to change it: pci=disable_acs_redir=0000:00:01.0");
  });

  it("in short names no larger BAR as the way to another verdict", () => {
    const path = makePath({
      client: DISK,
      provider: GPU,
      mapType: "unknown",
      remedies: [
        {
          kind: "resize-bar",
          command: "echo 15 > resource1_resize",
          action: "BAR 1 offers less than it could.",
          predicted: "unknown",
          cost: "address space",
        },
      ],
    });
    expect(pathText(inventory, path).join("\n")).not.toContain("resize");
    expect(explainText(inventory, path).join("\n")).toContain("echo 15 > resource1_resize");
  });

  it("never calls unknown anything else, and says what it depends on", () => {
    const path = makePath({
      client: DISK,
      provider: GPU,
      mapType: "unknown",
      maybeRedirectPorts: ["0000:00:01.0"],
      missing: [
        {
          subject: "0000:00:01.0",
          fact: "acs-control",
          isDeciding: true,
          message: "ACS of 0000:00:01.0 is not in the dump.",
        },
      ],
    });
    const text = explainText(inventory, path).join("\n");
    expect(text).toContain("unknown (BUS_ADDR or NOT_SUPPORTED).");
    expect(text).toContain("DECIDES: ACS of 0000:00:01.0 is not in the dump.");
    expect(text).not.toMatch(/\bworks\b/);
    expect(pathText(inventory, path).join("\n")).toContain("unknown: ACS of 0000:00:01.0");
  });

  it.each([
    [{ representative: null }, "has no device that could stand for it"],
    [{ representative: "unknown" }, "what stands first on root bus 0000:00 is unknown"],
    [{ isEligible: false }, "neither device 00.0 nor a root port"],
    [{ isListed: "unknown", vendorId: "unknown" }, "(numbers not told), and whether"],
    [{ listedSince: "7.2" }, "does not list (kernel 7.2 and later do)"],
    [{ isListed: true, listedAs: "Haswell" }, "which the kernel lists as Haswell"],
    [{ isListed: true, isSameBusOnly: true }, "for pairs of the same root bus only"],
  ] as const)("a root bus %j", (facts, text) => {
    expect(rootText({ ...ROOT, ...facts } as RootVerdict, "7.1")).toContain(text);
  });

  it("a root bus whose entry was taken out of the list has no release that lists it", () => {
    const text = rootText({ ...ROOT, listedSince: "5.5" }, "7.1");
    expect(text).toMatch(/does not list$/);
    expect(rootText({ ...ROOT, listedSince: "5.15" }, "5.9")).toContain("5.15 and later");
  });
});

describe("the matrix", () => {
  const judge = (client: string, provider: string) => {
    if (provider === FAR || client === FAR) {
      const isProvider = provider === FAR;
      return makePath({
        client,
        provider,
        mapType: isProvider ? "unknown" : "THRU_HOST_BRIDGE",
        proximity: isProvider ? "unknown" : "SYS",
      });
    }
    return makePath({ client, provider, mapType: client === DISK ? "NOT_SUPPORTED" : "BUS_ADDR" });
  };
  const matrix = makeMatrix([GPU, DISK, FAR], [GPU, DISK, FAR], "7.1", judge);

  it("has the legend that people know and the verdict in one cell, and sums them", () => {
    expect(matrixText(inventory, matrix).slice(0, 4)).toEqual([
      "      GPU0  SSD0  NIC0",
      "GPU0  X     PIX+  ??",
      "SSD0  PIX-  X     ??",
      "NIC0  SYS~  SYS~  X",
    ]);
    expect(countAnswers(matrix)).toEqual({
      direct: 1,
      "host-bridge": 2,
      allowed: 0,
      refused: 1,
      unknown: 2,
    });
    expect(matrixText(inventory, matrix).at(-1)).toBe(
      "6 pairs by the rules of kernel 7.1: 1 direct, 2 by the host bridge, 1 refused, 2 unknown.",
    );
  });

  it("explains the signs that occur and no others", () => {
    const text = matrixText(inventory, matrix).join("\n");
    expect(text).toContain("  SYS  the link between NUMA nodes");
    expect(text).not.toContain("PXB");
    expect(text).not.toContain("by which of the two ways is unknown");
  });
});

// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { encodeUtf8 } from "../base/index.js";
import { p2pPath } from "./path.js";
import { readTopology } from "./read.js";
import type { FolderEntry, ReadOptions } from "./source.js";
import type { PciFunction, Topology } from "./topology.js";

function read(text: string, options?: ReadOptions): Topology {
  return readTopology([{ name: "dump", bytes: encodeUtf8(text) }], options);
}

function one(topology: Topology, address: string): PciFunction {
  const found = topology.functions.get(address);
  if (found === undefined) throw new Error(`no ${address}`);
  return found;
}

function code(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    return (error as { code: string }).code;
  }
  return "none";
}

const ACS_OFF = "SrcValid- TransBlk- ReqRedir- CmpltRedir- UpstreamFwd- EgressCtrl- DirectTrans-";
const ACS_ON = "SrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-";

function port(
  control: string,
  capability = "Capabilities: [140 v1] Access Control Services",
): string {
  return [
    "00:01.0 PCI bridge: Intel Corporation Device 347a (rev 04) (prog-if 00 [Normal decode])",
    "\tControl: I/O- Mem+ BusMaster+ SpecCycle- MemWINV-",
    "\tStatus: Cap+ 66MHz- UDF- FastB2B-",
    "\tBus: primary=00, secondary=01, subordinate=01, sec-latency=0",
    "\tCapabilities: [40] Express (v2) Root Port (Slot+), MSI 00",
    `\t${capability}`,
    `\t\tACSCap:\t${ACS_ON}`,
    `\t\tACSCtl:\t${control}`,
    "\tKernel driver in use: pcieport",
    "",
    "",
  ].join("\n");
}

describe("dirty text", () => {
  const clean = port(ACS_ON);
  const forms: Readonly<Record<string, string>> = {
    clean,
    "CRLF line ends": clean.replaceAll("\n", "\r\n"),
    "eight blanks for a tab": clean.replaceAll("\t", "        "),
    "quoted in a mail": clean.replaceAll(/^/gm, "> "),
    "between prompts and prose": `Hello,\nhere:\n\nroot@box:~# lspci -vvv\n${clean}\nThanks\n`,
    "wrapped by a mailer": clean.replace(
      " UpstreamFwd+ EgressCtrl- DirectTrans-\n\tK",
      "\nUpstreamFwd+ EgressCtrl- DirectTrans-\n\tK",
    ),
    "with UTF-8 beside it": `über – §\n\n${clean}`,
  };

  it.each(Object.entries(forms))("%s: the port redirects", (_name, text) => {
    const topology = read(text);
    const { acs, pcie, bridge } = one(topology, "0000:00:01.0");
    expect(acs).toEqual({ offset: 0x140, capability: 0x1d, control: 0x1d });
    expect(pcie).toMatchObject({ portType: "root-port", slot: true });
    expect(bridge).toMatchObject({ secondary: 1, subordinate: 1 });
    expect(topology.functions.size).toBe(1);
  });

  it.each([
    ["little", (code: number) => [code & 0xff, code >> 8]],
    ["big", (code: number) => [code >> 8, code & 0xff]],
  ])("UTF-16, %s end first, as PowerShell writes it: the port redirects", (_name, unit) => {
    const text = `\ufeff\u00fcber\n\n${clean.replaceAll("\n", "\r\n")}`;
    const bytes = Uint8Array.from([...text].flatMap((each) => unit(each.charCodeAt(0))));
    const topology = readTopology([{ name: "dump", bytes }]);
    expect(one(topology, "0000:00:01.0").acs).toMatchObject({ control: 0x1d });
  });

  it("an ACSCtl line that lacks a word: unknown, with its line", () => {
    const topology = read(port(ACS_ON.replace(" DirectTrans-", "")));
    expect(one(topology, "0000:00:01.0").acs).toMatchObject({ control: "unknown" });
    expect(topology.report.notices).toMatchObject([{ code: "UNREADABLE_LINE", line: 8 }]);
  });

  it("the same function twice with other bits: unknown, and both can't be", () => {
    const topology = read(port(ACS_ON) + port(ACS_OFF));
    expect(one(topology, "0000:00:01.0").acs).toMatchObject({
      control: "unknown",
      capability: 0x1d,
    });
    expect(topology.report.notices.map((notice) => notice.code)).toEqual(["CONFLICT"]);
  });

  it("<access denied>: nothing of the capabilities is known, the bus is", () => {
    const lines = port(ACS_ON).split("\n");
    const text = [...lines.slice(0, 4), "\tCapabilities: <access denied>", "", ""].join("\n");
    const topology = read(text);
    expect(one(topology, "0000:00:01.0")).toMatchObject({ acs: "unknown", pcie: "unknown" });
    expect(one(topology, "0000:00:01.0").bridge).toMatchObject({ secondary: 1 });
    expect(topology.report.notices.map((notice) => notice.code)).toEqual(["NO_PRIVILEGE"]);
  });

  it("an elision within a block: what isn't shown may be there", () => {
    const lines = port(ACS_ON).split("\n");
    const text = [...lines.slice(0, 5), "[...]", "", ""].join("\n");
    expect(one(read(text), "0000:00:01.0").acs).toBe("unknown");
    const plain = [...lines.slice(0, 5), "", ""].join("\n");
    expect(one(read(plain), "0000:00:01.0").acs).toBe(null);
  });

  it("blank lines between all lines: what is shown counts, what isn't is unknown", () => {
    const topology = read(port(ACS_ON).replaceAll("\n", "\n\n"));
    expect(one(topology, "0000:00:01.0")).toMatchObject({ acs: { control: 0x1d }, ats: "unknown" });
  });

  it("names that would steer a terminal are shown without what does", () => {
    const text =
      "01:00.0 \u001b[2JOdd [0200]: Evil \u001b[31mRed\u0007 \u202eCorp [15b3:1017]\n" +
      "\tSubsystem: \u001b]0;x\u0007\n\tPhysical Slot: \u009b31m\n" +
      "\tKernel driver in use: \u001b[5m\n\nmodel name\t: \u001b[1mCPU\n";
    const topology = read(text);
    const { names } = one(topology, "0000:01:00.0");
    expect(names).toMatchObject({ class: "?[2JOdd", device: "Evil ?[31mRed? ?Corp" });
    const all = JSON.stringify([names, topology.cpu.model]);
    expect([...all].filter((each) => /[\p{Cc}\p{Cf}]/u.test(each))).toEqual([]);
    expect(all).not.toContain("\\u00");
  });

  it("prose with addresses in it invents no function", () => {
    const prose = "05:00.0 is my GPU: it fails\n06:00.0 does: not\nsee 07:00.0\n";
    expect([...read(port(ACS_ON) + prose).functions.keys()]).toEqual(["0000:00:01.0"]);
    expect(code(() => read(prose))).toBe("PCI_NOT_A_DUMP");
  });

  it("a cut header that the next dump follows is no function with its ids", () => {
    const cut = "00:02.0 PCI bridge [0604]: Some Thing [8086:1234]";
    const next = "00:00.0 Host bridge [0600]: Other Thing [8086:29c0] (rev 01)";
    const text = `${cut}${next}\n\n${port(ACS_ON)}`;
    expect([...read(text).functions.keys()]).toEqual(["0000:00:01.0"]);
  });

  it("lines longer than a chunk of the reader, before and after", () => {
    const long = "x".repeat(700_000);
    const topology = read(`${long}\n${port(ACS_ON)}${long}`);
    expect(one(topology, "0000:00:01.0").acs).toMatchObject({ control: 0x1d });
    expect(topology.report.sources[0]?.ignoredLines).toBe(2);
  });

  it("a piece cut out of the middle: the second half isn't taken for the first one's", () => {
    const lines = port(ACS_ON).split("\n");
    // From the first port's lines into the second one's, which has no ACS, past its header.
    const other = [...lines.slice(1, 5), "\tKernel driver in use: pcieport", "", ""];
    const text = [...lines.slice(0, 5), ...other].join("\n");
    expect(one(read(text), "0000:00:01.0").acs).toBe("unknown");
    const inside = [...lines.slice(0, 5), lines[4], ...other.slice(-3)].join("\n");
    expect(one(read(inside), "0000:00:01.0").acs).toBe("unknown");
  });

  it("hex that jumps ends where it jumps", () => {
    const rows = ["00: 86 80 7a 34 06 00 10 00 04 00 04 06 00 00 01 00"];
    rows.push("20: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00");
    const topology = read(
      `00:01.0 PCI bridge: Intel Corporation Device 347a\n${rows.join("\n")}\n`,
    );
    expect(one(topology, "0000:00:01.0")).toMatchObject({ configBytes: 16, pcie: "unknown" });
    expect(topology.report.notices.map((notice) => notice.code)).toEqual(["BAD_CONFIG"]);
  });
});

describe("trees", () => {
  it("a fragment from the middle: what has a bus is told, the rest is a notice", () => {
    const topology = read(
      " |           |            \\-00.1  Lost\n" +
        " +-[0000:40]-+-00.0  Advanced Micro Devices, Inc. [AMD] Starship/Matisse Root Complex\n" +
        " |           \\-01.1-[43-44]----00.0-[44]----00.0  Mellanox Technologies Device 1017\n",
    );
    expect([...topology.functions.keys()]).toEqual([
      "0000:40:00.0",
      "0000:40:01.1",
      "0000:43:00.0",
      "0000:44:00.0",
    ]);
    expect(one(topology, "0000:44:00.0")).toMatchObject({
      parent: "0000:43:00.0",
      rootBus: "0000:40",
      vendorId: 0x15b3,
      deviceId: 0x1017,
    });
    expect(topology.rootBuses.get("0000:40")).toMatchObject({
      representative: "0000:40:00.0",
      evidence: "stated",
    });
    expect(topology.cpu.isAmdZen).toBe(true);
    expect(topology.report.notices.map((notice) => notice.code)).toEqual(["CUT_OFF"]);
  });

  it("the bus of VFs behind a bridge belongs to that bridge", () => {
    const topology = read(
      "-[0000:00]---01.0-[01-02]--+-[0000:02]---00.0\n" +
        "                           \\-[0000:01]---00.0\n",
    );
    expect(one(topology, "0000:01:00.0").parent).toBe("0000:00:01.0");
    expect(one(topology, "0000:02:00.0").parent).toBe("0000:00:01.0");
  });
});

describe("bridges that contradict", () => {
  it("two bridges to one bus: nobody knows which", () => {
    const two = port(ACS_OFF) + port(ACS_OFF).replace("00:01.0", "00:02.0");
    const card =
      "01:00.0 Ethernet controller: Mellanox Technologies MT2910 Family [ConnectX-7]\n\n";
    expect(one(read(two + card), "0000:01:00.0").parent).toBe("unknown");
    expect(one(read(port(ACS_OFF) + card), "0000:01:00.0").parent).toBe("0000:00:01.0");
  });

  it("a ring of bridges: none of them has a parent", () => {
    const link = (target: string): FolderEntry => ({ kind: "link", target });
    const entries = new Map<string, FolderEntry>([
      ["bus/pci/devices/0000:01:00.0", link("../0000:02:00.0/0000:01:00.0")],
      ["bus/pci/devices/0000:02:00.0", link("../0000:01:00.0/0000:02:00.0")],
    ]);
    const topology = readTopology([{ name: "ring", entries }]);
    const path = p2pPath(topology, "0000:01:00.0", "0000:02:00.0");
    expect(path.mapType).toBe("unknown");
    expect(path.missing.some(({ fact }) => fact === "parent")).toBe(true);
  });

  it("a bus that no bridge of the dump leads to is not taken for a root bus", () => {
    const card =
      "81:00.0 Ethernet controller: Mellanox Technologies MT2910 Family [ConnectX-7]\n\n";
    const topology = read(port(ACS_OFF) + card);
    expect(one(topology, "0000:81:00.0")).toMatchObject({ parent: "unknown", rootBus: "unknown" });
  });
});

describe("two machines in one text", () => {
  const block = (name: string) => `00:00.0 Host bridge: ${name} (rev 01)\n\tFlags: fast devsel\n\n`;
  const listed = "Intel Corporation Sky Lake-E DMI3 Registers";
  const other = "Intel Corporation Xeon E7 v4/Xeon E5 v4/Xeon E3 v4/Xeon D DMI2";
  const verdict = (text: string) => {
    const topology = read(text);
    const { roots } = p2pPath(topology, "0000:00:00.0", "0000:00:00.0").hostBridge;
    const codes = topology.report.notices.map((notice) => notice.code);
    return { isListed: roots[0]?.isListed, hasConflict: codes.includes("CONFLICT") };
  };

  it("whether a first function with two names is listed is unknown, whichever comes first", () => {
    const isUnknown = { isListed: "unknown", hasConflict: true };
    expect(verdict(block(listed))).toEqual({ isListed: true, hasConflict: false });
    expect(verdict(block(other))).toEqual({ isListed: false, hasConflict: false });
    expect(verdict(block(listed) + block(other))).toEqual(isUnknown);
    expect(verdict(block(other) + block(listed))).toEqual(isUnknown);
    // A third time the first one doesn't bring the name back.
    expect(verdict(block(listed) + block(other) + block(listed))).toEqual(isUnknown);
  });

  it("the same text twice, or a name that was cut, is one machine", () => {
    const whole = { isListed: true, hasConflict: false };
    expect(verdict(block(listed) + block(listed))).toEqual(whole);
    expect(verdict(block(listed) + block(listed.slice(0, 30)))).toEqual(whole);
  });
});

describe("sources that are refused", () => {
  it("nothing known, nothing at all, compressed, too deep", () => {
    expect(code(() => read("GPU0 GPU1 NV12\n"))).toBe("PCI_NOT_A_DUMP");
    expect(code(() => readTopology([]))).toBe("PCI_NOT_A_DUMP");
    expect(code(() => readTopology([{ name: "empty", entries: new Map() }]))).toBe(
      "PCI_NOT_A_DUMP",
    );
    const gzip = Uint8Array.of(0x1f, 0x8b, 8, 0);
    const packed = [{ name: "a.gz", bytes: gzip }];
    expect(code(() => readTopology(packed))).toBe("PCI_COMPRESSED");
    // One that unpacks to itself ends.
    expect(code(() => readTopology(packed, { gunzip: () => gzip }))).toBe("PCI_NOT_A_DUMP");
    const failing = () => {
      throw new Error("invalid");
    };
    expect(code(() => readTopology(packed, { gunzip: failing }))).toBe("PCI_COMPRESSED");
  });

  it("one strange file among good ones is named", () => {
    const good = { name: "lspci.txt", bytes: encodeUtf8(port(ACS_ON)) };
    const strange = { name: "notes.txt", bytes: encodeUtf8("buy milk\n") };
    expect(() => readTopology([good, strange])).toThrow(/notes\.txt/);
  });

  it("the reader's own bound on bytes", () => {
    const gunzip = () => new Uint8Array((256 << 20) + 1);
    const packed = [{ name: "bomb.gz", bytes: Uint8Array.of(0x1f, 0x8b, 8, 0) }];
    expect(code(() => readTopology(packed, { gunzip }))).toBe("PCI_TOO_BIG");
  });
});

describe("a text that ends within a line", () => {
  it("of the machine: what half of it says isn't taken", () => {
    const whole = `${port(ACS_ON)}vendor_id\t: AuthenticAMD\ncpu family\t: 25\n`;
    expect(read(whole).cpu).toMatchObject({ family: 25, isAmdZen: true });
    for (const end of [1, 2, 3, 4, 5]) {
      const { cpu } = read(whole.slice(0, -end));
      expect([end, cpu.family, cpu.isAmdZen]).toEqual([end, "unknown", "unknown"]);
    }
  });

  it("a name in a tree: its function is there, without a name", () => {
    const tree = "-[0000:00]-+-00.0  Intel Corporation Ice Lake Memory Map/VT-d\n";
    const whole = `${tree}           \\-01.0  Intel Corporation Sky Lake-E DMI3 Registers\n`;
    expect(one(read(whole), "0000:00:01.0").names.device).toContain("Registers");
    const cut = read(whole.slice(0, -4));
    expect(one(cut, "0000:00:01.0").names.device).toBeNull();
    expect(one(cut, "0000:00:00.0").names.device).toContain("Ice Lake");
  });

  it("the rest of a wrapped line: the line is unknown, not half of it", () => {
    const line = "\t\tLnkSta:\tSpeed 16GT/s, TrErr- Train- SlotClk+ DLActive+, Width x16 (ok)";
    const text = port(ACS_ON).replace("\tCapabilities: [140", `${line}\n\tCapabilities: [140`);
    const link = (dump: string) => {
      const { pcie } = one(read(dump), "0000:00:01.0");
      return pcie === "unknown" || pcie === null ? pcie : pcie.link;
    };
    expect(link(text)).toEqual({ gigatransfers: 16, lanes: 16 });
    const wrapped = text.replace(", Width x16", ", Width\nx16");
    expect(link(wrapped)).toEqual({ gigatransfers: 16, lanes: 16 });
    expect(link(wrapped.slice(0, wrapped.indexOf("\nx16") + 3))).toBe("unknown");
  });
});

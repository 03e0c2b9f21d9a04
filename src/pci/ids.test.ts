// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { PciIds } from "./ids.js";

const FILE = [
  "# comment",
  "",
  "10de  NVIDIA Corporation",
  "\t2330  GH100 [H100 SXM5 80GB]",
  "\t\t10de 16c1  a subsystem's name",
  "\t26b1  AD102GL [RTX 6000 Ada Generation]",
  "# a comment between a vendor's devices",
  "\t2f95  Twin",
  "\t2f96  Twin",
  "8086  Intel Corporation",
  "\t6f00  Xeon E7 v4/Xeon E5 v4/Xeon E3 v4/Xeon D DMI2",
  "8087  Intel Corporation Other",
  "\t0001  Thing",
  "ffff  Illegal Vendor ID",
  "C 01  Mass storage controller",
  "\t08  Non-Volatile memory controller",
  "\t\t02  NVM Express",
  "C 03  Display controller",
].join("\n");

describe("pci.ids", () => {
  const ids = new PciIds(FILE);

  it("names vendors, devices and classes by their numbers", () => {
    expect(ids.vendorCount).toBe(4);
    expect(ids.vendorName(0x10de)).toBe("NVIDIA Corporation");
    expect(ids.deviceName(0x10de, 0x2330)).toBe("GH100 [H100 SXM5 80GB]");
    expect(ids.deviceName(0x10de, 0x26b1)).toBe("AD102GL [RTX 6000 Ada Generation]");
    expect(ids.className(0x0108)).toBe("Non-Volatile memory controller");
    expect(ids.className(0x0302)).toBe("Display controller");
  });

  it("has no name for what the file doesn't name", () => {
    expect(ids.vendorName(0x1234)).toBeNull();
    expect(ids.deviceName(0x10de, 0x0001)).toBeNull();
    // A subsystem's line is no device's, a device is its own vendor's alone.
    expect(ids.deviceName(0x10de, 0x10de)).toBeNull();
    expect(ids.deviceName(0x8086, 0x0001)).toBeNull();
    expect(ids.className(0x0c03)).toBeNull();
  });

  it("finds the numbers of a name, all of them", () => {
    const name = "Intel Corporation Xeon E7 v4/Xeon E5 v4/Xeon E3 v4/Xeon D DMI2";
    expect(ids.lookUp(name)).toEqual([{ vendor: 0x8086, device: 0x6f00 }]);
    expect(ids.lookUp("NVIDIA Corporation Twin")).toEqual([
      { vendor: 0x10de, device: 0x2f95 },
      { vendor: 0x10de, device: 0x2f96 },
    ]);
    expect(ids.lookUp("Intel Corporation Device 09a2")).toEqual([
      { vendor: 0x8086, device: 0x09a2 },
    ]);
    expect(ids.lookUp("Intel Corporation Other Thing")).toEqual([{ vendor: 0x8087, device: 1 }]);
    expect(ids.lookUp("Intel Corporation Nothing")).toEqual([]);
    expect(ids.lookUp("")).toEqual([]);
  });

  it("reads a file with CRLF, and one that is no such file at all", () => {
    const crlf = new PciIds(FILE.replaceAll("\n", "\r\n"));
    expect(crlf.deviceName(0x10de, 0x2330)).toBe("GH100 [H100 SXM5 80GB]");
    expect(crlf.vendorName(0xffff)).toBe("Illegal Vendor ID");
    expect(new PciIds("\u0000\u0001 prose\n\t\n\n").vendorCount).toBe(0);
    expect(new PciIds("").className(0x0108)).toBeNull();
  });
});

// SPDX-License-Identifier: MIT
// Vendors whose number matters to a verdict or to what a device is, under the names that lspci
// prints. A name starts the text of a function; the longest that fits counts.

const VENDORS: readonly (readonly [name: string, id: number])[] = [
  ["Advanced Micro Devices, Inc. [AMD/ATI]", 0x1002],
  ["Advanced Micro Devices, Inc. [AMD]", 0x1022],
  ["Advanced Micro Devices [AMD] nee ATI", 0x1002],
  ["Advanced Micro Devices [AMD]", 0x1022],
  ["Ampere Computing, LLC", 0x1def],
  ["ARM", 0x13b5],
  ["Broadcom / LSI", 0x1000],
  ["Broadcom Inc. and subsidiaries", 0x14e4],
  ["Broadcom Limited", 0x14e4],
  ["Cavium, Inc.", 0x177d],
  ["Chengdu Haiguang IC Design Co., Ltd.", 0x1d94],
  ["Google, Inc.", 0x1ae0],
  ["Huawei Technologies Co., Ltd.", 0x19e5],
  ["IBM", 0x1014],
  ["Intel Corporation", 0x8086],
  ["LSI Logic / Symbios Logic", 0x1000],
  ["Mellanox Technologies", 0x15b3],
  ["NVIDIA Corporation", 0x10de],
  ["PLX Technology, Inc.", 0x10b5],
  ["PMC-Sierra Inc.", 0x11f8],
  ["Red Hat, Inc. QEMU", 0x1b36],
  ["Samsung Electronics Co Ltd", 0x144d],
  ["VMware", 0x15ad],
  ["Zhaoxin", 0x1d17],
];

/** Vendor of a text that lspci prints for a function, and the rest of the text; else null. */
export function vendorOfText(text: string): { readonly id: number; readonly rest: string } | null {
  let best: { id: number; rest: string } | null = null;
  let bestLength = 0;
  for (const [name, id] of VENDORS) {
    if (name.length <= bestLength || !text.startsWith(name)) continue;
    const next = text.charAt(name.length);
    if (next !== "" && next !== " ") continue;
    best = { id, rest: text.slice(name.length + 1) };
    bestLength = name.length;
  }
  return best;
}

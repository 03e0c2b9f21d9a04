// SPDX-License-Identifier: MIT
// Root complexes by the ids of their functions: which of them the Linux kernel lists as able to
// pass peer-to-peer traffic, and which tell what CPU they are part of. Facts from Linux
// drivers/pci/p2pdma.c at several releases and from the PCI ID repository.

/** One entry of the kernel's list of host bridges. */
export interface ListedHostBridge {
  readonly vendor: number;
  /** Null: any device of the vendor. */
  readonly device: number | null;
  readonly name: string;
  /** Both functions must be under the same root bus. */
  readonly isSameBusOnly: boolean;
  /** First release that lists it. */
  readonly since: string;
  /** First release that doesn't list it any more; null: still listed. */
  readonly until: string | null;
}

const INTEL = 0x8086;
const AMD = 0x1022;
const ZHAOXIN = 0x1d17;
const NVIDIA = 0x10de;

function entry(
  vendor: number,
  device: number | null,
  name: string,
  since: string,
  isSameBusOnly = false,
  until: string | null = null,
): ListedHostBridge {
  return { vendor, device, name, isSameBusOnly, since, until };
}

/**
 * In the order of the kernel's list. Releases are those of Linus' tree, by the pull requests of
 * the PCI tree; a stable or distribution kernel may have an entry earlier.
 */
export const LISTED_HOST_BRIDGES: readonly ListedHostBridge[] = [
  entry(AMD, 0x1450, "AMD Zen root complex", "5.2", false, "5.9"),
  entry(AMD, 0x15d0, "AMD Raven root complex", "5.8", false, "5.9"),
  entry(AMD, 0x1630, "AMD Renoir root complex", "5.8", false, "5.9"),
  entry(INTEL, 0x3c00, "Intel Sandy Bridge-E/Ivy Bridge-E DMI", "5.4", true),
  entry(INTEL, 0x3c01, "Intel Sandy Bridge-E/Ivy Bridge-E port 0", "5.4", true),
  entry(INTEL, 0x2f00, "Intel Haswell-E DMI", "5.4", true),
  entry(INTEL, 0x2f01, "Intel Haswell-E port 0", "5.4", true),
  entry(INTEL, 0x2030, "Intel Skylake-E root port A", "5.6"),
  entry(INTEL, 0x2031, "Intel Skylake-E root port B", "5.7"),
  entry(INTEL, 0x2032, "Intel Skylake-E root port C", "5.7"),
  entry(INTEL, 0x2033, "Intel Skylake-E root port D", "5.7"),
  entry(INTEL, 0x2020, "Intel Skylake-E DMI", "5.6"),
  entry(INTEL, 0x09a2, "Intel Ice Lake-SP and later", "5.18"),
  entry(0x1ae0, null, "Google SoC", "7.1"),
  entry(INTEL, 0x0b25, "Intel DSA", "7.2"),
  entry(INTEL, 0x0cfe, "Intel IAA", "7.2"),
  entry(INTEL, 0x11fb, "Intel IAA", "7.2"),
  entry(INTEL, 0x1212, "Intel DSA", "7.2"),
  entry(INTEL, 0x1216, "Intel IAA", "7.2"),
  entry(INTEL, 0x4940, "Intel QAT", "7.2"),
  entry(INTEL, 0x4942, "Intel QAT", "7.2"),
  entry(INTEL, 0x4944, "Intel QAT", "7.2"),
  entry(INTEL, 0x4946, "Intel QAT", "7.2"),
  entry(INTEL, 0x4948, "Intel QAT", "7.2"),
  entry(NVIDIA, 0x2f95, "NVIDIA CPU", "next"),
  entry(NVIDIA, 0x2f96, "NVIDIA CPU", "next"),
  entry(NVIDIA, 0x2f97, "NVIDIA CPU", "next"),
  entry(NVIDIA, 0x2f98, "NVIDIA CPU", "next"),
  entry(ZHAOXIN, 0x1003, "Zhaoxin", "next", true),
  entry(ZHAOXIN, 0x1005, "Zhaoxin", "next", true),
  entry(ZHAOXIN, 0x1006, "Zhaoxin", "next", true),
  entry(ZHAOXIN, 0x1007, "Zhaoxin", "next", true),
  entry(ZHAOXIN, 0x1008, "Zhaoxin KH-50000", "next"),
];

/** Names that lspci prints without numbers for functions that may be the first of a root bus. */
const INTEL_NAMES: readonly (readonly [name: string, device: number])[] = [
  ["Xeon E5/Core i7 DMI2", 0x3c00],
  ["Xeon E5/Core i7 DMI2 in PCI Express Mode", 0x3c01],
  ["Xeon E7 v3/Xeon E5 v3/Core i7 DMI2", 0x2f00],
  ["Xeon E7 v3/Xeon E5 v3/Core i7 PCI Express Root Port 0", 0x2f01],
  ["Sky Lake-E DMI3 Registers", 0x2020],
  ["Sky Lake-E PCI Express Root Port A", 0x2030],
  ["Sky Lake-E PCI Express Root Port B", 0x2031],
  ["Sky Lake-E PCI Express Root Port C", 0x2032],
  ["Sky Lake-E PCI Express Root Port D", 0x2033],
  ["Ice Lake Memory Map/VT-d", 0x09a2],
  ["82G33/G31/P35/P31 Express DRAM Controller", 0x29c0],
  ["440FX - 82441FX PMC [Natoma]", 0x1237],
  ["Xeon E7 v4/Xeon E5 v4/Xeon E3 v4/Xeon D DMI2", 0x6f00],
  ["Xeon E7 v2/Xeon E5 v2/Core i7 DMI2", 0x0e00],
];

/** Whole families of names, none of which is on any list. */
const INTEL_UNLISTED: readonly RegExp[] = [
  /^(?:Xeon E7 v[24]\/|Xeon E3-|Core Processor |Broadwell-U |Atom |Celeron |Haswell-ULT )/,
  /^(?:Coffee Lake |Comet Lake-|Gemini Lake |Crystal Well )/,
  /^[0-9]{1,2}(?:st|nd|rd|th)\b.*\bProcessor /,
];

const LISTED_NAMES = new Set(INTEL_NAMES.map(([name]) => name));

/** @returns the device number of an Intel function's name (without the vendor), or null. */
export function intelDeviceOfName(name: string): number | null {
  return INTEL_NAMES.find(([known]) => known === name)?.[1] ?? null;
}

/** Whether an Intel function of this name (without the vendor) is certainly on no list. */
export function isUnlistedIntelName(name: string): boolean {
  return !LISTED_NAMES.has(name) && INTEL_UNLISTED.some((family) => family.test(name));
}

/** On the same die as the cores: they tell that the CPU is an Intel one. Never emulated. */
const INTEL_ON_DIE: ReadonlySet<number> = new Set([
  0x0040, 0x0044, 0x0048, 0x0069, 0x0100, 0x0104, 0x0108, 0x010c, 0x0150, 0x0154, 0x0158, 0x015c,
  0x09a2, 0x0a04, 0x0c00, 0x0c04, 0x0c08, 0x0d00, 0x0d04, 0x0e00, 0x0e01, 0x0f00, 0x1600, 0x1604,
  0x1608, 0x1610, 0x1614, 0x1618, 0x1900, 0x1904, 0x1908, 0x190c, 0x190f, 0x1910, 0x1918, 0x191f,
  0x2020, 0x2030, 0x2031, 0x2032, 0x2033, 0x2280, 0x2f00, 0x2f01, 0x31f0, 0x3c00, 0x3c01, 0x3e10,
  0x3e18, 0x3e1f, 0x3e30, 0x3e33, 0x3e34, 0x3e35, 0x3ec2, 0x3ec4, 0x3ec6, 0x3eca, 0x3ed0, 0x4629,
  0x4641, 0x4660, 0x4668, 0x5900, 0x5904, 0x590c, 0x590f, 0x5910, 0x5914, 0x5918, 0x591f, 0x5af0,
  0x6f00, 0x8a12, 0x8a14, 0x9a14, 0x9a26, 0x9a36, 0x9b33, 0x9b43, 0x9b44, 0x9b53, 0x9b54, 0x9b61,
  0x9b63, 0x9b64,
]);

/** AMD root complexes of family 17h and later. */
const AMD_ZEN: ReadonlySet<number> = new Set([
  0x1450, 0x1452, 0x1480, 0x1482, 0x14a4, 0x14b5, 0x14b7, 0x14d8, 0x14da, 0x14e8, 0x14ea, 0x1507,
  0x153a, 0x15d0, 0x15d2, 0x1630, 0x1632, 0x1645,
]);

/** AMD root complexes of earlier families. */
const AMD_OLDER: ReadonlySet<number> = new Set([
  0x1410, 0x1422, 0x1510, 0x1536, 0x1566, 0x1576, 0x1596, 0x1705,
]);

/** Makers of root ports that no x86 CPU has. */
const OTHER_ARCHITECTURES: Readonly<Record<number, "arm" | "power">> = {
  4116: "power", // 1014, IBM
  5045: "arm", // 13b5, Arm
  6013: "arm", // 177d, Cavium
  6629: "arm", // 19e5, Huawei
  7663: "arm", // 1def, Ampere
};

const AMD_ZEN_NAMES: readonly RegExp[] = [
  /^Family (?:1[7-9a-f]|[2-9a-f][0-9a-f])h/,
  /^(?:Starship\/Matisse|Raven\/Raven2|VanGogh) (?:Root Complex|PCIe Dummy Host Bridge)/,
  /^Renoir(?:\/Cezanne)? (?:Root Complex|PCIe Dummy Host Bridge)/,
];
const AMD_OLDER_NAME = /^Family 1[0-6]h\b/;
const INTEL_ON_DIE_NAMES: readonly RegExp[] = [
  /^(?:Xeon E[357]|Core Processor |Sky Lake-E |Ice Lake |Broadwell-U |Atom |Celeron )/,
  /^(?:Coffee Lake |Comet Lake-|Gemini Lake )/,
  /^[0-9]{1,2}(?:st|nd|rd|th)\b.*\bProcessor /,
];

/** What a function of a root bus tells of the CPU that it belongs to. */
export type CpuClue = "amd-zen" | "amd-older" | "intel" | "arm" | "power";

/**
 * @param device null where only the name is known. @param name without the vendor.
 * @param isRootPort a PCIe root port or a host bridge.
 */
export function cpuClue(
  vendor: number,
  device: number | null,
  name: string | null,
  isRootPort: boolean,
): CpuClue | null {
  if (!isRootPort) return vendor === INTEL && device === 0x09a2 ? "intel" : null;
  if (vendor === AMD) return amdClue(device, name);
  if (vendor === INTEL) return intelClue(device, name);
  return OTHER_ARCHITECTURES[vendor] ?? null;
}

function amdClue(device: number | null, name: string | null): CpuClue | null {
  if (device !== null && AMD_ZEN.has(device)) return "amd-zen";
  if (device !== null && AMD_OLDER.has(device)) return "amd-older";
  if (name === null) return null;
  if (AMD_ZEN_NAMES.some((kind) => kind.test(name))) return "amd-zen";
  return AMD_OLDER_NAME.test(name) ? "amd-older" : null;
}

function intelClue(device: number | null, name: string | null): CpuClue | null {
  if (device !== null) return INTEL_ON_DIE.has(device) ? "intel" : null;
  return name !== null && INTEL_ON_DIE_NAMES.some((kind) => kind.test(name)) ? "intel" : null;
}

/** PCH root ports whose ACS words are two double words: both lspci and the kernel misread them. */
export function hasWideAcs(vendor: number, device: number): boolean {
  if (vendor !== INTEL) return false;
  const ranges: readonly (readonly [number, number])[] = [
    [0x9d10, 0x9d1b],
    [0xa110, 0xa11f],
    [0xa167, 0xa16a],
    [0xa290, 0xa29f],
    [0xa2e7, 0xa2ee],
  ];
  return ranges.some(([first, last]) => device >= first && device <= last);
}

// SPDX-License-Identifier: MIT
// The PCI tree of one machine as far as its dumps tell it. Read first: PCI Express Base
// Specification §7.5 (configuration space), Linux Documentation/PCI. Values only; `readTopology`
// makes them, `p2pPath` judges them.

import type { Fact, Tri } from "./fact.js";
import type { ParseReport } from "./report.js";

/** `dddd:bb:dd.f`, lower-case hex, the domain with at least four digits. The key of a function. */
export type Address = string;
/** `dddd:bb`: a bus that no bridge leads to. */
export type RootBusName = string;

/** PCIe capability, device/port type (PCIe §7.5.3.2), as lspci words it. */
export type PortType =
  | "endpoint"
  | "legacy-endpoint"
  | "root-port"
  | "switch-upstream"
  | "switch-downstream"
  | "pcie-to-pci"
  | "pci-to-pcie"
  | "rc-endpoint"
  | "rc-event-collector"
  /** A type number that the specification doesn't give. */
  | "reserved";

/** One direction of a link: transfer rate in GT/s (2.5, 5, 8, 16, 32, 64) and lanes. */
export interface LinkRate {
  /** 0: the link is down or the dump says "unknown". */
  readonly gigatransfers: number;
  /** 0: the link is down. */
  readonly lanes: number;
}

export interface PcieCapability {
  readonly portType: Fact<PortType>;
  /** For ports: a slot is behind it. */
  readonly slot: Tri;
  /** What the port can do (LnkCap); null: no link (root complex integrated). */
  readonly linkMax: Fact<LinkRate | null>;
  /** What was negotiated (LnkSta). */
  readonly link: Fact<LinkRate | null>;
}

/** Access Control Services, PCIe §7.7.11. Bits are those of `ACS` below. */
export interface AcsCapability {
  /** Offset in configuration space, for setpci. */
  readonly offset: Fact<number>;
  /** What the port can do. */
  readonly capability: Fact<number>;
  /** What is switched on: the only word that the verdict looks at. */
  readonly control: Fact<number>;
}

/** Bits of the ACS capability and control words. */
export const ACS = {
  SOURCE_VALIDATION: 0x01,
  TRANSLATION_BLOCKING: 0x02,
  REQUEST_REDIRECT: 0x04,
  COMPLETION_REDIRECT: 0x08,
  UPSTREAM_FORWARDING: 0x10,
  EGRESS_CONTROL: 0x20,
  DIRECT_TRANSLATED: 0x40,
  /** Those that make the kernel call a port redirecting: ReqRedir, CmpltRedir, EgressCtrl. */
  REDIRECT_MASK: 0x2c,
} as const;

/** A base address register, or one VF BAR of an SR-IOV PF. */
export interface Bar {
  /** 0..5. */
  readonly index: number;
  readonly kind: "memory" | "io";
  /** 32 or 64 bit decoding; 16 or 32 for I/O is not told. */
  readonly is64Bit: Tri;
  readonly isPrefetchable: Tri;
  /** Where the CPU sees it. Null: none was assigned. */
  readonly cpuAddress: Fact<bigint | null>;
  /** What the register holds: where the bus sees it. Differs on POWER and some Arm. */
  readonly busAddress: Fact<bigint | null>;
  /** Bytes. */
  readonly size: Fact<bigint>;
  readonly isDisabled: Tri;
}

/** A forwarding window of a bridge: `base`..`limit`, both inside. */
export interface Window {
  readonly kind: "io" | "memory" | "prefetchable";
  /** Null: the window is closed. */
  readonly cpu: Fact<{ readonly base: bigint; readonly limit: bigint } | null>;
  readonly bus: Fact<{ readonly base: bigint; readonly limit: bigint } | null>;
}

/** The bridge half of a function with header type 1. */
export interface Bridge {
  readonly primary: Fact<number>;
  /** Number of the bus behind it; 0: not configured. */
  readonly secondary: Fact<number>;
  /** Highest bus number behind it. */
  readonly subordinate: Fact<number>;
  readonly windows: readonly Window[];
}

export interface ResizableBar {
  readonly index: number;
  /** Bytes. */
  readonly size: Fact<bigint>;
  /** Sizes that the device offers, bytes, ascending. */
  readonly sizes: Fact<readonly bigint[]>;
}

export interface SriovCapability {
  readonly totalVfs: Fact<number>;
  readonly enabledVfs: Fact<number>;
  /** Routing id offset of the first VF, and between two. */
  readonly firstOffset: Fact<number>;
  readonly stride: Fact<number>;
  readonly vfBars: readonly Bar[];
}

/** Peer memory that a driver has registered (sysfs `p2pmem/`), bytes. */
export interface P2pMemory {
  readonly size: Fact<bigint>;
  readonly available: Fact<bigint>;
  readonly isPublished: Tri;
}

/** What a dump calls a function; for people, and to find it by. Null: the dump is silent. */
export interface FunctionNames {
  readonly class: string | null;
  /** Vendor and device in one, as lspci prints them. */
  readonly device: string | null;
  readonly subsystem: string | null;
  /** `nvme0`, `mlx5_0`, `eth1`, `card0`: from the folders of sysfs. */
  readonly kernel: readonly string[];
  readonly driver: string | null;
  readonly slot: string | null;
}

export interface PciFunction {
  readonly address: Address;
  readonly domain: number;
  readonly bus: number;
  readonly device: number;
  readonly function: number;
  readonly vendorId: Fact<number>;
  readonly deviceId: Fact<number>;
  readonly revision: Fact<number>;
  readonly subsystemVendorId: Fact<number>;
  readonly subsystemDeviceId: Fact<number>;
  /** 24 bits: base class, subclass, programming interface. */
  readonly classCode: Fact<number>;
  /** Base class and subclass (16 bits), known more often than the whole code. */
  readonly class: Fact<number>;
  /** 0 device, 1 bridge, 2 CardBus bridge. Decides what is a bridge, not the class. */
  readonly headerType: Fact<number>;
  readonly isMultifunction: Tri;
  /** Null: known to be no bridge. */
  readonly bridge: Fact<Bridge | null>;
  /** Memory and I/O BARs that exist. */
  readonly bars: Fact<readonly Bar[]>;
  readonly pcie: Fact<PcieCapability | null>;
  readonly acs: Fact<AcsCapability | null>;
  /** Address translation services: null: none; else whether it is switched on. */
  readonly ats: Fact<{ readonly isEnabled: Tri } | null>;
  readonly sriov: Fact<SriovCapability | null>;
  readonly resizableBars: Fact<readonly ResizableBar[]>;
  readonly vfResizableBars: Fact<readonly ResizableBar[]>;
  /** The PF of a VF. Null: not a VF. */
  readonly physicalFunction: Fact<Address | null>;
  /** The bridge it hangs on, of a VF: the one of its PF. Null: it sits on a root bus. */
  readonly parent: Fact<Address | null>;
  /** The root bus at the top of its way. */
  readonly rootBus: Fact<RootBusName>;
  readonly numaNode: Fact<number | null>;
  /** Null: no IOMMU serves it. */
  readonly iommuGroup: Fact<number | null>;
  readonly p2pMemory: Fact<P2pMemory | null>;
  readonly names: FunctionNames;
  /** Bytes of configuration space that were read: 0, 64, 256, 4096 or what was there. */
  readonly configBytes: number;
  /** Sources that tell of it, by name, with the first line where there are lines (1-based). */
  readonly seenIn: readonly { readonly source: string; readonly line: number | null }[];
}

/** What the kernel calls a host bridge: one object per root bus. */
export interface RootBus {
  readonly name: RootBusName;
  readonly domain: number;
  readonly bus: number;
  /** Its first function in scan order: the one whose id the kernel looks up in its list. */
  readonly representative: Fact<Address | null>;
  /**
   * `"stated"`: a tree or sysfs shows the bus whole, or nothing can precede device 00.0.
   * `"assumed"`: taken from a listing that looks whole; a missing block would change it.
   */
  readonly evidence: "stated" | "assumed" | "unknown";
  /** Windows with both addresses, where the boot log tells them. */
  readonly windows: readonly Window[];
}

export type Architecture = "x86" | "arm" | "power" | "riscv" | "loongarch" | "s390";

export interface Cpu {
  /** As `/proc/cpuinfo` says: `GenuineIntel`, `AuthenticAMD`, `HygonGenuine`, … */
  readonly vendor: Fact<string>;
  /** Decimal family as the kernel counts it (Zen: 23 and later). */
  readonly family: Fact<number>;
  readonly model: Fact<string>;
  readonly architecture: Fact<Architecture>;
  /** AMD of family 17h or later: the kernel's CPU rule. Known more often than the family. */
  readonly isAmdZen: Tri;
  /** What the above rests on, in words; null where all is unknown. */
  readonly evidence: string | null;
}

export interface Iommu {
  /** Groups exist: an IOMMU driver runs. */
  readonly isEnabled: Tri;
  /** DMA is translated: not passthrough. */
  readonly isTranslating: Tri;
}

export interface Topology {
  /** All functions, in order of domain, bus, device, function. */
  readonly functions: ReadonlyMap<Address, PciFunction>;
  /** In order of domain and bus. */
  readonly rootBuses: ReadonlyMap<RootBusName, RootBus>;
  readonly cpu: Cpu;
  readonly iommu: Iommu;
  /** `/proc/cmdline`; null where no source has it. */
  readonly kernelCommandLine: string | null;
  readonly report: ParseReport;
}

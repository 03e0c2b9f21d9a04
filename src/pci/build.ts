// SPDX-License-Identifier: MIT
// From what was told to a topology: facts get their shapes, addresses their other side.

import { compareAddresses } from "./address.js";
import { CLASS_NAMES } from "./class-names.js";
import { cpuOf } from "./cpu.js";
import type { FunctionDraft, MachineDraft } from "./draft.js";
import { type Fact, type Tri, UNKNOWN } from "./fact.js";
import { tellSysfsRates } from "./sysfs.js";
import type {
  AcsCapability,
  Address,
  Architecture,
  Bar,
  Bridge,
  Iommu,
  LinkRate,
  PcieCapability,
  PciFunction,
  PortType,
  ResizableBar,
  RootBus,
  SriovCapability,
  Topology,
  Window,
} from "./topology.js";
import { factOf, type Links, linkFunctions } from "./tree-links.js";

/** Makes the topology of everything that was told. */
export function buildTopology(machine: MachineDraft): Topology {
  applyBootIds(machine);
  for (const draft of machine.functions.values()) tellSysfsRates(machine, draft);
  const links = linkFunctions(machine);
  const onRoot: FunctionDraft[] = [];
  for (const [draft, parent] of links.parents) if (parent === null) onRoot.push(draft);
  const cpu = cpuOf(machine, onRoot);
  const drafts = [...machine.functions.values()].sort((a, b) => compareAddresses(a.parts, b.parts));
  const functions = new Map<Address, PciFunction>();
  const builder = new Builder(links, cpu.architecture);
  for (const draft of drafts) functions.set(draft.address, builder.function(draft));
  machine.noticeUnreadable();
  return {
    functions,
    rootBuses: links.rootBuses,
    cpu,
    iommu: iommuOf(machine),
    kernelCommandLine: machine.commandLine,
    report: {
      sources: machine.sources.map(({ name, kinds, ignoredLines }) => ({
        name,
        kinds: [...kinds],
        ignoredLines,
      })),
      notices: machine.notices,
      noticesDropped: machine.noticesDropped,
    },
  };
}

/** The boot log names functions that may be gone since: it only adds to those that a dump shows. */
function applyBootIds(machine: MachineDraft): void {
  const place = { source: "boot log", line: null };
  for (const [address, ids] of machine.bootIds) {
    const draft = machine.functions.get(address);
    if (draft === undefined) continue;
    machine.tell(draft, "vendor", ids.vendor, place);
    machine.tell(draft, "device", ids.device, place);
    machine.tell(draft, "class", ids.class, place);
  }
}

function iommuOf(machine: MachineDraft): Iommu {
  const line = machine.commandLine ?? "";
  let isEnabled: Tri = machine.hasIommuGroups ?? UNKNOWN;
  for (const draft of machine.functions.values()) {
    if (isEnabled !== UNKNOWN) break;
    if (draft.number("group") !== UNKNOWN) isEnabled = true;
  }
  if (isEnabled === UNKNOWN && /(?:^| )(?:iommu|intel_iommu|amd_iommu)=off(?: |$)/.test(line)) {
    isEnabled = false;
  }
  if (isEnabled !== true) return { isEnabled, isTranslating: isEnabled };
  const types = [...machine.iommuGroupTypes];
  if (types.length > 0) {
    if (types.every((type) => type === "identity")) return { isEnabled, isTranslating: false };
    if (types.every((type) => type.startsWith("DMA"))) return { isEnabled, isTranslating: true };
    return { isEnabled, isTranslating: UNKNOWN };
  }
  const isPassthrough = /(?:^| )(?:iommu=pt|iommu\.passthrough=1)(?: |$)/.test(line);
  return { isEnabled, isTranslating: isPassthrough ? false : UNKNOWN };
}

class Builder {
  private readonly links: Links;
  private readonly architecture: Fact<Architecture>;

  constructor(links: Links, architecture: Fact<Architecture>) {
    this.links = links;
    this.architecture = architecture;
  }

  function(draft: FunctionDraft): PciFunction {
    const { parts } = draft;
    const group = draft.number("class");
    const progIf = draft.number("progif");
    const root = this.links.roots.get(draft) ?? UNKNOWN;
    const rootBus = root === UNKNOWN ? undefined : this.links.rootBuses.get(root);
    return {
      address: draft.address,
      domain: parts.domain,
      bus: parts.bus,
      device: parts.device,
      function: parts.function,
      vendorId: draft.number("vendor"),
      deviceId: draft.number("device"),
      revision: draft.number("revision"),
      subsystemVendorId: draft.number("subvendor"),
      subsystemDeviceId: draft.number("subdevice"),
      classCode: group === UNKNOWN || progIf === UNKNOWN ? UNKNOWN : group * 256 + progIf,
      class: group,
      headerType: draft.number("header"),
      isMultifunction: draft.flag("multi"),
      bridge: this.bridge(draft),
      bars: this.bars(draft, rootBus),
      pcie: pcieOf(draft),
      acs: acsOf(draft),
      ats: presence(draft, "ats", () => ({ isEnabled: draft.flag("ats.on") })),
      sriov: presence(draft, "sriov", () => this.sriov(draft, rootBus)),
      resizableBars: resizableOf(draft, "rebar"),
      vfResizableBars: resizableOf(draft, "vfrebar"),
      physicalFunction: factOf(this.links.physical, draft),
      parent: factOf(this.links.parents, draft),
      rootBus: root,
      numaNode: draft.isNull("numa") ? null : draft.number("numa"),
      iommuGroup: draft.isNull("group") ? null : draft.number("group"),
      p2pMemory: presence(draft, "p2pmem", () => ({
        size: draft.big("p2p.size"),
        available: draft.big("p2p.available"),
        isPublished: draft.flag("p2p.published"),
      })),
      names: {
        class: draft.className ?? (group === UNKNOWN ? null : (CLASS_NAMES[group] ?? null)),
        device: draft.deviceName,
        subsystem: draft.subsystemName,
        kernel: [...draft.kernelNames].sort(),
        driver: draft.driver,
        slot: draft.slot,
      },
      configBytes: draft.configBytes,
      seenIn: draft.seenIn,
    };
  }

  private bridge(draft: FunctionDraft): Fact<Bridge | null> {
    const header = draft.number("header");
    if (header === 0) return null;
    const secondary = draft.number("bridge.secondary");
    if (header === UNKNOWN && secondary === UNKNOWN) return UNKNOWN;
    const windows: Window[] = [];
    for (const kind of ["io", "memory", "prefetchable"] as const) {
      const window = this.window(draft, kind);
      if (window !== null) windows.push(window);
    }
    return {
      primary: draft.number("bridge.primary"),
      secondary,
      subordinate: draft.number("bridge.subordinate"),
      windows,
    };
  }

  /** Old lspci prints the registers (bus side), newer ones what the kernel says (CPU side). */
  private window(draft: FunctionDraft, kind: Window["kind"]): Window | null {
    const words = range(draft, `win.${kind}.words`);
    let cpu = range(draft, `win.${kind}.cpu`);
    let bus = range(draft, `win.${kind}.bus`);
    if (words === UNKNOWN && cpu === UNKNOWN && bus === UNKNOWN) return null;
    if (words === null || (words !== UNKNOWN && this.isIdentity())) {
      if (cpu === UNKNOWN) cpu = words;
      if (bus === UNKNOWN) bus = words;
    }
    if (this.isIdentity()) {
      if (cpu === UNKNOWN) cpu = bus;
      if (bus === UNKNOWN) bus = cpu;
    }
    return { kind, cpu, bus };
  }

  private bars(draft: FunctionDraft, root: RootBus | undefined): Fact<readonly Bar[]> {
    const bars: Bar[] = [];
    for (let index = 0; index < 6; index++) {
      if (draft.has(`bar${index}.kind`)) bars.push(this.bar(draft, `bar${index}`, index, root));
    }
    return bars.length === 0 && draft.flag("bars") !== true ? UNKNOWN : bars;
  }

  private bar(draft: FunctionDraft, name: string, index: number, root: RootBus | undefined): Bar {
    const kind = draft.text(`${name}.kind`) === "io" ? "io" : "memory";
    let cpuAddress: Fact<bigint | null> = draft.isNull(`${name}.cpu`)
      ? null
      : draft.big(`${name}.cpu`);
    let busAddress: Fact<bigint | null> = draft.isNull(`${name}.bus`)
      ? null
      : draft.big(`${name}.bus`);
    if (cpuAddress === UNKNOWN) cpuAddress = this.across(busAddress, root, "bus", "cpu");
    if (busAddress === UNKNOWN) busAddress = this.across(cpuAddress, root, "cpu", "bus");
    return {
      index,
      kind,
      is64Bit: either(draft, `${name}.64`, `${name}.kernel64`),
      isPrefetchable: either(draft, `${name}.pf`, `${name}.kernelpf`),
      cpuAddress,
      busAddress,
      size: draft.big(`${name}.size`),
      isDisabled: draft.flag(`${name}.disabled`),
    };
  }

  /** The other side's address, where the host bridge's windows are known or don't translate. */
  private across(
    address: Fact<bigint | null>,
    root: RootBus | undefined,
    from: "cpu" | "bus",
    to: "cpu" | "bus",
  ): Fact<bigint | null> {
    if (address === UNKNOWN || address === null || this.isIdentity()) return address;
    for (const window of root?.windows ?? []) {
      const near = window[from];
      const far = window[to];
      if (near === UNKNOWN || near === null || far === UNKNOWN || far === null) continue;
      if (address >= near.base && address <= near.limit) return address - near.base + far.base;
    }
    return UNKNOWN;
  }

  /** x86 never translates; elsewhere the boot log's windows decide, one by one. */
  private isIdentity(): boolean {
    return this.architecture === "x86";
  }

  private sriov(draft: FunctionDraft, root: RootBus | undefined): SriovCapability {
    const total = draft.number("sriov.total");
    const vfBars: Bar[] = [];
    for (let index = 0; index < 6; index++) {
      const name = `vfbar${index}`;
      if (!draft.has(`${name}.kind`)) continue;
      const bar = this.bar(draft, name, index, root);
      const whole = draft.big(`${name}.range`);
      const isKnown = whole !== UNKNOWN && total !== UNKNOWN && total > 0;
      vfBars.push(isKnown ? { ...bar, size: whole / BigInt(total) } : bar);
    }
    return {
      totalVfs: total,
      enabledVfs: draft.number("sriov.enabled"),
      firstOffset: draft.number("sriov.offset"),
      stride: draft.number("sriov.stride"),
      vfBars,
    };
  }
}

/** Null where it is known not to be there, unknown where nobody says. */
function presence<T>(draft: FunctionDraft, key: string, make: () => T): Fact<T | null> {
  const isThere = draft.flag(key);
  if (isThere === UNKNOWN) return UNKNOWN;
  return isThere ? make() : null;
}

function either(draft: FunctionDraft, first: string, second: string): Tri {
  return draft.has(first) ? draft.flag(first) : draft.flag(second);
}

function pcieOf(draft: FunctionDraft): Fact<PcieCapability | null> {
  return presence(draft, "pcie", () => ({
    portType: draft.text("pcie.type") as Fact<PortType>,
    slot: draft.flag("pcie.slot"),
    linkMax: rateOf(draft, "link.max"),
    link: rateOf(draft, "link.now"),
  }));
}

function acsOf(draft: FunctionDraft): Fact<AcsCapability | null> {
  return presence(draft, "acs", () => ({
    offset: draft.number("acs.offset"),
    capability: draft.number("acs.cap"),
    control: draft.number("acs.ctl"),
  }));
}

function resizableOf(draft: FunctionDraft, key: string): Fact<readonly ResizableBar[]> {
  const isThere = draft.flag(key);
  if (isThere === UNKNOWN) return UNKNOWN;
  const bars: ResizableBar[] = [];
  for (let index = 0; index < 6; index++) {
    const sizes = draft.text(`${key}${index}.sizes`);
    const size = draft.big(`${key}${index}.size`);
    if (sizes === UNKNOWN && size === UNKNOWN) continue;
    const list = sizes === UNKNOWN ? UNKNOWN : sizes.split(" ").filter((word) => word !== "");
    bars.push({ index, size, sizes: list === UNKNOWN ? UNKNOWN : list.map(BigInt) });
  }
  return bars;
}

function rateOf(draft: FunctionDraft, key: string): Fact<LinkRate | null> {
  const text = draft.text(key);
  if (text === UNKNOWN) return UNKNOWN;
  if (text === "none") return null;
  const [rate, lanes] = text.split("x").map(Number) as [number, number];
  return { gigatransfers: rate, lanes };
}

function range(
  draft: FunctionDraft,
  key: string,
): Fact<{ readonly base: bigint; readonly limit: bigint } | null> {
  if (draft.isNull(key)) return null;
  const text = draft.text(key);
  if (text === UNKNOWN) return UNKNOWN;
  const [base, limit] = text.split("-").map(BigInt) as [bigint, bigint];
  return { base, limit };
}

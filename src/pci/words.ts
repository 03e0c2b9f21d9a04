// SPDX-License-Identifier: MIT
// The words of `lspci -v`, `-vv`, `-vvv` (with or without `-n`, `-nn`): the lines below a
// header, told as the same facts as the bytes that they were printed from. Wording differs by
// the age of pciutils; a line that says nothing known is left alone.

import { linkText } from "./config.js";
import {
  type FunctionDraft,
  type MachineDraft,
  type Place,
  printable,
  type Value,
} from "./draft.js";
import { UNKNOWN } from "./fact.js";
import { type HeaderLine, idsOfText } from "./header-line.js";
import type { PortType } from "./topology.js";

const PORT_WORDS: readonly (readonly [string, PortType])[] = [
  ["Root Complex Integrated Endpoint", "rc-endpoint"],
  ["Root Complex Event Collector", "rc-event-collector"],
  ["Legacy Endpoint", "legacy-endpoint"],
  ["Endpoint", "endpoint"],
  ["Root Port", "root-port"],
  ["Upstream Port", "switch-upstream"],
  ["Downstream Port", "switch-downstream"],
  ["PCI-Express to PCI/PCI-X Bridge", "pcie-to-pci"],
  ["PCI/PCI-X to PCI-Express Bridge", "pci-to-pcie"],
];

const ACS_WORDS = [
  "SrcValid",
  "TransBlk",
  "ReqRedir",
  "CmpltRedir",
  "UpstreamFwd",
  "EgressCtrl",
  "DirectTrans",
] as const;

/** Bits of `SrcValid+ TransBlk- …`; null where one of the seven is missing. */
function acsWord(text: string): number | null {
  let word = 0;
  for (const [bit, name] of ACS_WORDS.entries()) {
    const at = text.indexOf(name);
    if (at < 0) return null;
    const sign = text.charAt(at + name.length);
    if (sign !== "+" && sign !== "-") return null;
    if (sign === "+") word |= 1 << bit;
  }
  return word;
}

const UNITS: Readonly<Record<string, bigint>> = {
  "": 0n,
  K: 10n,
  M: 20n,
  G: 30n,
  T: 40n,
  P: 50n,
  E: 60n,
};

/** `256`, `64K`, `16M`, `64GB` in bytes. lspci cuts the fraction off, so only exact ones count. */
function sizeOf(text: string): bigint | null {
  const match = /^([0-9]{1,5})([KMGTPE]?)B?$/.exec(text);
  if (match === null) return null;
  return BigInt(match[1] as string) << (UNITS[match[2] as string] as bigint);
}

type Section = "header" | "express" | "acs" | "ats" | "sriov" | "rebar" | "vfrebar" | "other";

/** The lines of one block. Tells facts as they come; `end` tells what isn't there. */
export class WordsBlock {
  private readonly machine: MachineDraft;
  private readonly draft: FunctionDraft;
  private readonly source: string;
  private place: Place;
  private section: Section = "header";
  /** `-v` shows `Flags:`, `-vv` shows `Status:`: then capabilities are shown, or their denial. */
  private isVerbose = false;
  /** `-vv`: BARs have their numbers. */
  private hasRegions = false;
  private isDenied = false;
  private hasBus = false;
  private readonly seen = new Set<Section>();
  private readonly firstKeys = new Set<string>();

  constructor(machine: MachineDraft, draft: FunctionDraft, header: HeaderLine, place: Place) {
    this.machine = machine;
    this.draft = draft;
    this.source = place.source;
    this.place = place;
    if (header.className !== null) draft.className ??= printable(header.className);
    if (header.deviceText !== "") machine.tellName(draft, header.deviceText, place);
    if (header.classCode !== null) this.tell("class", header.classCode);
    if (header.vendor !== null) this.tell("vendor", header.vendor);
    if (header.device !== null) this.tell("device", header.device);
    if (header.revision !== null) this.tell("revision", header.revision);
    if (header.progIf !== null) this.tell("progif", header.progIf);
  }

  /** Whether a line at the first level can't be of this block: it would be there twice. */
  isForeign(text: string): boolean {
    if (text.startsWith("Capabilities: [")) {
      const key = text.slice(0, text.indexOf("]") + 1);
      const isTwice = this.firstKeys.has(key);
      this.firstKeys.add(key);
      return isTwice || (this.seen.has("express") && /^[^\]]*\] Express /.test(text));
    }
    const key = text.slice(0, text.indexOf(":") + 1);
    if (key !== "Subsystem:" && key !== "Control:" && key !== "Flags:" && key !== "Status:") {
      return false;
    }
    if (this.section !== "header" || this.firstKeys.has(key)) return true;
    this.firstKeys.add(key);
    return false;
  }

  /** A line below the header, without its indentation. @returns false where it told nothing. */
  line(text: string, lineNumber: number): boolean {
    this.place = { source: this.source, line: lineNumber };
    if (text.startsWith("Capabilities: ")) return this.capability(text.slice(14));
    const colon = text.indexOf(":");
    const key = colon < 0 ? text : text.slice(0, colon);
    const rest = colon < 0 ? "" : text.slice(colon + 1).trim();
    return this.section === "header" ? this.plain(key, rest, text) : this.inside(key, rest, text);
  }

  /**
   * The block is over.
   * @param isWhole it wasn't cut: what is not there is known not to be there.
   */
  end(isWhole: boolean): void {
    if (!isWhole || !this.isVerbose) return;
    const kind = this.draft.number("class");
    const isBridgeClass = kind === 0x0604 || kind === 0x0607 || kind === UNKNOWN;
    if (!this.hasBus && !isBridgeClass && !this.draft.has("header")) this.tell("header", 0);
    if (this.hasRegions) this.tell("bars", true);
    if (this.isDenied) return;
    if (!this.seen.has("express")) this.tell("pcie", false);
    for (const name of ["acs", "ats", "sriov", "rebar", "vfrebar"] as const) {
      if (!this.seen.has(name)) this.tell(name, false);
    }
  }

  private plain(key: string, rest: string, text: string): boolean {
    switch (key) {
      case "Subsystem":
        return this.subsystem(rest);
      case "Status":
        this.isVerbose = true;
        this.hasRegions = true;
        return true;
      case "Flags":
        this.isVerbose = true;
        this.flags(rest);
        return true;
      case "Bus":
        return this.bus(rest);
      case "NUMA node":
      case "IOMMU group":
        return this.small(key, rest);
      case "Physical Slot":
        this.draft.slot ??= printable(rest);
        return true;
      default:
        return this.resource(key, rest, text) || this.tail(key, rest);
    }
  }

  private tail(key: string, rest: string): boolean {
    if (key === "Kernel driver in use") {
      this.draft.driver ??= printable(rest);
      return true;
    }
    return key === "Kernel modules" || key === "Control" || key === "Latency";
  }

  private subsystem(rest: string): boolean {
    const ids = idsOfText(rest);
    if (ids.text !== "") this.draft.subsystemName ??= printable(ids.text);
    if (ids.vendor !== null && ids.device !== null) {
      this.tell("subvendor", ids.vendor);
      this.tell("subdevice", ids.device);
    }
    return true;
  }

  private flags(rest: string): void {
    const numa = /\bNUMA node ([0-9]{1,6})\b/.exec(rest);
    if (numa !== null) this.tell("numa", Number(numa[1]));
    const group = /\bIOMMU group ([0-9]{1,6})\b/.exec(rest);
    if (group !== null) this.tell("group", Number(group[1]));
  }

  private small(key: string, rest: string): boolean {
    if (!/^[0-9]{1,6}$/.test(rest)) return false;
    this.tell(key === "NUMA node" ? "numa" : "group", Number(rest));
    return true;
  }

  private bus(rest: string): boolean {
    const match =
      /^primary=([0-9a-f]{2}), secondary=([0-9a-f]{2}), subordinate=([0-9a-f]{2}),/.exec(rest);
    if (match === null) return false;
    // Another bridge's line, by a cut before: the kernel keeps this number right.
    if (Number.parseInt(match[1] as string, 16) !== this.draft.parts.bus) return false;
    this.hasBus = true;
    // CardBus bridges (header type 2) print the same line.
    if (this.draft.number("class") !== 0x0607) this.tell("header", 1);
    for (const [index, name] of ["primary", "secondary", "subordinate"].entries()) {
      this.tell(`bridge.${name}`, Number.parseInt(match[index + 1] as string, 16));
    }
    return true;
  }

  private resource(key: string, rest: string, text: string): boolean {
    const region = /^Region ([0-5])$/.exec(key);
    if (region !== null) return this.bar(`bar${region[1]}`, rest, "cpu");
    if (/^(?:Memory|I\/O ports) at /.test(text)) return true;
    if (key === "I/O behind bridge") return this.window("io", rest);
    if (key === "Memory behind bridge") return this.window("memory", rest);
    if (key === "Prefetchable memory behind bridge") return this.window("prefetchable", rest);
    return false;
  }

  /** `Memory at f8000000 (32-bit, non-prefetchable) [size=16M]`, `I/O ports at 2000 [size=128]`. */
  private bar(name: string, rest: string, side: "cpu" | "bus"): boolean {
    const match = /^(Memory|I\/O ports) at ([0-9a-f]{4,16}|<[a-z-]{1,20}>)(?: |$)/.exec(rest);
    if (match === null) return false;
    const isMemory = match[1] === "Memory";
    this.tell(`${name}.kind`, isMemory ? "memory" : "io");
    const at = match[2] as string;
    if (at === "<unassigned>") this.tell(`${name}.${side}`, null);
    else if (!at.startsWith("<")) this.tell(`${name}.${side}`, BigInt(`0x${at}`) || null);
    const type = /\((32|64)-bit, (non-)?prefetchable\)/.exec(rest);
    if (isMemory && type !== null) {
      this.tell(`${name}.64`, type[1] === "64");
      this.tell(`${name}.pf`, type[2] === undefined);
    }
    if (side === "cpu") {
      this.tell(`${name}.disabled`, rest.includes("[disabled]"));
      const size = /\[size=([0-9]{1,5}[KMGT]?)\]/.exec(rest);
      const bytes = size === null ? null : sizeOf(size[1] as string);
      if (bytes !== null) this.tell(`${name}.size`, bytes);
    }
    return true;
  }

  private window(kind: string, rest: string): boolean {
    const range = /^([0-9a-f]{4,16})-([0-9a-f]{4,16})(?: |$)/.exec(rest);
    if (range === null) {
      if (!/^(?:None|\[disabled\])/.test(rest)) return false;
      this.tell(`win.${kind}.words`, null);
      return true;
    }
    const base = BigInt(`0x${range[1]}`);
    const limit = BigInt(`0x${range[2]}`);
    this.tell(`win.${kind}.words`, base > limit ? null : `${base}-${limit}`);
    return true;
  }

  private capability(rest: string): boolean {
    this.section = "other";
    if (rest.startsWith("<access denied>")) {
      if (!this.isDenied) this.machine.unreadable(this.place);
      this.isDenied = true;
      return true;
    }
    const match = /^\[([0-9a-f]{2,3})(?: v[0-9]{1,2})?\] (.*)$/.exec(rest);
    if (match === null) return false;
    const offset = Number.parseInt(match[1] as string, 16);
    return this.named(match[2] as string, offset);
  }

  private named(name: string, offset: number): boolean {
    if (name.startsWith("Express ")) return this.express(name);
    if (name.startsWith("Access Control Services") || name === "#0d") {
      this.enter("acs");
      this.tell("acs.offset", offset);
    } else if (name.startsWith("Address Translation Service")) {
      this.enter("ats");
    } else if (name.startsWith("Single Root I/O Virtualization")) {
      this.enter("sriov");
    } else if (name.startsWith("Virtual Resizable BAR")) {
      this.enter("vfrebar");
    } else if (/^(?:Physical )?Resizable BAR/.test(name)) {
      this.enter("rebar");
    }
    return true;
  }

  private enter(section: "acs" | "ats" | "sriov" | "rebar" | "vfrebar" | "express"): void {
    this.section = section;
    this.seen.add(section);
    this.tell(section === "express" ? "pcie" : section, true);
  }

  private express(name: string): boolean {
    this.enter("express");
    const text = name.replace(/^Express (?:\(v[0-9]\) )?/, "");
    const found = PORT_WORDS.find(([words]) => text.startsWith(words));
    if (found === undefined) return true;
    const [words, type] = found;
    this.tell("pcie.type", type);
    if (type === "root-port" || type === "switch-downstream") {
      const slot = /^ \(Slot([+-])\)/.exec(text.slice(words.length));
      if (slot !== null) this.tell("pcie.slot", slot[1] === "+");
    }
    if (type === "rc-endpoint" || type === "rc-event-collector") {
      this.tell("link.max", "none");
      this.tell("link.now", "none");
    }
    return true;
  }

  private inside(key: string, rest: string, text: string): boolean {
    if (this.tail(key, rest)) return true;
    switch (this.section) {
      case "express":
        return this.link(key, rest);
      case "acs":
        return this.acs(key, rest);
      case "ats":
        if (key !== "ATSCtl") return false;
        return this.sign(rest, "Enable", "ats.on");
      case "sriov":
        return this.sriov(key, text, rest);
      case "rebar":
      case "vfrebar":
        return this.resizable(key, rest);
      default:
        // A port's line without its capability's, as grep leaves it.
        return key.startsWith("ACS") && this.acs(key, rest);
    }
  }

  private link(key: string, rest: string): boolean {
    if (key !== "LnkCap" && key !== "LnkSta") return false;
    const type = this.draft.text("pcie.type");
    if (type === "rc-endpoint" || type === "rc-event-collector") return true;
    const speed = /\bSpeed (?:([0-9]{1,2}(?:\.[0-9])?)GT\/s|unknown)/.exec(rest);
    const width = /\bWidth x([0-9]{1,2})(?:,| |$)/.exec(rest);
    if (speed === null || width === null) return false;
    const rate = speed[1] === undefined ? 0 : Number(speed[1]);
    this.tell(key === "LnkCap" ? "link.max" : "link.now", linkText(rate, Number(width[1])));
    return true;
  }

  private acs(key: string, rest: string): boolean {
    if (key !== "ACSCap" && key !== "ACSCtl") return false;
    const word = acsWord(rest);
    if (word === null) {
      this.machine.notice(
        "UNREADABLE_LINE",
        this.place,
        `${this.draft.address}: ${key} lacks some of its seven bits; it counts as unknown`,
      );
      return false;
    }
    if (!this.seen.has("acs")) this.enter("acs");
    this.tell(key === "ACSCap" ? "acs.cap" : "acs.ctl", word);
    return true;
  }

  private sign(rest: string, word: string, key: string): boolean {
    const at = rest.indexOf(word);
    const sign = at < 0 ? "" : rest.charAt(at + word.length);
    if (sign !== "+" && sign !== "-") return false;
    this.tell(key, sign === "+");
    return true;
  }

  private sriov(key: string, text: string, rest: string): boolean {
    if (key === "IOVCtl") return this.sign(rest, "Enable", "sriov.on");
    const region = /^Region ([0-5])$/.exec(key);
    if (region !== null) return this.bar(`vfbar${region[1]}`, rest, "bus");
    const counts = /Total VFs: ([0-9]{1,5}), Number of VFs: ([0-9]{1,5})/.exec(text);
    if (counts !== null) {
      this.tell("sriov.total", Number(counts[1]));
      const isOn = this.draft.flag("sriov.on");
      if (isOn !== UNKNOWN) this.tell("sriov.enabled", isOn ? Number(counts[2]) : 0);
      return true;
    }
    const places = /VF offset: ([0-9]{1,5}), stride: ([0-9]{1,5})/.exec(text);
    if (places === null) return false;
    this.tell("sriov.offset", Number(places[1]));
    this.tell("sriov.stride", Number(places[2]));
    return true;
  }

  private resizable(key: string, rest: string): boolean {
    const index = /^BAR ([0-5])$/.exec(key);
    if (index === null) return false;
    const name = `${this.section}${index[1]}`;
    const match =
      /^current size: ([0-9]{1,5}[KMGTPE]?B), supported:((?: [0-9]{1,5}[KMGTPE]?B)*)/.exec(rest);
    if (match === null) return false;
    const size = sizeOf(match[1] as string);
    if (size !== null) this.tell(`${name}.size`, size);
    const sizes = (match[2] as string).trim().split(" ").map(sizeOf);
    if (!sizes.includes(null)) this.tell(`${name}.sizes`, sizes.join(" "));
    return true;
  }

  private tell(key: string, value: Value): void {
    this.machine.tell(this.draft, key, value, this.place);
  }
}

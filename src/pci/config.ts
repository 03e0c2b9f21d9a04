// SPDX-License-Identifier: MIT
// Decodes configuration space (PCI Express Base Specification §7.5, §7.7, §9.3.3; PCI-to-PCI Bridge
// Architecture §3.2) into facts. The bytes may be cut anywhere; lists of capabilities may loop,
// overlap or leave the space. Values in BARs and windows are bus addresses.

import type { FunctionDraft, MachineDraft, Place, Value } from "./draft.js";
import type { PortType } from "./topology.js";

/** Capabilities of a list that are followed; more is a loop. */
const CAPABILITIES_MAX = 48;
const EXTENDED_MAX = 480;

const PORT_TYPES: Readonly<Record<number, PortType>> = {
  0: "endpoint",
  1: "legacy-endpoint",
  4: "root-port",
  5: "switch-upstream",
  6: "switch-downstream",
  7: "pcie-to-pci",
  8: "pci-to-pcie",
  9: "rc-endpoint",
  10: "rc-event-collector",
};

const SPEEDS: readonly number[] = [0, 2.5, 5, 8, 16, 32, 64];
const CAPABILITY_PCIE = 0x10;
const EXTENDED = { acs: 0x0d, ats: 0x0f, sriov: 0x10, rebar: 0x15, vfRebar: 0x24 } as const;
const MEBIBYTE = 1n << 20n;

/** Rates as a fact: `32x16`, or `none` where there is no link. */
export function linkText(gigatransfers: number, lanes: number): string {
  return `${gigatransfers}x${lanes}`;
}

/** Tells what `bytes` (from offset 0 on, any number) say of `draft`. */
export function decodeConfig(
  machine: MachineDraft,
  draft: FunctionDraft,
  bytes: Uint8Array,
  place: Place,
): void {
  new ConfigDecoder(machine, draft, bytes, place).decode();
}

class ConfigDecoder {
  private readonly machine: MachineDraft;
  private readonly draft: FunctionDraft;
  private readonly bytes: Uint8Array;
  private readonly view: DataView;
  private readonly place: Place;

  constructor(machine: MachineDraft, draft: FunctionDraft, bytes: Uint8Array, place: Place) {
    this.machine = machine;
    this.draft = draft;
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.place = place;
  }

  decode(): void {
    const { draft } = this;
    draft.configBytes = Math.max(draft.configBytes, this.bytes.length);
    if (this.bytes.length < 16) return;
    const isVirtual = this.u32(0) === 0xffffffff;
    // All ones everywhere: the function didn't answer (a dead link, a device in D3cold).
    if (isVirtual && this.u32(8) === 0xffffffff) return;
    // A VF has no ids of its own (PCIe §9.3.4.1): the kernel shows those of its PF.
    if (!isVirtual) this.identity();
    this.tell("revision", this.u8(0x08));
    this.tell("class", this.u16(0x0a));
    this.tell("progif", this.u8(0x09));
    const header = this.u8(0x0e) & 0x7f;
    this.tell("header", header);
    this.tell("multi", (this.u8(0x0e) & 0x80) !== 0);
    this.bars(header, isVirtual);
    if (header === 1) this.bridge();
    this.capabilities();
  }

  private identity(): void {
    this.tell("is-not-virtual", true);
    this.tell("vendor", this.u16(0));
    this.tell("device", this.u16(2));
    if ((this.u8(0x0e) & 0x7f) === 0 && this.has(0x2c, 4)) {
      this.tell("subvendor", this.u16(0x2c));
      this.tell("subdevice", this.u16(0x2e));
    }
  }

  private bars(header: number, isVirtual: boolean): void {
    const count = header === 0 ? 6 : header === 1 ? 2 : 1;
    if (!this.has(0x10, count * 4)) return;
    // A VF's BARs are in its PF.
    if (isVirtual) return;
    this.tell("bars", true);
    const isDisabled = (kind: number) => (this.u16(0x04) & kind) === 0;
    for (let index = 0; index < count; index++) {
      index += this.bar("bar", index, 0x10 + index * 4, index + 1 < count, isDisabled);
    }
  }

  /** @returns 1 where the BAR takes the next register as well. */
  private bar(
    key: string,
    index: number,
    offset: number,
    hasNext: boolean,
    isDisabled: ((commandBit: number) => boolean) | null,
  ): number {
    const raw = this.u32(offset);
    if (raw === 0) return 0;
    const name = `${key}${index}`;
    if ((raw & 1) !== 0) {
      this.tell(`${name}.kind`, "io");
      this.tell(`${name}.bus`, BigInt((raw & ~3) >>> 0) || null);
      if (isDisabled !== null) this.tell(`${name}.disabled`, isDisabled(1));
      return 0;
    }
    const is64Bit = (raw & 6) === 4 && hasNext && this.has(offset + 4, 4);
    const upper = is64Bit ? BigInt(this.u32(offset + 4)) << 32n : 0n;
    const address = upper | BigInt((raw & ~0xf) >>> 0);
    this.tell(`${name}.kind`, "memory");
    this.tell(`${name}.64`, is64Bit);
    this.tell(`${name}.pf`, (raw & 8) !== 0);
    this.tell(`${name}.bus`, address === 0n ? null : address);
    if (isDisabled !== null) this.tell(`${name}.disabled`, isDisabled(2));
    return is64Bit ? 1 : 0;
  }

  private bridge(): void {
    if (this.has(0x18, 3)) {
      this.tell("bridge.primary", this.u8(0x18));
      this.tell("bridge.secondary", this.u8(0x19));
      this.tell("bridge.subordinate", this.u8(0x1a));
    }
    if (!this.has(0x1c, 0x18)) return;
    const ioWide = (this.u8(0x1c) & 0xf) === 1;
    const ioBase = (this.u8(0x1c) & 0xf0) << 8;
    const ioLimit = ((this.u8(0x1d) & 0xf0) << 8) | 0xfff;
    const wide = (low: number, at: number) => BigInt(low) | (BigInt(this.u16(at)) << 16n);
    this.window(
      "io",
      ioWide ? wide(ioBase, 0x30) : BigInt(ioBase),
      ioWide ? wide(ioLimit, 0x32) : BigInt(ioLimit),
    );
    const memory = (at: number) => BigInt(this.u16(at) & 0xfff0) << 16n;
    this.window("memory", memory(0x20), memory(0x22) | 0xfffffn);
    const isWide = (this.u16(0x24) & 0xf) === 1;
    const upper = (at: number) => (isWide ? BigInt(this.u32(at)) << 32n : 0n);
    this.window("prefetchable", memory(0x24) | upper(0x28), memory(0x26) | upper(0x2c) | 0xfffffn);
  }

  private window(kind: string, base: bigint, limit: bigint): void {
    this.tell(`win.${kind}.bus`, base > limit ? null : `${base}-${limit}`);
  }

  private capabilities(): void {
    if (!this.has(0x34, 1)) return;
    if ((this.u16(0x06) & 0x10) === 0) {
      this.none();
      return;
    }
    if (this.bytes.length <= 64) {
      this.machine.unreadable(this.place);
      return;
    }
    const seen = new Set<number>();
    let hasPcie = false;
    let isWhole = true;
    for (let at = this.u8(0x34) & 0xfc; at !== 0; at = this.u8(at + 1) & 0xfc) {
      if (at < 0x40 || seen.has(at) || seen.size >= CAPABILITIES_MAX) {
        this.bad(`capability list goes wrong at ${at.toString(16)}`);
        isWhole = false;
        break;
      }
      if (!this.has(at, 2)) {
        isWhole = false;
        break;
      }
      seen.add(at);
      const id = this.u8(at);
      if (id === 0xff) break;
      if (id === CAPABILITY_PCIE && !hasPcie) {
        hasPcie = true;
        this.pcie(at);
      }
    }
    if (!hasPcie && isWhole) this.tell("pcie", false);
    this.extended(hasPcie, isWhole);
  }

  /** No capability at all, so no extended one either. */
  private none(): void {
    this.tell("pcie", false);
    for (const name of ["acs", "ats", "sriov", "rebar", "vfrebar"]) this.tell(name, false);
  }

  private pcie(at: number): void {
    this.tell("pcie", true);
    if (!this.has(at + 2, 2)) return;
    const flags = this.u16(at + 2);
    const type = PORT_TYPES[(flags >> 4) & 0xf] ?? "reserved";
    this.tell("pcie.type", type);
    if (type === "root-port" || type === "switch-downstream") {
      this.tell("pcie.slot", (flags & 0x100) !== 0);
    }
    if (type === "rc-endpoint" || type === "rc-event-collector") {
      this.tell("link.max", "none");
      this.tell("link.now", "none");
      return;
    }
    if (!this.has(at + 0x0c, 8)) return;
    const most = this.u32(at + 0x0c);
    this.tell("link.max", linkText(SPEEDS[most & 0xf] ?? 0, (most >> 4) & 0x3f));
    const now = this.u16(at + 0x12);
    this.tell("link.now", linkText(SPEEDS[now & 0xf] ?? 0, (now >> 4) & 0x3f));
  }

  private extended(hasPcie: boolean, isListWhole: boolean): void {
    if (this.bytes.length <= 0x100) {
      // Without PCIe there is no extended space; Linux looks for one behind host bridges only.
      if (!hasPcie && isListWhole && this.u16(0x0a) !== 0x0600) this.noExtended();
      return;
    }
    const found = new Set<number>();
    const isWhole = this.walkExtended(found);
    if (!isWhole) return;
    if (!found.has(EXTENDED.acs)) this.tell("acs", false);
    if (!found.has(EXTENDED.ats)) this.tell("ats", false);
    if (!found.has(EXTENDED.sriov)) this.tell("sriov", false);
    if (!found.has(EXTENDED.rebar)) this.tell("rebar", false);
    if (!found.has(EXTENDED.vfRebar)) this.tell("vfrebar", false);
  }

  private noExtended(): void {
    for (const name of ["acs", "ats", "sriov", "rebar", "vfrebar"]) this.tell(name, false);
  }

  /** @returns whether the list was followed to its end. */
  private walkExtended(found: Set<number>): boolean {
    const seen = new Set<number>();
    for (let at = 0x100; at !== 0; ) {
      if (at < 0x100 || seen.has(at) || seen.size >= EXTENDED_MAX) {
        this.bad(`extended capability list goes wrong at ${at.toString(16)}`);
        return false;
      }
      if (!this.has(at, 4)) return false;
      seen.add(at);
      const header = this.u32(at);
      if (header === 0 || header === 0xffffffff) return true;
      const id = header & 0xffff;
      if (!found.has(id)) this.extendedCapability(id, at);
      found.add(id);
      at = (header >>> 20) & 0xffc;
    }
    return true;
  }

  private extendedCapability(id: number, at: number): void {
    if (id === EXTENDED.acs) {
      this.tell("acs", true);
      this.tell("acs.offset", at);
      if (!this.has(at + 4, 4)) return;
      this.tell("acs.cap", this.u16(at + 4) & 0x7f);
      this.tell("acs.ctl", this.u16(at + 6) & 0x7f);
    } else if (id === EXTENDED.ats) {
      this.tell("ats", true);
      if (this.has(at + 6, 2)) this.tell("ats.on", (this.u16(at + 6) & 0x8000) !== 0);
    } else if (id === EXTENDED.sriov) {
      this.sriov(at);
    } else if (id === EXTENDED.rebar) {
      this.resizable("rebar", at);
    } else if (id === EXTENDED.vfRebar) {
      this.resizable("vfrebar", at);
    }
  }

  private sriov(at: number): void {
    this.tell("sriov", true);
    if (!this.has(at, 0x40)) return;
    const isEnabled = (this.u16(at + 0x08) & 1) !== 0;
    this.tell("sriov.total", this.u16(at + 0x0e));
    this.tell("sriov.enabled", isEnabled ? this.u16(at + 0x10) : 0);
    this.tell("sriov.offset", this.u16(at + 0x14));
    this.tell("sriov.stride", this.u16(at + 0x16));
    for (let index = 0; index < 6; index++) {
      index += this.bar("vfbar", index, at + 0x24 + index * 4, index < 5, null);
    }
  }

  private resizable(key: string, at: number): void {
    this.tell(key, true);
    if (!this.has(at + 8, 4)) return;
    const count = (this.u32(at + 8) >> 5) & 7;
    for (let entry = 0; entry < count && entry < 6; entry++) {
      const offset = at + 4 + entry * 8;
      if (!this.has(offset, 8)) return;
      const control = this.u32(offset + 4);
      const name = `${key}${control & 7}`;
      this.tell(`${name}.size`, MEBIBYTE << BigInt((control >> 8) & 0x3f));
      // Sizes 1 MiB .. 128 TiB here, larger ones in the upper half of the control register.
      const sizes: bigint[] = [];
      const bits = BigInt(this.u32(offset) >>> 4) | (BigInt(control >>> 16) << 28n);
      for (let n = 0n; n < 44n; n++) if ((bits >> n) & 1n) sizes.push(MEBIBYTE << n);
      this.tell(`${name}.sizes`, sizes.join(" "));
    }
  }

  private tell(key: string, value: Value): void {
    this.machine.tell(this.draft, key, value, this.place);
  }

  private bad(what: string): void {
    this.machine.notice("BAD_CONFIG", this.place, `${this.draft.address}: ${what}`);
  }

  private has(offset: number, length: number): boolean {
    return offset + length <= this.bytes.length;
  }

  private u8(offset: number): number {
    return offset < this.bytes.length ? (this.bytes[offset] as number) : 0;
  }

  private u16(offset: number): number {
    return this.has(offset, 2) ? this.view.getUint16(offset, true) : 0;
  }

  private u32(offset: number): number {
    return this.has(offset, 4) ? this.view.getUint32(offset, true) : 0;
  }
}

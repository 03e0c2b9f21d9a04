// SPDX-License-Identifier: MIT
// The names of vendors, devices and classes: a `pci.ids` file as the PCI ID project publishes it
// and distributions install it. Lines without indent open a vendor ("8086  Intel Corporation") or a
// class ("C 01  Mass storage controller"), one tab a device or subclass of it, two tabs what lies
// below. Only the outer level is read at once; a vendor's devices when somebody asks for them.

import type { NameResolver } from "./verdict.js";

/** Where a vendor's or class's own lines are in the file. */
interface Section {
  readonly name: string;
  /** Position after the line that opens it, and that of the next one that does. */
  readonly start: number;
  readonly end: number;
}

/** The two numbers that say what a function is. */
export interface PciId {
  /** 16 bits. */
  readonly vendor: number;
  /** 16 bits. */
  readonly device: number;
}

const OPENING = /^(?:([0-9a-f]{4})|C ([0-9a-f]{2}))\s+(\S.*)$/i;

/** The names in a `pci.ids` file, both ways; the way back makes it a `NameResolver`. */
export class PciIds implements NameResolver {
  readonly #text: string;
  readonly #vendors = new Map<number, Section>();
  readonly #classes = new Map<number, Section>();
  readonly #members = new Map<Section, ReadonlyMap<number, string>>();
  /** Vendors by the first word of their names. */
  #byWord: ReadonlyMap<string, readonly number[]> | null = null;

  /**
   * @param text the file. What is no line of such a file is passed over, so any text is taken; an
   *   empty one gives no names.
   */
  constructor(text: string) {
    this.#text = text;
    let position = 0;
    let open: { section: Map<number, Section>; key: number; name: string; start: number } | null =
      null;
    const close = (end: number) => {
      if (open === null || open.section.has(open.key)) return;
      open.section.set(open.key, { name: open.name, start: open.start, end });
    };
    while (position < text.length) {
      const next = text.indexOf("\n", position);
      const end = next < 0 ? text.length : next;
      const first = text.charCodeAt(position);
      // Tabs belong to the section that is open; comments and blank lines to none.
      if (first !== 0x09 && first !== 0x23 && end > position) {
        close(position);
        open = null;
        const match = OPENING.exec(text.slice(position, end).trimEnd());
        if (match !== null) {
          const isVendor = match[1] !== undefined;
          open = {
            section: isVendor ? this.#vendors : this.#classes,
            key: Number.parseInt((match[1] ?? match[2]) as string, 16),
            name: match[3] as string,
            start: end + 1,
          };
        }
      }
      position = end + 1;
    }
    close(text.length);
  }

  /** How many vendors the file names. */
  get vendorCount(): number {
    return this.#vendors.size;
  }

  /** @returns the vendor's name, null when the file has none. */
  vendorName(vendor: number): string | null {
    return this.#vendors.get(vendor)?.name ?? null;
  }

  /** @returns the device's name without its vendor's, null when the file has none. */
  deviceName(vendor: number, device: number): string | null {
    const section = this.#vendors.get(vendor);
    return section === undefined ? null : (this.#membersOf(section, 4).get(device) ?? null);
  }

  /**
   * @param code class and subclass, 16 bits: 0x0108 is "Non-Volatile memory controller".
   * @returns the subclass's name, or the class's where the file has no more, or null.
   */
  className(code: number): string | null {
    const section = this.#classes.get(code >> 8);
    if (section === undefined) return null;
    return this.#membersOf(section, 2).get(code & 0xff) ?? section.name;
  }

  /**
   * The way back, for dumps with words alone.
   * @param name vendor and device as `lspci` prints them, "Intel Corporation Device 09a2" as well.
   * @returns every pair of numbers that has this name; several share one now and then.
   */
  lookUp(name: string): readonly PciId[] {
    this.#byWord ??= this.#indexWords();
    const text = name.trim();
    const found: PciId[] = [];
    for (const vendor of this.#byWord.get(firstWord(text)) ?? []) {
      const section = this.#vendors.get(vendor) as Section;
      if (!text.startsWith(`${section.name} `)) continue;
      const rest = text.slice(section.name.length + 1).trim();
      const literal = /^Device ([0-9a-f]{4})$/i.exec(rest);
      if (literal !== null) {
        found.push({ vendor, device: Number.parseInt(literal[1] as string, 16) });
        continue;
      }
      for (const [device, itsName] of this.#membersOf(section, 4)) {
        if (itsName === rest) found.push({ vendor, device });
      }
    }
    return found;
  }

  #membersOf(section: Section, digits: number): ReadonlyMap<number, string> {
    const known = this.#members.get(section);
    if (known !== undefined) return known;
    const members = new Map<number, string>();
    const line = new RegExp(`^\\t([0-9a-f]{${digits}})[ \\t]+([^\\n]+)$`, "gim");
    for (const match of this.#text.slice(section.start, section.end).matchAll(line)) {
      const number = Number.parseInt(match[1] as string, 16);
      if (!members.has(number)) members.set(number, (match[2] as string).trim());
    }
    this.#members.set(section, members);
    return members;
  }

  #indexWords(): ReadonlyMap<string, readonly number[]> {
    const index = new Map<string, number[]>();
    for (const [vendor, { name }] of this.#vendors) {
      const word = firstWord(name);
      const list = index.get(word);
      if (list === undefined) index.set(word, [vendor]);
      else list.push(vendor);
    }
    return index;
  }
}

function firstWord(text: string): string {
  return /^\S*/.exec(text)?.[0] ?? "";
}

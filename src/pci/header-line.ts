// SPDX-License-Identifier: MIT
// The first line of a function in lspci's output: `80:02.0 PCI bridge [0604]: Name [8086:2f04]`
// and what it looks like with `-n`, with names alone, with and without a domain.

import { type AddressParts, parseAddress } from "./address.js";
import { classOfName } from "./class-names.js";
import { printable } from "./draft.js";
import { vendorOfText } from "./vendor-names.js";

/** The first line of a block. */
export interface HeaderLine {
  readonly parts: AddressParts;
  readonly classCode: number | null;
  readonly className: string | null;
  readonly vendor: number | null;
  readonly device: number | null;
  readonly deviceText: string;
  readonly revision: number | null;
  readonly progIf: number | null;
}

const HEADER = /^((?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]) (\S.*)$/;

const HIDDEN_HEADER =
  /[0-9a-f]{2}:[01][0-9a-f]\.[0-7] (?:(?:Class )?[0-9a-f]{4}: |[A-Z][^:]{2,60}: )/;

/** Whether a header begins within a line: the line was cut and another dump follows it. */
export function hidesHeader(text: string): boolean {
  return text.length > 16 && HIDDEN_HEADER.test(text);
}

/** @returns null for a line that isn't the header of a function, or is that of two. */
export function parseHeader(line: string): HeaderLine | null {
  const match = HEADER.exec(line);
  if (match === null || hidesHeader(match[2] as string)) return null;
  const parts = parseAddress(match[1] as string);
  const split = splitClass(match[2] as string);
  if (parts === null || split === null) return null;
  const text = cutTrailers(split.text);
  const ids = idsOfText(text.text);
  return {
    parts,
    classCode: split.code,
    className: split.name,
    vendor: ids.vendor,
    device: ids.device,
    deviceText: printable(ids.text),
    revision: text.revision,
    progIf: text.progIf,
  };
}

function splitClass(rest: string): { code: number; name: string | null; text: string } | null {
  // With -n: `0604: 8086:2f04 (rev 02)`, of old also `Class 0604: …`.
  const numeric = /^(?:Class )?([0-9a-f]{4}): (.*)$/.exec(rest);
  if (numeric !== null) {
    const text = numeric[2] as string;
    if (!/^[0-9a-f]{4}:[0-9a-f]{4}\b/.test(text)) return null;
    return { code: Number.parseInt(numeric[1] as string, 16), name: null, text };
  }
  const colon = rest.indexOf(": ");
  if (colon < 0) return null;
  const head = rest.slice(0, colon);
  const text = rest.slice(colon + 2);
  // With -nn: `PCI bridge [0604]: …`.
  const both = /^(.{1,80}) \[([0-9a-f]{4})\]$/.exec(head);
  if (both !== null) {
    return { code: Number.parseInt(both[2] as string, 16), name: both[1] as string, text };
  }
  const code = classOfName(head);
  return code === null ? null : { code, name: head, text };
}

function cutTrailers(text: string): {
  text: string;
  revision: number | null;
  progIf: number | null;
} {
  let progIf: number | null = null;
  let revision: number | null = null;
  const prog = text.lastIndexOf(" (prog-if ");
  if (prog >= 0) {
    const value = /^ \(prog-if ([0-9a-f]{2})\b/.exec(text.slice(prog));
    if (value !== null) progIf = Number.parseInt(value[1] as string, 16);
    text = text.slice(0, prog);
  }
  const rev = text.lastIndexOf(" (rev ");
  if (rev >= 0) {
    const value = /^ \(rev ([0-9a-f]{2})\)/.exec(text.slice(rev));
    if (value !== null) revision = Number.parseInt(value[1] as string, 16);
    text = text.slice(0, rev);
  }
  return { text, revision, progIf };
}

/** Numbers of `8086:2f04`, `Name Of It [8086:2f04]`, `Intel Corporation Device 09a2`. */
export function idsOfText(text: string): {
  vendor: number | null;
  device: number | null;
  text: string;
} {
  const numeric = /^([0-9a-f]{4}):([0-9a-f]{4})$/.exec(text.trim());
  if (numeric !== null) return pair(numeric[1] as string, numeric[2] as string, "");
  const both = /^(.*) \[([0-9a-f]{4}):([0-9a-f]{4})\]$/.exec(text.trim());
  if (both !== null) return pair(both[2] as string, both[3] as string, both[1] as string);
  const vendor = vendorOfText(text);
  if (vendor === null) return { vendor: null, device: null, text };
  const device = /^Device ([0-9a-f]{4})$/.exec(vendor.rest);
  return {
    vendor: vendor.id,
    device: device === null ? null : Number.parseInt(device[1] as string, 16),
    text,
  };
}

function pair(vendor: string, device: string, text: string) {
  return { vendor: Number.parseInt(vendor, 16), device: Number.parseInt(device, 16), text };
}

// SPDX-License-Identifier: MIT
// Packs entries into a ustar archive, for tests of the reader.

import type { FolderEntry } from "../../src/pci/index.js";

const BLOCK = 512;

/** @param isPax every name in a header of its own, as `tar --format=pax` may write it. */
export function packTar(entries: ReadonlyMap<string, FolderEntry>, isPax = false): Uint8Array {
  const blocks: Uint8Array[] = [];
  for (const [path, entry] of entries) {
    const content = entry.kind === "file" ? entry.bytes : new Uint8Array(0);
    const type = entry.kind === "file" ? "0" : entry.kind === "link" ? "2" : "5";
    const link = entry.kind === "link" ? entry.target : "";
    // Long names: pax writes records of them in front, GNU tar an entry of their own.
    if (isPax) blocks.push(...pax(path, link));
    else if (path.length > 100) blocks.push(...long("L", path));
    if (!isPax && link.length > 100) blocks.push(...long("K", link));
    blocks.push(header(path.slice(0, 100), content.length, type, link.slice(0, 100)));
    blocks.push(padded(content));
  }
  blocks.push(new Uint8Array(2 * BLOCK));
  return concat(blocks);
}

function long(type: string, value: string): Uint8Array[] {
  const bytes = new TextEncoder().encode(`${value}\0`);
  return [header("././@LongLink", bytes.length, type, ""), padded(bytes)];
}

function pax(path: string, link: string): Uint8Array[] {
  const records = record("path", path) + (link === "" ? "" : record("linkpath", link));
  const bytes = new TextEncoder().encode(records);
  return [header("PaxHeaders/x", bytes.length, "x", ""), padded(bytes)];
}

/** The length counts itself. */
function record(key: string, value: string): string {
  const rest = new TextEncoder().encode(` ${key}=${value}\n`).length;
  let length = rest + 1;
  while (`${length}`.length + rest !== length) length++;
  return `${length} ${key}=${value}\n`;
}

function header(path: string, size: number, type: string, link: string): Uint8Array {
  const block = new Uint8Array(BLOCK);
  const put = (text: string, at: number) => block.set(new TextEncoder().encode(text), at);
  put(path, 0);
  put("0000644\0", 100);
  put(`${size.toString(8).padStart(11, "0")}\0`, 124);
  put("        ", 148);
  put(type, 156);
  put(link, 157);
  put("ustar\x0000", 257);
  const sum = block.reduce((all, byte) => all + byte, 0);
  put(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}

function padded(bytes: Uint8Array): Uint8Array {
  const block = new Uint8Array(Math.ceil(bytes.length / BLOCK) * BLOCK);
  block.set(bytes);
  return block;
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

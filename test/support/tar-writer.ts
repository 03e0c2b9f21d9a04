// SPDX-License-Identifier: MIT
// Packs entries into a ustar archive, for tests of the reader.

import type { FolderEntry } from "../../src/pci/index.js";

const BLOCK = 512;

export function packTar(entries: ReadonlyMap<string, FolderEntry>): Uint8Array {
  const blocks: Uint8Array[] = [];
  for (const [path, entry] of entries) {
    const content = entry.kind === "file" ? entry.bytes : new Uint8Array(0);
    const type = entry.kind === "file" ? "0" : entry.kind === "link" ? "2" : "5";
    const link = entry.kind === "link" ? entry.target : "";
    // Long names as GNU tar writes them: an entry of their own in front.
    if (path.length > 100) blocks.push(...long("L", path));
    if (link.length > 100) blocks.push(...long("K", link));
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

// SPDX-License-Identifier: MIT
// The names of PCI devices, where a distribution has installed them.

import { readFileSync, statSync } from "node:fs";
import { gunzipSync } from "node:zlib";

/** Where distributions put the file, in the order in which pciutils' own come first. */
const PLACES: readonly string[] = [
  "/usr/share/misc/pci.ids",
  "/usr/share/hwdata/pci.ids",
  "/usr/share/misc/pci.ids.gz",
  "/usr/share/hwdata/pci.ids.gz",
  "/usr/share/pci.ids",
  "/usr/local/share/pciids/pci.ids",
];
/** The file has 1.5 MB. */
const BYTES_MAX = 64 * 1024 * 1024;

/**
 * @param places where to look; the first that can be read is taken.
 * @returns the file's path and text, or null where there is none.
 */
export function readPciIds(
  places: readonly string[] = PLACES,
): { readonly path: string; readonly text: string } | null {
  for (const path of places) {
    try {
      if (statSync(path).size > BYTES_MAX) continue;
      const bytes = readFileSync(path);
      const isPacked = bytes[0] === 0x1f && bytes[1] === 0x8b;
      const text = isPacked ? gunzipSync(bytes, { maxOutputLength: BYTES_MAX }) : bytes;
      return { path, text: text.toString("utf8") };
    } catch {
      // Not there, not readable or broken: the next place.
    }
  }
  return null;
}

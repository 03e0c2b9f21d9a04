// SPDX-License-Identifier: MIT
import type { MemorySourceOptions, OsMemorySource } from "./door.js";

export function openMemorySource(_o: MemorySourceOptions = {}): OsMemorySource {
  throw new Error("being written");
}

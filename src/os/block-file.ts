// SPDX-License-Identifier: MIT
import type { BlockFileOptions, OsBlockFile } from "./door.js";

export async function openBlockFile(path: string, _o: BlockFileOptions): Promise<OsBlockFile> {
  throw new Error(`being written: ${path}`);
}

// SPDX-License-Identifier: MIT

import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { SourceText } from "./source-text.js";

const FOLDERS = ["src", "test", "scripts", "bench", "interop", "docs", ".ci"];
const SKIPPED = new Set(["node_modules", "dist", "data", "captures"]);
const TEXT_FILE = /\.(?:ts|mjs|js|json|md|sh|ya?ml)$|^run$/;

/** The files that tidy looks at. */
export interface Repository {
  readonly files: readonly SourceText[];
}

/** Reads every text file of the checkout at `root` that is ours (no test data, nothing built). */
export function readRepository(root: string): Repository {
  const paths: string[] = [];
  for (const entry of readdirSync(root, { withFileTypes: true })) {
    if (entry.isFile() && TEXT_FILE.test(entry.name)) paths.push(entry.name);
    if (entry.isDirectory() && FOLDERS.includes(entry.name)) listFolder(root, entry.name, paths);
  }
  paths.sort();
  return {
    files: paths.map((path) => new SourceText(path, readFileSync(join(root, path), "utf8"))),
  };
}

function listFolder(root: string, folder: string, paths: string[]): void {
  for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory()) {
      if (!SKIPPED.has(entry.name)) listFolder(root, path, paths);
    } else if (TEXT_FILE.test(entry.name)) paths.push(path);
  }
}

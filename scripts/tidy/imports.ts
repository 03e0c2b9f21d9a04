// SPDX-License-Identifier: MIT
// Rules about what a file imports: doors only, floors only downwards, no I/O outside the rooms for
// it, no package that package.json doesn't name for the place.

import { posix } from "node:path";
import { ROOMS } from "./floors.js";
import { isTest, isTypeScript, type Problem, roomOf } from "./rules.js";
import type { SourceText } from "./source-text.js";

export interface Packages {
  /** The package's own name: what is outside of src/ may use it as its users do. */
  readonly name: string;
  readonly dependencies: readonly string[];
  readonly devDependencies: readonly string[];
}

interface Import {
  readonly specifier: string;
  readonly line: number;
}

/** Every module specifier of a file: import, export from, dynamic import. */
export function findImports(file: SourceText): Import[] {
  const imports: Import[] = [];
  const pattern = /\b(?:from|import)\s*\(?\s*["']/g;
  for (let match = pattern.exec(file.code); match !== null; match = pattern.exec(file.code)) {
    const start = match.index + match[0].length;
    const end = file.text.indexOf(file.text[start - 1] as string, start);
    imports.push({ specifier: file.text.slice(start, end), line: file.lineAt(start) });
  }
  return imports;
}

export function* checkImports(file: SourceText, packages: Packages): Generator<Problem> {
  if (!isTypeScript(file.path)) return;
  for (const { specifier, line } of findImports(file)) {
    const message = specifier.startsWith(".")
      ? judgeRelative(file.path, specifier)
      : judgePackage(file.path, specifier, packages);
    if (message !== null) yield { rule: "import", path: file.path, line, message };
  }
}

/** @returns what is wrong with a relative import, or null. */
function judgeRelative(path: string, specifier: string): string | null {
  const target = posix.normalize(posix.join(posix.dirname(path), specifier));
  const room = roomOf(path);
  const targetRoom = roomOf(target);
  if (targetRoom === "") {
    return room === "" || isTest(path) ? null : `"${specifier}" leads out of src/`;
  }
  if (targetRoom === room) return null;
  if (target !== `src/${targetRoom}/index.js`) {
    return `"${specifier}" goes past the door of ${targetRoom}/: import its index.js`;
  }
  if (room === "" || isTest(path)) return null;
  if (ROOMS[room]?.uses.includes(targetRoom)) return null;
  return `${room}/ may not use ${targetRoom}/ (see scripts/tidy/floors.ts)`;
}

/** @returns what is wrong with the import of a package or of a module of Node, or null. */
function judgePackage(path: string, specifier: string, packages: Packages): string | null {
  const room = roomOf(path);
  const isProduct = room !== "" && !isTest(path);
  if (specifier.startsWith("node:")) {
    return isProduct && ROOMS[room]?.isCore !== false
      ? `"${specifier}" in a core room: I/O belongs into os/, runtime/ or cli/`
      : null;
  }
  const name = specifier.split("/", specifier.startsWith("@") ? 2 : 1).join("/");
  if (!isProduct) {
    const known = [packages.name, ...packages.dependencies, ...packages.devDependencies];
    return known.includes(name) ? null : `"${name}" is not in package.json`;
  }
  if (!packages.dependencies.includes(name)) return `"${name}" is not among the dependencies`;
  return ROOMS[room]?.packages.includes(name) ? null : `${room}/ may not use "${name}"`;
}

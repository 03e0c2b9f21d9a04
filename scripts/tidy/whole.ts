// SPDX-License-Identifier: MIT
// The rules about the repository as a whole: the table of floors against the compiler's references,
// dependencies against their reasons, the lock file.

import { ROOMS } from "./floors.js";
import type { Packages } from "./imports.js";
import type { Repository } from "./repository.js";
import type { Problem } from "./rules.js";

interface Manifest {
  readonly name?: string;
  readonly dependencies?: Record<string, string>;
  readonly devDependencies?: Record<string, string>;
}

function textOf(repository: Repository, path: string): string | null {
  return repository.files.find((file) => file.path === path)?.text ?? null;
}

export function packagesOf(repository: Repository): Packages {
  const manifest = JSON.parse(textOf(repository, "package.json") ?? "{}") as Manifest;
  return {
    name: manifest.name ?? "",
    dependencies: Object.keys(manifest.dependencies ?? {}),
    devDependencies: Object.keys(manifest.devDependencies ?? {}),
  };
}

/** The table itself: every edge goes down or stays on its floor, and names a room. */
export function* checkFloors(rooms: typeof ROOMS = ROOMS): Generator<Problem> {
  const path = "scripts/tidy/floors.ts";
  for (const [name, room] of Object.entries(rooms)) {
    for (const used of room.uses) {
      const target = rooms[used];
      if (target === undefined) {
        yield { rule: "floors", path, line: 0, message: `${name} uses unknown room ${used}` };
      } else if (target.floor > room.floor) {
        yield { rule: "floors", path, line: 0, message: `${name} uses ${used}, a floor above it` };
      } else if (room.isCore && !target.isCore) {
        yield { rule: "floors", path, line: 0, message: `core room ${name} uses ${used}` };
      }
    }
  }
}

/** Each room's tsconfig.json refers to exactly the rooms of the table. */
export function* checkReferences(repository: Repository): Generator<Problem> {
  const pattern = /^src\/([^/]+)\/tsconfig\.json$/;
  for (const file of repository.files) {
    const room = pattern.exec(file.path)?.[1];
    if (room === undefined) continue;
    const parsed = JSON.parse(file.text) as { references?: { path: string }[] };
    const actual = (parsed.references ?? []).map((reference) => reference.path.replace("../", ""));
    const wanted = ROOMS[room]?.uses;
    const message =
      wanted === undefined
        ? `room ${room}/ is not in scripts/tidy/floors.ts`
        : differenceOf(actual, wanted);
    if (message !== null) yield { rule: "references", path: file.path, line: 0, message };
  }
}

function differenceOf(actual: readonly string[], wanted: readonly string[]): string | null {
  const extra = actual.filter((name) => !wanted.includes(name));
  const missing = wanted.filter((name) => !actual.includes(name));
  if (extra.length + missing.length === 0) return null;
  return `references differ from the floors: extra [${extra}], missing [${missing}]`;
}

/** Each package of package.json has its line in docs/dependencies.md. */
export function* checkDependencies(repository: Repository): Generator<Problem> {
  const path = "docs/dependencies.md";
  const reasons = textOf(repository, path) ?? "";
  const { dependencies, devDependencies } = packagesOf(repository);
  for (const name of [...dependencies, ...devDependencies]) {
    const isNamed = reasons.split("\n").some((line) => line.includes(`\`${name}\``));
    if (!isNamed) {
      yield { rule: "dependency", path, line: 0, message: `no line says why \`${name}\` is there` };
    }
  }
}

/** The lock file names versions and hashes, no server: it must work with any registry mirror. */
export function* checkLock(repository: Repository): Generator<Problem> {
  const path = "package-lock.json";
  const lines = (textOf(repository, path) ?? "").split("\n");
  for (const [index, text] of lines.entries()) {
    if (/^\s*"resolved":/.test(text)) {
      const message = 'no "resolved": it ties the lock to one registry';
      yield { rule: "lock", path, line: index + 1, message };
      return;
    }
  }
}

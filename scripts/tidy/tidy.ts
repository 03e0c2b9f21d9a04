// SPDX-License-Identifier: MIT
// `tidy`: the rules of docs/contributing that neither the compiler nor the linter knows.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { checkImports } from "./imports.js";
import { applyRatchet, type Ratchet } from "./ratchet.js";
import { type Repository, readRepository } from "./repository.js";
import * as rules from "./rules.js";
import * as whole from "./whole.js";

const RATCHET_PATH = "scripts/tidy-ratchet.json";

/** Every problem of a repository, the ratchet not yet applied. */
export function inspect(repository: Repository): rules.Problem[] {
  const packages = whole.packagesOf(repository);
  const problems = [
    ...whole.checkFloors(),
    ...whole.checkReferences(repository),
    ...whole.checkDependencies(repository),
    ...whole.checkLock(repository),
  ];
  for (const file of repository.files) {
    problems.push(
      ...rules.checkSpdx(file),
      ...rules.checkProse(file),
      ...rules.checkLineLength(file),
      ...rules.checkFileLength(file),
      ...rules.checkFunctionLength(file),
      ...rules.checkFocus(file),
      ...rules.checkCoreWords(file),
      ...checkImports(file, packages),
    );
  }
  return problems;
}

/**
 * Runs tidy on the checkout at `root`, printing each problem on a line.
 * @param update writes the ratchet down to what is needed now (never up).
 * @returns the number of problems.
 */
export function runTidy(root: string, update: boolean): number {
  const path = join(root, RATCHET_PATH);
  const ratchet = existsSync(path) ? (JSON.parse(readFileSync(path, "utf8")) as Ratchet) : {};
  const repository = readRepository(root);
  let judgement = applyRatchet(inspect(repository), ratchet);
  if (update) {
    writeFileSync(path, `${JSON.stringify(judgement.tightened, null, 2)}\n`);
    judgement = applyRatchet(inspect(repository), judgement.tightened);
  }
  for (const problem of judgement.problems) {
    const place = problem.line > 0 ? `${problem.path}:${problem.line}` : problem.path;
    console.log(`${place}: ${problem.rule}: ${problem.message}`);
  }
  const count = judgement.problems.length;
  console.log(`tidy: ${repository.files.length} files, ${count} problems`);
  return count;
}

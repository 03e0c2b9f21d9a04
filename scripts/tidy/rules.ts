// SPDX-License-Identifier: MIT
// The rules about single files. Each yields problems; sizes are counted, so that the ratchet can
// hold old offenders where they are.

import { NO_BIGINT_ROOMS, ROOMS } from "./floors.js";
import { findFunctions } from "./functions.js";
import type { SourceText } from "./source-text.js";

/** Something that a rule doesn't like. */
export interface Problem {
  readonly rule: string;
  readonly path: string;
  /** 1-based; 0 for the file as a whole. */
  readonly line: number;
  readonly message: string;
  /** Rules with a ratchet: what to look up there, and how bad it is. */
  readonly key?: string;
  readonly size?: number;
}

export const FUNCTION_LINES_MAX = 70;
export const FILE_LINES_WANTED = 500;
export const FILE_LINES_MAX = 900;
export const LINE_COLUMNS_MAX = 100;

export function isTypeScript(path: string): boolean {
  return /\.ts$/.test(path);
}

export function isTest(path: string): boolean {
  return /^test\//.test(path) || /\.(?:test|test-d|bench|fixture)\.ts$/.test(path);
}

/** The room of a file under `src/`, or "". */
export function roomOf(path: string): string {
  return /^src\/([^/]+)\//.exec(path)?.[1] ?? "";
}

const SPDX = "// SPDX-License-Identifier: MIT";

export function* checkSpdx(file: SourceText): Generator<Problem> {
  if (!isTypeScript(file.path)) return;
  const first = file.lines[0]?.startsWith("#!") ? file.lines[1] : file.lines[0];
  if (first !== SPDX) {
    yield { rule: "spdx", path: file.path, line: 1, message: `the first line is "${SPDX}"` };
  }
}

/** Words that mark unfinished work; split, so that this file doesn't trip over itself. */
const UNFINISHED = new RegExp(`\\b(?:TO${"DO"}|FIX${"ME"}|XX${"X"}|HA${"CK"})\\b`);
/** Folders of one machine. */
const MACHINE_PATH = new RegExp(`(?:^|[^\\w.])/(?:wor${"k"}|ro${"ot"}|hom${"e"}/\\w+)/`);

export function* checkProse(file: SourceText): Generator<Problem> {
  for (const [index, text] of file.lines.entries()) {
    const line = index + 1;
    if (file.path === "package-lock.json") return;
    if (UNFINISHED.test(text)) {
      yield { rule: "unfinished", path: file.path, line, message: "no marks of unfinished work" };
    }
    if (MACHINE_PATH.test(text)) {
      yield { rule: "machine-path", path: file.path, line, message: "no path of one machine" };
    }
  }
}

export function* checkLineLength(file: SourceText): Generator<Problem> {
  if (!isTypeScript(file.path)) return;
  const long = file.lines.flatMap((text, i) => (text.length > LINE_COLUMNS_MAX ? [i + 1] : []));
  if (long.length > 0) {
    const message = `${long.length} lines over ${LINE_COLUMNS_MAX} columns: ${long.join(", ")}`;
    const line = long[0] as number;
    yield {
      rule: "line-length",
      path: file.path,
      line,
      message,
      key: file.path,
      size: long.length,
    };
  }
}

export function* checkFileLength(file: SourceText): Generator<Problem> {
  if (!isTypeScript(file.path)) return;
  const size = file.lines.length - (file.lines.at(-1) === "" ? 1 : 0);
  if (size > FILE_LINES_MAX) {
    const message = `${size} lines; ${FILE_LINES_MAX} is the end`;
    yield { rule: "file-length-hard", path: file.path, line: 0, message };
  } else if (size > FILE_LINES_WANTED) {
    const message = `${size} lines, more than ${FILE_LINES_WANTED}`;
    yield { rule: "file-length", path: file.path, line: 0, message, key: file.path, size };
  }
}

/** Callbacks that hold a suite together are no functions in the sense of the rule. */
const SUITE = /^describe(?:\.\w+)*$/;

export function* checkFunctionLength(file: SourceText): Generator<Problem> {
  if (!isTypeScript(file.path)) return;
  for (const span of findFunctions(file)) {
    if (span.lineCount <= FUNCTION_LINES_MAX || SUITE.test(span.callee)) continue;
    yield {
      rule: "function-length",
      path: file.path,
      line: span.firstLine,
      message: `${span.name} has ${span.lineCount} lines, more than ${FUNCTION_LINES_MAX}`,
      key: `${file.path}#${span.name}`,
      size: span.lineCount,
    };
  }
}

const FOCUSED = /\b(?:describe|it|test|suite)\s*\.\s*(?:only|skip|todo)\b/;

export function* checkFocus(file: SourceText): Generator<Problem> {
  if (!isTest(file.path)) return;
  for (const [index, text] of file.codeLines.entries()) {
    if (FOCUSED.test(text)) {
      const message = "no focused, skipped or promised tests";
      yield { rule: "focus", path: file.path, line: index + 1, message };
    }
  }
}

/** What makes a core room's code depend on more than its arguments, or run later. */
const CORE_BANNED: readonly (readonly [pattern: RegExp, name: string])[] = [
  [/(?<![.\w$])async\b(?!\s*[:?=])/, "async"],
  [/(?<![.\w$])await\b(?!\s+using)/, "await"],
  [/\bPromise\b/, "Promise"],
  [/(?<![.\w$])Date\s*[.(]|\bnew\s+Date\b/, "Date"],
  [/\bMath\s*\.\s*random\b/, "Math.random"],
  [/\bEventEmitter\b/, "EventEmitter"],
  [/(?<![.\w$])console\s*\./, "console"],
  [/(?<![.\w$])(?:setTimeout|setInterval|setImmediate|queueMicrotask)\s*\(/, "timers"],
  [/(?<![.\w$])process\s*\./, "process"],
  [/(?<![.\w$])performance\s*\./, "performance"],
  [/(?<![.\w$])globalThis\b/, "globalThis"],
  [/(?<![.\w$])Buffer\s*\./, "Buffer"],
];
const BIGINT = /\bBigInt\b|\bbigint\b|(?<![\w$.])\d[\d_]*n\b|Big(?:Ui|I)nt64/;

export function* checkCoreWords(file: SourceText): Generator<Problem> {
  const room = roomOf(file.path);
  if (room === "" || isTest(file.path)) return;
  const isCore = ROOMS[room]?.isCore ?? true;
  for (const [index, text] of file.codeLines.entries()) {
    const line = index + 1;
    if (isCore) {
      for (const [pattern, name] of CORE_BANNED) {
        if (!pattern.test(text)) continue;
        yield { rule: "core-word", path: file.path, line, message: `no ${name} in a core room` };
      }
    }
    if (NO_BIGINT_ROOMS.includes(room) && BIGINT.test(text)) {
      yield { rule: "bigint", path: file.path, line, message: `no BigInt in ${room}/` };
    }
  }
}

// SPDX-License-Identifier: MIT
// Each rule of tidy fires on what it is for, and only there.

import { describe, expect, it } from "vitest";
import { findFunctions } from "../../scripts/tidy/functions.js";
import { applyRatchet } from "../../scripts/tidy/ratchet.js";
import { blankProse, SourceText } from "../../scripts/tidy/source-text.js";
import { inspect } from "../../scripts/tidy/tidy.js";
import { checkFloors } from "../../scripts/tidy/whole.js";

const SPDX = "// SPDX-License-Identifier: MIT\n";
const MANIFEST = JSON.stringify({
  name: "farpage",
  dependencies: { koffi: "1", zod: "1" },
  devDependencies: { vitest: "1" },
});
const REASONS = "| `koffi` | x |\n| `zod` | x |\n| `vitest` | x |\n";

/** The rules that fire for these files beside a sound package.json. */
function rulesOf(files: Record<string, string>): string[] {
  const all = { "package.json": MANIFEST, "docs/dependencies.md": REASONS, ...files };
  const texts = Object.entries(all).map(([path, text]) => new SourceText(path, text));
  return inspect({ files: texts }).map((problem) => problem.rule);
}

/** The rules that fire for one TypeScript file with this text below the SPDX line. */
function rulesOfCode(path: string, code: string): string[] {
  return rulesOf({ [path]: `${SPDX}${code}\n` });
}

describe("tidy: imports", () => {
  it("the package itself, inside of src/ → refused", () => {
    expect(rulesOfCode("src/mm/a.ts", 'import { x } from "farpage/verbs";')).toEqual(["import"]);
  });

  it.each([
    ["src/transport/a.ts", 'import { x } from "../wire/index.js";'],
    ["src/transport/a.ts", 'import { x } from "./deep/b.js";'],
    ["src/os/a.ts", 'import koffi from "koffi";\nimport { open } from "node:fs";'],
    ["src/wire/a.test.ts", 'import { x } from "../sim/index.js";\nimport { it } from "vitest";'],
    ["test/sim/a.ts", 'import { x } from "../../src/rtrs/index.js";\nimport "./b.js";'],
    ["bench/a.ts", 'import { x } from "farpage/mm";'],
  ])("%s: %s → allowed", (path, code) => {
    expect(rulesOfCode(path, code)).toEqual([]);
  });

  it.each([
    ["past a door", "src/transport/a.ts", 'import { x } from "../wire/bth.js";'],
    ["past a door, from a test", "test/sim/a.ts", 'import { x } from "../../src/wire/bth.js";'],
    ["upward", "src/wire/a.ts", 'import { x } from "../transport/index.js";'],
    ["upward, a type", "src/wire/a.ts", 'import type { X } from "../rtrs/index.js";'],
    ["upward, re-exported", "src/base/a.ts", 'export { x } from "../wire/index.js";'],
    ["upward, dynamic", "src/rnbd/a.ts", 'const m = import("../runtime/index.js");'],
    ["out of src", "src/wire/a.ts", 'import { x } from "../../test/x.js";'],
    ["I/O in a core room", "src/wire/a.ts", 'import { open } from "node:fs";'],
    ["a package in a core room", "src/wire/a.ts", 'import { z } from "zod";'],
    ["a package of another room", "src/cli/a.ts", 'import koffi from "koffi";'],
    ["a package for tests in a product", "src/os/a.ts", 'import { it } from "vitest";'],
    ["an unknown package", "test/a.ts", 'import x from "left-pad";'],
  ])("%s → refused", (_what, path, code) => {
    expect(rulesOfCode(path, code)).toEqual(["import"]);
  });

  it("an import in a comment or a string → no import", () => {
    expect(
      rulesOfCode("src/wire/a.ts", '// import x from "zod";\nconst s = "from \'zod\'";'),
    ).toEqual([]);
  });
});

describe("tidy: words", () => {
  it.each([
    "async function f() {}",
    "const p = new Promise<void>(f);",
    "await f();",
    "const t = Date.now();",
    "const t = new Date();",
    "const r = Math.random();",
    "class A extends EventEmitter {}",
    "console.log(1);",
    "setTimeout(f, 1);",
    "queueMicrotask(f);",
    "const e = process.env;",
    "performance.now();",
    "Buffer.alloc(1);",
    "const g = globalThis;",
  ])("core room: %s → refused", (code) => {
    expect(rulesOfCode("src/rtrs/a.ts", code)).toEqual(["core-word"]);
    expect(rulesOfCode("src/runtime/a.ts", code)).toEqual([]);
    expect(rulesOfCode("src/rtrs/a.test.ts", code)).toEqual([]);
  });

  it.each([
    "// await the Promise, said console.log",
    'const s = "async Date.now()";',
    "request.process.start();",
    "const t = `await $" + "{value} async`;",
    "const updateDate = (x: number) => x;",
    "const r = /await Promise/.test(s);",
  ])("core room: %s → allowed", (code) => {
    expect(rulesOfCode("src/rtrs/a.ts", code)).toEqual([]);
  });

  it("code inside a template's expression → is code", () => {
    const code = "const t = `a $" + "{await f({ b: 1 })} c`;";
    expect(rulesOfCode("src/rtrs/a.ts", code)).toEqual(["core-word"]);
  });

  it.each(["const x = 1n;", "const x: bigint = f();", "view.getBigUint64(0);", "BigInt(1)"])(
    "%s → refused in wire and transport only",
    (code) => {
      expect(rulesOfCode("src/wire/a.ts", code)).toEqual(["bigint"]);
      expect(rulesOfCode("src/transport/a.ts", code)).toEqual(["bigint"]);
      expect(rulesOfCode("src/rnbd/a.ts", code)).toEqual([]);
    },
  );

  it("marks of unfinished work, and paths of one machine → refused in any text", () => {
    expect(rulesOfCode("src/wire/a.ts", `// TO${"DO"}: later`)).toEqual(["unfinished"]);
    expect(rulesOf({ "docs/a.md": `FIX${"ME"}` })).toEqual(["unfinished"]);
    expect(rulesOf({ "docs/a.md": `see /wor${"k"}/main` })).toEqual(["machine-path"]);
    expect(rulesOf({ "docs/a.md": "see ../work/main and src/work/x" })).toEqual([]);
  });

  it("focused, skipped or promised tests → refused", () => {
    for (const word of ["only", "skip", "todo"]) {
      expect(rulesOfCode("src/wire/a.test.ts", `it.${word}("x", f);`)).toEqual(["focus"]);
    }
    expect(rulesOfCode("src/wire/a.test.ts", 'it.skipIf(c)("x", f);')).toEqual([]);
  });

  it("a missing SPDX line → refused; below a shebang → allowed", () => {
    expect(rulesOf({ "src/wire/a.ts": "const x = 1;\n" })).toEqual(["spdx"]);
    expect(rulesOf({ "src/cli/a.ts": `#!/usr/bin/env node\n${SPDX}` })).toEqual([]);
  });
});

describe("tidy: sizes", () => {
  const lines = (count: number, text = "f();") => `${text}\n`.repeat(count);

  it("lines over 100 columns → refused", () => {
    expect(rulesOfCode("src/wire/a.ts", `// ${"x".repeat(97)}`)).toEqual([]);
    expect(rulesOfCode("src/wire/a.ts", `// ${"x".repeat(98)}`)).toEqual(["line-length"]);
  });

  it("files over 500 lines → refused, over 900 beyond the ratchet's help", () => {
    expect(rulesOf({ "src/wire/a.ts": SPDX + lines(499) })).toEqual([]);
    expect(rulesOf({ "src/wire/a.ts": SPDX + lines(500) })).toEqual(["file-length"]);
    expect(rulesOf({ "src/wire/a.ts": SPDX + lines(900) })).toEqual(["file-length-hard"]);
  });

  it.each([
    ["a function", "export function f(a: number): number {", "}"],
    ["a method", "class A {\n  private *run<T>(a: T): Generator<T> {", "  }\n}"],
    ["a constructor", "class A {\n  constructor(a: { b: number }) {", "  }\n}"],
    ["an arrow", "const f = (a: number): number => {", "};"],
    ["a getter", "class A {\n  get x(): number {", "  }\n}"],
    ["a callback", "list.map((a) => {", "});"],
    ["a returned object type", "function f(): { a: number } {", "}"],
  ])("%s over 70 lines → refused", (_what, head, tail) => {
    const own = 2;
    expect(rulesOfCode("src/wire/a.ts", `${head}\n${lines(70 - own)}${tail}`)).toEqual([]);
    const long = rulesOfCode("src/wire/a.ts", `${head}\n${lines(71 - own)}${tail}`);
    expect(long).toEqual(["function-length"]);
  });

  it.each([
    ["a class", "class A extends mixin(B) {", "}"],
    ["an object", "const a = {", "};"],
    ["an interface", "interface A {", "}"],
    ["a loop", "for (const a of f(b)) {", "}"],
    ["a switch", "switch (f(a)) {", "}"],
    ["a suite", 'describe("x", () => {', "});"],
    ["a type", "type A = {", "};"],
  ])("%s over 70 lines → allowed", (_what, head, tail) => {
    expect(rulesOfCode("src/wire/a.test.ts", `${head}\n${lines(80)}${tail}`)).toEqual([]);
  });

  it("functions are found with their names", () => {
    const code =
      "function a() {}\nclass B {\n  c(): void {\n    if (x) {\n    }\n  }\n}\nconst d = () => {};";
    const names = findFunctions(new SourceText("a.ts", code)).map((span) => span.name);
    expect(names).toEqual(["a", "c", "d"]);
  });
});

describe("tidy: the whole", () => {
  it("references that differ from the floors → refused", () => {
    const config = (paths: string[]) =>
      JSON.stringify({ references: paths.map((path) => ({ path })) });
    expect(rulesOf({ "src/wire/tsconfig.json": config(["../base"]) })).toEqual([]);
    expect(rulesOf({ "src/wire/tsconfig.json": config([]) })).toEqual(["references"]);
    expect(rulesOf({ "src/wire/tsconfig.json": config(["../base", "../rtrs"]) })).toEqual([
      "references",
    ]);
    expect(rulesOf({ "src/attic/tsconfig.json": config([]) })).toEqual(["references"]);
  });

  it("a table with an edge upward, to nowhere, or from the core to I/O → refused", () => {
    const room = { floor: 1, isCore: true, packages: [], uses: [] as string[] };
    const fire = (rooms: Parameters<typeof checkFloors>[0]) => [...checkFloors(rooms)].length;
    expect(fire({ a: room, b: { ...room, uses: ["a"] } })).toBe(0);
    expect(fire({ a: { ...room, floor: 2 }, b: { ...room, uses: ["a"] } })).toBe(1);
    expect(fire({ b: { ...room, uses: ["a"] } })).toBe(1);
    expect(fire({ a: { ...room, isCore: false }, b: { ...room, uses: ["a"] } })).toBe(1);
  });

  it("a dependency without a reason, a lock tied to a registry → refused", () => {
    expect(rulesOf({ "docs/dependencies.md": "`zod` and `vitest`" })).toEqual(["dependency"]);
    const lock = '{\n  "resolved": "https://registry.example/x.tgz"\n}';
    expect(rulesOf({ "package-lock.json": lock })).toEqual(["lock"]);
  });
});

describe("tidy: the ratchet", () => {
  const problem = (size: number) => ({
    rule: "file-length",
    path: "a.ts",
    line: 0,
    message: "long",
    key: "a.ts",
    size,
  });

  it("a listed offender passes at its size, not above it", () => {
    const ratchet = { "file-length": { "a.ts": 600 } };
    expect(applyRatchet([problem(600)], ratchet).problems).toEqual([]);
    expect(applyRatchet([problem(601)], ratchet).problems.length).toBe(1);
    expect(applyRatchet([problem(600)], {}).problems.length).toBe(1);
  });

  it("an offender that shrank or went → the list must follow, and update lowers it", () => {
    const ratchet = { "file-length": { "a.ts": 600, "b.ts": 700 } };
    const judgement = applyRatchet([problem(550)], ratchet);
    expect(judgement.problems.map((found) => found.rule)).toEqual(["ratchet", "ratchet"]);
    expect(judgement.tightened).toEqual({ "file-length": { "a.ts": 550 } });
    expect(applyRatchet([problem(550)], judgement.tightened).problems).toEqual([]);
  });

  it("update never raises a limit", () => {
    expect(applyRatchet([problem(601)], { "file-length": { "a.ts": 600 } }).tightened).toEqual({});
  });
});

describe("tidy: the scanner", () => {
  it("blanks prose and keeps positions", () => {
    const text = "a /* b\nc */ 'd\\'e' `f$" + "{g({})}h` /i\\/[/]j/ k / l / m // n";
    const code = blankProse(text);
    expect(code.length).toBe(text.length);
    expect(code.replace(/ +/g, " ")).toBe("a \n ' ' ` $" + "{g({})} ` k / l / m ");
  });
});

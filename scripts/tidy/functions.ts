// SPDX-License-Identifier: MIT

import type { SourceText } from "./source-text.js";

/** A function with a body, found by its braces. */
export interface FunctionSpan {
  /** Its name, or the call it is an argument of, or "anonymous". */
  readonly name: string;
  readonly firstLine: number;
  readonly lineCount: number;
  /** The function that it is an argument of, as in `describe(...)`; empty otherwise. */
  readonly callee: string;
}

const OPENERS = "([{";
const CLOSERS = ")]}";
/** Statements and declarations whose braces are no function's. */
const NO_FUNCTION = new RegExp(
  "^(?:export\\s+|default\\s+|declare\\s+|abstract\\s+|else\\s+|\\w+\\s*:\\s+)*" +
    "(?:(?:do|else|try|finally|case)\\b(?!\\s*\\()|(?:if|for|while|switch|catch|with)\\s*\\(|" +
    "(?:class|interface|type|enum)\\s)",
);

/** Finds every function body of a file. Overload signatures and expression bodies have none. */
export function findFunctions(source: SourceText): FunctionSpan[] {
  const { code } = source;
  const spans: FunctionSpan[] = [];
  const open: number[] = [];
  for (let i = 0; i < code.length; i++) {
    if (code[i] === "{") open.push(i);
    else if (code[i] === "}") {
      const start = open.pop();
      if (start === undefined) continue;
      const head = headOf(code, start);
      const name = functionName(head.text);
      if (name === null) continue;
      const firstLine = source.lineAt(head.start);
      const lineCount = source.lineAt(i) - firstLine + 1;
      spans.push({ name, firstLine, lineCount, callee: head.callee });
    }
  }
  return spans;
}

interface Head {
  readonly start: number;
  readonly text: string;
  readonly callee: string;
}

/** What stands before a brace, back to the end of the statement or list item before it. */
function headOf(code: string, brace: number): Head {
  let depth = 0;
  let position = brace - 1;
  for (; position >= 0; position--) {
    const here = code[position] as string;
    if (CLOSERS.includes(here)) {
      // A block that ended before this statement, unless it is a type in braces inside it.
      if (here === "}" && depth === 0 && !isTypeLiteral(code, position, brace)) break;
      depth++;
    } else if (OPENERS.includes(here)) {
      if (depth === 0) break;
      depth--;
    } else if (depth === 0 && (here === ";" || here === ",")) break;
  }
  const before = code.slice(0, Math.max(position, 0)).trimEnd();
  const isArgument = code[position] === "(" || code[position] === ",";
  const callee = isArgument ? calleeOf(before, code[position] === ",") : "";
  const raw = code.slice(position + 1, brace);
  const text = raw.trim();
  return { start: position + 1 + (raw.length - raw.trimStart().length), text, callee };
}

/** Whether the closing brace at `position` ends a return type such as `): { a: number } {`. */
function isTypeLiteral(code: string, position: number, brace: number): boolean {
  return /^[ |&>[\]]*$/.test(code.slice(position + 1, brace));
}

/** The called function of an argument list: looks back over earlier arguments. */
function calleeOf(before: string, overArguments: boolean): string {
  let text = before;
  if (overArguments) {
    let depth = 0;
    let position = before.length - 1;
    for (; position >= 0; position--) {
      const here = before[position] as string;
      if (CLOSERS.includes(here)) depth++;
      else if (OPENERS.includes(here) && depth-- === 0) break;
    }
    if (before[position] !== "(") return "";
    text = before.slice(0, position);
  }
  return /([\w$.]+)\s*(?:\([^()]*\))?$/.exec(text)?.[1] ?? "";
}

/** @returns the function's name, or null when the head is no function's. */
function functionName(head: string): string | null {
  if (head === "" || NO_FUNCTION.test(head)) return null;
  const named = /\bfunction\s*\*?\s*([\w$]*)/.exec(head);
  if (named !== null) return named[1] || "anonymous";
  if (/=>$/.test(head)) return /([\w$]+)\s*(?::[^=]*)?=[^=>]/.exec(head)?.[1] ?? "anonymous";
  // A method: name, parameters, perhaps a return type.
  const method = /(?:^|[\s*])([\w$#\]]+)\s*(?:<[^()]*>)?\(/.exec(head);
  if (method === null || !/\)(?:\s*:[^=]*)?$/.test(head)) return null;
  if (/\bnew\s|=(?!>)\s*[\w$.]+\(/.test(head)) return null;
  return method[1] as string;
}

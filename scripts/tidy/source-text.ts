// SPDX-License-Identifier: MIT
// A source file as the tidy rules see it: its lines, and the same text with comments and string
// contents blanked, so that a rule about code never fires on prose. A scanner, not a parser: it
// knows comments, strings, templates (with their nested code) and regular expression literals.

/** One file of the repository. Paths are relative to its root, with forward slashes. */
export class SourceText {
  readonly path: string;
  readonly text: string;
  readonly lines: readonly string[];
  /** `text` with comments and the insides of strings replaced by blanks, line for line. */
  readonly code: string;
  readonly codeLines: readonly string[];

  constructor(path: string, text: string) {
    this.path = path;
    this.text = text;
    this.lines = text.split("\n");
    this.code = /\.m?[jt]sx?$/.test(path) ? blankProse(text) : text;
    this.codeLines = this.code.split("\n");
  }

  /** 1-based line of a position in `text` or `code`. */
  lineAt(position: number): number {
    let line = 1;
    for (let i = 0; i < position; i++) if (this.text.charCodeAt(i) === 10) line++;
    return line;
  }
}

/** Keeps newlines, blanks everything else. */
function blank(text: string): string {
  return text.replace(/[^\n]/g, " ");
}

/** Words after which a slash begins a regular expression, not a division. */
const BEFORE_REGEX = /(?:^|[^\w$)\]}\s]|\b(?:return|typeof|case|in|of|throw|yield|await|else))\s*$/;

/** Replaces comments, string contents and regular expressions by blanks of the same shape. */
export function blankProse(text: string): string {
  let code = "";
  let position = 0;
  /** Per open template expression: the depth of braces inside it. */
  const templates: number[] = [];
  const keep = (count: number) => {
    code += text.slice(position, position + count);
    position += count;
  };
  const hide = (end: number) => {
    code += blank(text.slice(position, end));
    position = end;
  };
  while (position < text.length) {
    const here = text[position] as string;
    const two = text.slice(position, position + 2);
    const depth = templates.at(-1);
    if (two === "//") hide(endOr(text, text.indexOf("\n", position)));
    else if (two === "/*") hide(endOr(text, text.indexOf("*/", position), 2));
    else if (here === '"' || here === "'") hideString(here);
    else if (here === "`") hideTemplate();
    else if (here === "/" && BEFORE_REGEX.test(code.slice(-40))) hide(endOfRegex(text, position));
    else if (here === "{" && depth !== undefined) {
      templates[templates.length - 1] = depth + 1;
      keep(1);
    } else if (here === "}" && depth === 0) {
      templates.pop();
      hideTemplate();
    } else {
      if (here === "}" && depth !== undefined) templates[templates.length - 1] = depth - 1;
      keep(1);
    }
  }
  return code;

  function hideString(quote: string): void {
    keep(1);
    hide(endOfString(text, position, quote));
    keep(1);
  }

  /**
   * From a backquote, or from the brace that ends an expression, to the next expression or the end.
   */
  function hideTemplate(): void {
    keep(1);
    let end = position;
    while (end < text.length && text[end] !== "`" && text.slice(end, end + 2) !== "${") {
      end += text[end] === "\\" ? 2 : 1;
    }
    hide(Math.min(end, text.length));
    if (text.slice(position, position + 2) === "${") {
      keep(2);
      templates.push(0);
    } else keep(1);
  }
}

function endOr(text: string, index: number, extra = 0): number {
  return index < 0 ? text.length : index + extra;
}

function endOfString(text: string, start: number, quote: string): number {
  let end = start;
  while (end < text.length && text[end] !== quote && text[end] !== "\n") {
    end += text[end] === "\\" ? 2 : 1;
  }
  return Math.min(end, text.length);
}

function endOfRegex(text: string, start: number): number {
  let end = start + 1;
  let inClass = false;
  while (end < text.length && text[end] !== "\n") {
    if (text[end] === "\\") end++;
    else if (text[end] === "[") inClass = true;
    else if (text[end] === "]") inClass = false;
    else if (text[end] === "/" && !inClass) break;
    end++;
  }
  return Math.min(end + 1, text.length);
}

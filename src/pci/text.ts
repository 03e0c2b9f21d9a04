// SPDX-License-Identifier: MIT
// A pasted file, line by line: which line belongs to what. Words, hex and trees of lspci may follow
// one another in one file, with prose and prompts between; lines may be wrapped, cut, quoted.

import { decodeUtf8 } from "../base/index.js";
import { compareAddresses } from "./address.js";
import { decodeConfig } from "./config.js";
import type { FunctionDraft, MachineDraft, Place } from "./draft.js";
import { type HeaderLine, hidesHeader, parseHeader } from "./header-line.js";
import { commandLine, machineLine } from "./machine-text.js";
import type { SourceKind } from "./report.js";
import { isTreeLine, TreeReader } from "./tree.js";
import { WordsBlock } from "./words.js";

/** Longer lines aren't any of ours. */
const LINE_LENGTH_MAX = 16_384;
/** Mail wraps lines that are at least about so long, indentation not counted. */
const WRAPPED_LENGTH_MIN = 40;
/** No mail is narrower: a shorter line was wrapped only where the next word is that long. */
const WRAP_COLUMNS_MIN = 64;
const CONFIG_BYTES_MAX = 4096;
const HEX_LINE = /^([0-9a-f]{2,3}):((?: [0-9a-f]{2}){1,16})$/;
/** Marks of something left out. */
const ELISION = /^[ \t]*(?:\.\.\.|\[\.\.\.|…|<snip>|\[snip\]|--$)/i;
const PROMPT = /^(?:[\w.-]{1,64}@[\w.-]{1,64}|[#$%] )/;

interface Block {
  readonly draft: FunctionDraft | null;
  readonly words: WordsBlock | null;
  readonly header: HeaderLine;
  readonly place: Place;
  readonly config: Uint8Array;
  configLength: number;
  /** Something was left out, or lines had to be glued together across a blank one. */
  isDamaged: boolean;
  hasBlankAfter: boolean;
  /** The driver's line, which lspci prints last, was there. */
  hasLastLine: boolean;
  /** Indentation of its first line. */
  depth: number | null;
}

/** A line that may go on in the next one. */
interface Pending {
  text: string;
  /** How wide it is as it stands in the file, without what was glued to it. */
  readonly columns: number;
  readonly line: number;
  /** Null: a line of a block. */
  readonly header: HeaderLine | null;
}

/** Reads one text. Linear in its length; keeps one block at a time. */
export function readText(
  machine: MachineDraft,
  source: string,
  bytes: Uint8Array,
): { readonly kinds: Set<SourceKind>; readonly ignoredLines: number } {
  const reader = new TextReader(machine, source);
  eachLine(bytes, (line, number, isCut) => reader.line(line, number, isCut));
  reader.end();
  return { kinds: reader.kinds, ignoredLines: reader.ignoredLines };
}

/** A line without its end; null for one that is too long to be any of ours. */
type TakeLine = (line: string | null, number: number, isCut: boolean) => void;

/** Bytes that become characters at once: fewer, longer steps are many times as fast. */
const CHUNK_BYTES = 1 << 18;
/** Arguments of one call. */
const CODES_MAX = 8_192;

function eachLine(bytes: Uint8Array, take: TakeLine): void {
  let rest = "";
  let number = 1;
  let isTooLong = false;
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    const text = rest + characters(bytes, at, Math.min(bytes.length, at + CHUNK_BYTES));
    let start = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", start)) {
      isTooLong ||= end - start > LINE_LENGTH_MAX;
      take(isTooLong ? null : lineOf(text.slice(start, end)), number++, false);
      isTooLong = false;
      start = end + 1;
    }
    // Of a line that is too long nothing is kept, however long it gets.
    isTooLong ||= text.length - start > LINE_LENGTH_MAX;
    rest = isTooLong ? "" : text.slice(start);
  }
  if (isTooLong || rest !== "") take(isTooLong ? null : lineOf(rest), number, true);
}

/** Bytes as characters 0 .. 255. */
function characters(bytes: Uint8Array, start: number, end: number): string {
  let text = "";
  for (let at = start; at < end; at += CODES_MAX) {
    const codes = bytes.subarray(at, Math.min(end, at + CODES_MAX));
    // A spread would go through an iterator, byte by byte.
    text += Reflect.apply(String.fromCharCode, null, codes);
  }
  return text;
}

/** Without the blanks at the end and the CR of CRLF; UTF-8 where it is such. */
function lineOf(raw: string): string {
  let end = raw.length;
  while (end > 0 && isSpace(raw.charCodeAt(end - 1))) end--;
  const line = end === raw.length ? raw : raw.slice(0, end);
  if (!NOT_ASCII.test(line)) return line;
  const bytes = Uint8Array.from(line, (character) => character.charCodeAt(0));
  return decodeUtf8(bytes, 0, bytes.length) ?? line;
}

const NOT_ASCII = /[\x80-\xff]/;

function isSpace(code: number): boolean {
  return code === 0x20 || code === 0x09 || code === 0x0d;
}

class TextReader {
  readonly kinds = new Set<SourceKind>();
  ignoredLines = 0;
  private readonly machine: MachineDraft;
  private readonly source: string;
  private readonly isCommandLine: boolean;
  private block: Block | null = null;
  private tree: TreeReader | null = null;
  private pending: Pending | null = null;
  /** The last function of the listing so far; null where a listing begins. */
  private last: HeaderLine | null = null;
  private isWholeSoFar = false;

  constructor(machine: MachineDraft, source: string) {
    this.machine = machine;
    this.source = source;
    this.isCommandLine = /(?:^|[/\\])cmdline(?:\.txt)?$/.test(source);
  }

  /** @param isCut the text ends within this line: its last word may be half a word. */
  line(raw: string | null, number: number, isCut: boolean): void {
    if (raw === null) {
      this.noise();
      return;
    }
    const line = raw.startsWith(">") ? raw.replace(/^(?:> ?){1,8}/, "") : raw;
    if (line === "") {
      // Blanks before the cut may have been the beginning of a line.
      if (isCut) return;
      this.flush();
      if (this.block !== null) this.block.hasBlankAfter = true;
      return;
    }
    const first = line.charCodeAt(0);
    const isIndented = first === 0x20 || first === 0x09;
    if (!isIndented && this.addressed(line, number, isCut)) return;
    if (isTreeLine(line)) {
      this.treeLine(line, number, isCut);
      return;
    }
    const hasBlock = this.block !== null || this.pending !== null;
    if (hasBlock && this.inBlock(line, number, isIndented, isCut)) return;
    this.other(line, isCut);
  }

  end(): void {
    this.flush();
    const block = this.block;
    if (block === null) return;
    if (!isWhole(block) && block.words !== null && block.configLength === 0) {
      this.machine.notice(
        "CUT_OFF",
        { source: this.source, line: null },
        `the dump ends inside ${block.draft?.address}: what it doesn't show there is unknown`,
      );
    }
    this.close();
  }

  /** A line outside of any block. */
  private other(line: string, isCut: boolean): void {
    this.tree = null;
    this.flush();
    // Of "cpu family : 25" a cut leaves another family.
    const kind = isCut ? null : machineLine(this.machine, this.source, line);
    if (kind !== null) {
      this.close();
      this.kinds.add(kind);
    } else if (this.isCommandLine) {
      this.kinds.add(commandLine(this.machine, line));
    } else {
      this.noise();
    }
  }

  /** A header or a line of hex. */
  private addressed(line: string, number: number, isCut: boolean): boolean {
    const header = isCut ? null : parseHeader(line);
    if (header !== null) {
      this.flush();
      this.close();
      this.tree = null;
      this.pending = { text: line, columns: line.length, line: number, header };
      return true;
    }
    if (this.block === null && this.pending === null) return false;
    const hex = HEX_LINE.exec(line);
    if (hex === null) return false;
    this.flush();
    return this.hexLine(hex[1] as string, hex[2] as string, number);
  }

  private treeLine(line: string, number: number, isCut: boolean): void {
    this.flush();
    this.close();
    this.tree ??= new TreeReader(this.machine, this.source);
    if (this.tree.line(line, number, isCut)) this.kinds.add("lspci-tree");
    else this.ignoredLines++;
  }

  private inBlock(line: string, number: number, isIndented: boolean, isCut: boolean): boolean {
    if (!isIndented && !ELISION.test(line)) return this.glue(line, isCut);
    this.flush();
    const block = this.block;
    if (block === null) return false;
    if (ELISION.test(line)) {
      block.isDamaged = true;
      return false;
    }
    if (block.hasBlankAfter) block.isDamaged = true;
    block.hasBlankAfter = false;
    if (isCut) return true;
    const text = line.trimStart();
    const depth = line.length - text.length;
    block.depth ??= depth;
    // Another function's lines: its header is lost in a cut before.
    if (hidesHeader(text) || (depth <= block.depth && block.words?.isForeign(text) === true)) {
      block.isDamaged = true;
      return false;
    }
    this.pending = { text, columns: columnsOf(line), line: number, header: null };
    return true;
  }

  /** An unindented line right after a long one: the rest of it, as mail wraps. */
  private glue(line: string, isCut: boolean): boolean {
    const { pending } = this;
    if (pending === null || PROMPT.test(line)) return false;
    if (pending.text.length < WRAPPED_LENGTH_MIN && fits(pending, line)) return false;
    if (pending.text.length + line.length > LINE_LENGTH_MAX) return false;
    // Half of a line says nothing, and half a word in it ("x1" of "x16") something else.
    if (isCut && pending.header === null) this.pending = null;
    else if (!isCut) pending.text += ` ${line}`;
    return true;
  }

  /** Hands the pending line on. */
  private flush(): void {
    const { pending } = this;
    if (pending === null) return;
    this.pending = null;
    if (pending.header !== null) {
      this.open(parseHeader(pending.text) ?? pending.header, pending.line);
      return;
    }
    const block = this.block;
    if (block === null || block.words === null) return;
    if (!block.words.line(pending.text, pending.line)) this.ignoredLines++;
    block.hasLastLine ||= /^Kernel (?:driver|modules)/.test(pending.text);
  }

  private open(header: HeaderLine, line: number): void {
    const place = { source: this.source, line };
    const draft = this.machine.open(header.parts, place);
    const words = draft === null ? null : new WordsBlock(this.machine, draft, header, place);
    this.list(header, draft);
    this.kinds.add("lspci");
    this.block = {
      draft,
      words,
      header,
      place,
      config: new Uint8Array(0),
      configLength: 0,
      isDamaged: false,
      hasBlankAfter: false,
      hasLastLine: false,
      depth: null,
    };
  }

  /** Whether a listing is whole: it begins at the first function of a bus 00 and only ascends. */
  private list(header: HeaderLine, draft: FunctionDraft | null): void {
    const { parts } = header;
    if (this.last === null || compareAddresses(this.last.parts, parts) >= 0) {
      this.isWholeSoFar = parts.bus === 0 && parts.device === 0 && parts.function === 0;
    }
    this.last = header;
    if (draft !== null && this.isWholeSoFar) draft.isInWholeListing = true;
  }

  private hexLine(offsetText: string, text: string, number: number): boolean {
    const block = this.block;
    if (block === null) return false;
    const offset = Number.parseInt(offsetText, 16);
    const count = text.length / 3;
    if (offset !== block.configLength || offset + count > CONFIG_BYTES_MAX) {
      this.machine.notice(
        "BAD_CONFIG",
        { source: this.source, line: number },
        `${block.draft?.address}: hex goes on at ${offsetText}, not where it ended`,
      );
      this.ignoredLines++;
      // What is lost before these bytes may have been words.
      block.isDamaged = true;
      return true;
    }
    this.kinds.add("lspci-hex");
    const config = grown(block.config, offset + count);
    for (let index = 0; index < count; index++) {
      config[offset + index] = Number.parseInt(text.slice(index * 3 + 1, index * 3 + 3), 16);
    }
    this.block = { ...block, config, configLength: offset + count };
    return true;
  }

  private close(): void {
    const block = this.block;
    if (block === null) return;
    this.block = null;
    block.words?.end(isWhole(block));
    if (block.draft !== null && block.configLength > 0) {
      const bytes = block.config.subarray(0, block.configLength);
      decodeConfig(this.machine, block.draft, bytes, block.place);
    }
  }

  /** A line of nothing known: what is open may be cut here, and a listing isn't whole any more. */
  private noise(): void {
    this.ignoredLines++;
    this.flush();
    this.close();
    this.last = null;
    this.isWholeSoFar = false;
  }
}

/** Whether the first word of `line` had room behind the line before: then nothing was wrapped. */
function fits(pending: Pending, line: string): boolean {
  const space = line.indexOf(" ");
  const word = space < 0 ? line.length : space;
  return pending.columns + 1 + word <= WRAP_COLUMNS_MIN;
}

/** Width of a line with its indentation, a tab of which fills up to the next eighth column. */
function columnsOf(line: string): number {
  let columns = 0;
  for (let at = 0; at < line.length; at++) {
    columns = line.charCodeAt(at) === 0x09 ? (columns | 7) + 1 : columns + 1;
  }
  return columns;
}

/** lspci ends each block with a blank line, and names the driver last. */
function isWhole(block: Block): boolean {
  return !block.isDamaged && (block.hasBlankAfter || block.hasLastLine);
}

/** Room for `length` bytes: doubled, up to what a function can have. */
function grown(config: Uint8Array, length: number): Uint8Array {
  if (config.length >= length) return config;
  const bigger = new Uint8Array(Math.min(CONFIG_BYTES_MAX, Math.max(256, config.length * 4)));
  bigger.set(config);
  return bigger;
}

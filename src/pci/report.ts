// SPDX-License-Identifier: MIT
// What reading the dumps came to: which source was taken for what, and what was odd where.

/** What a source, or a part of it, was recognised as. */
export type SourceKind =
  | "lspci"
  | "lspci-hex"
  | "lspci-tree"
  | "sysfs"
  | "boot-log"
  | "cpuinfo"
  | "lscpu"
  | "command-line";

export type NoticeCode =
  /** A line that looks like a dump and can't be read; prose is only counted. */
  | "UNREADABLE_LINE"
  /** The dump stops inside a block. */
  | "CUT_OFF"
  /** `<access denied>`, or 64 bytes of configuration space: capabilities are unknown. */
  | "NO_PRIVILEGE"
  /** Two sources, or two parts of one, tell a fact differently; it became unknown. */
  | "CONFLICT"
  /** A capability list that loops, leaves its space, or overlaps the header. */
  | "BAD_CONFIG"
  /** An archive member that was left out: too big, an odd name, a bad header. */
  | "BAD_ARCHIVE"
  /** More of something than this reader takes. */
  | "LIMIT";

export interface Notice {
  readonly code: NoticeCode;
  readonly source: string;
  /** 1-based; null where the source has no lines. */
  readonly line: number | null;
  /** One sentence. */
  readonly message: string;
}

export interface ParseReport {
  readonly sources: readonly {
    readonly name: string;
    readonly kinds: readonly SourceKind[];
    /** Lines that told nothing: prose, prompts, capabilities that don't matter here. */
    readonly ignoredLines: number;
  }[];
  /** At most `NOTICES_MAX`, in order of sources and lines. */
  readonly notices: readonly Notice[];
  /** Notices beyond the bound. */
  readonly noticesDropped: number;
}

export const NOTICES_MAX = 1_000;

// SPDX-License-Identifier: MIT
// Progress on a terminal: one line on standard error, written over and over.

import { type CopyStatus, formatSize } from "../runtime/index.js";

const BAR_WIDTH = 24;
/** What takes less is over before anybody looks. */
const QUIET_MS = 1000;

/** A line that is written over and over. */
abstract class OverwrittenLine {
  private readonly isShown: boolean;
  private readonly startMs = performance.now();
  private hasLine = false;

  /** @param isOff show nothing. On what is no terminal nothing is shown either. */
  constructor(isOff: boolean) {
    this.isShown = !isOff && process.stderr.isTTY;
  }

  protected write(text: (elapsedSeconds: number) => string): void {
    const elapsedMs = performance.now() - this.startMs;
    if (!this.isShown || elapsedMs < QUIET_MS) return;
    const width = process.stderr.columns ?? 80;
    process.stderr.write(`\r\x1b[K${text(elapsedMs / 1000).slice(0, width - 1)}`);
    this.hasLine = true;
  }

  /** Takes the line away, for other text or the end. */
  clear(): void {
    if (this.hasLine) process.stderr.write("\r\x1b[K");
    this.hasLine = false;
  }
}

/** The progress of a copy. */
export class ProgressLine extends OverwrittenLine {
  show(status: CopyStatus): void {
    this.write((elapsedSeconds) => progressText(status, elapsedSeconds));
  }
}

/** The progress of a computation of which one knows how much of it is done. */
export class StatusLine extends OverwrittenLine {
  /** @param part 0 .. 1. @param text what is being done. */
  show(part: number, text: string): void {
    this.write((elapsedSeconds) => {
      const left = part > 0 ? `, ${Math.ceil((elapsedSeconds / part) * (1 - part))} s left` : "";
      return `[${barText(part)}] ${Math.floor(part * 100)} %  ${text}${left}`;
    });
  }
}

function barText(part: number): string {
  const filled = Math.floor(part * BAR_WIDTH);
  return `${"=".repeat(filled)}${filled < BAR_WIDTH ? ">" : ""}`.padEnd(BAR_WIDTH);
}

/** "[=====>   ] 52 %  1.2 of 2.3 GiB, 17 of 40 files, 310 MiB/s, 4 s left". */
export function progressText(status: CopyStatus, elapsedSeconds: number): string {
  const { bytes, bytesFound, files, filesFound, skippedBytes, isFoundAll } = status;
  // Files count a little, so that a tree of empty ones moves as well.
  const done = bytes + files * FILE_WEIGHT;
  const total = bytesFound + filesFound * FILE_WEIGHT;
  const part = total === 0 ? 0 : Math.min(1, done / total);
  const rate = (bytes - skippedBytes) / Math.max(elapsedSeconds, 0.001);
  // Before everything is found nobody knows how much is left.
  const more = isFoundAll ? "" : "+";
  const left =
    isFoundAll && part > 0 && part < 1
      ? `, ${Math.ceil((elapsedSeconds / part) * (1 - part))} s left`
      : "";
  return (
    `[${barText(part)}] ${Math.floor(part * 100)} %  ` +
    `${formatSize(bytes)} of ${formatSize(bytesFound)}${more}, ` +
    `${files} of ${filesFound}${more} files, ${formatSize(Math.round(rate))}/s${left}`
  );
}

const FILE_WEIGHT = 4096;

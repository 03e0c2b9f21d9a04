// SPDX-License-Identifier: MIT

import { COPY_PART_PREFIX, type CopyStat } from "../copy/index.js";

/** Under what name a file is made, until it is whole: the same at each attempt, in its folder. */
export function partName(name: string): string {
  let [a, b] = [0x811c9dc5, 0x2545f491];
  for (let i = 0; i < name.length; i++) {
    const byte = name.charCodeAt(i);
    a = Math.imul(a ^ byte, 0x01000193);
    b = Math.imul(b ^ byte ^ (b >>> 15), 0x85ebca6b);
  }
  const hex = (word: number) => (word >>> 0).toString(16).padStart(8, "0");
  return `${COPY_PART_PREFIX}${hex(a)}${hex(b)}`;
}

/** An open part, and what it is like. */
export interface OwnPart {
  readonly descriptor: number;
  readonly stat: CopyStat;
}

/**
 * Whether what lies under a part's name was made by us. In a folder that others can write to it may
 * be another name of a file that is somebody's, or a file whose maker has it open still, to change
 * it when it has been checked.
 */
export function isOwnPart({ kind, uid, linkCount }: CopyStat): boolean {
  return kind === "file" && linkCount === 1 && uid === process.geteuid?.();
}

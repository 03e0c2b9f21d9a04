// SPDX-License-Identifier: MIT

import { COPY_PART_PREFIX } from "../copy/index.js";

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

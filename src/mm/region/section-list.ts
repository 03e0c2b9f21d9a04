// SPDX-License-Identifier: MIT

import { assert } from "../../base/index.js";

/** The sections that a page table leads to, by number: an entry has a number of 16 bits. */
export class SectionList {
  readonly bytes: Uint8Array[] = [];
  readonly views: DataView[] = [];

  get count(): number {
    return this.bytes.length;
  }

  /** The section's number; a new one's is the next. @param view of the same bytes. */
  numberOf(bytes: Uint8Array, view: DataView): number {
    const known = this.bytes.indexOf(bytes);
    if (known >= 0) return known;
    assert(this.bytes.length < 0x1_0000, "sections are numbered in 16 bits");
    this.bytes.push(bytes);
    this.views.push(view);
    return this.bytes.length - 1;
  }
}

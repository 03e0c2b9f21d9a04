// SPDX-License-Identifier: MIT
// A virtual memory area: a range of one process's addresses that is mapped in one way.

import type { AddressSpace } from "./address-space.js";
import type { AnonGroup } from "./anon-group.js";
import { MAPPING_PAGES_MAX } from "./constants.js";
import type { DeviceMapping } from "./device-mapping.js";
import type { MappedFile } from "./mapped-file.js";

/** Fields of a new area. */
export interface VmaOptions {
  readonly startPage: number;
  readonly pageCount: number;
  readonly prot: number;
  readonly isShared: boolean;
  readonly mayWrite: boolean;
  readonly index: number;
  readonly file: MappedFile | null;
  readonly device: DeviceMapping | null;
  readonly group: AnonGroup | null;
}

export class Vma {
  readonly space: AddressSpace;
  startPage: number;
  pageCount: number;
  /** Bits of PROT. */
  prot: number;
  readonly isShared: boolean;
  /** Whether writing could ever be allowed: not for a shared mapping of a file open for reading. */
  readonly mayWrite: boolean;
  /**
   * What the first page is called: its number in the file or device; of anonymous memory its page
   * number when it was mapped first, which moving it doesn't change. Ascends by one a page.
   */
  index: number;
  readonly file: MappedFile | null;
  readonly device: DeviceMapping | null;
  /** Who owns the private pages; null before there is one. */
  group: AnonGroup | null;

  constructor(space: AddressSpace, options: VmaOptions) {
    this.space = space;
    this.startPage = options.startPage;
    this.pageCount = options.pageCount;
    this.prot = options.prot;
    this.isShared = options.isShared;
    this.mayWrite = options.mayWrite;
    this.index = options.index;
    this.file = options.file;
    this.device = options.device;
    this.group = options.group;
  }

  /** First page after the area. */
  get endPage(): number {
    return this.startPage + this.pageCount;
  }

  get address(): number {
    return this.startPage * 4096;
  }

  get length(): number {
    return this.pageCount * 4096;
  }

  /** Of a device: whether the CPU's caches are bypassed. */
  get isUncached(): boolean {
    return this.device !== null && !this.device.cached;
  }

  /** Whether pages that are written become the process's own. */
  get isPrivate(): boolean {
    return !this.isShared;
  }

  /** What the page is called in the file, device or group. */
  indexOf(page: number): number {
    return this.index + (page - this.startPage);
  }

  /** Whether `next`, which begins where this ends, could be one area with it. */
  continuesIn(next: Vma): boolean {
    return (
      this.endPage === next.startPage &&
      this.pageCount + next.pageCount <= MAPPING_PAGES_MAX &&
      this.index + this.pageCount === next.index &&
      this.prot === next.prot &&
      this.isShared === next.isShared &&
      this.mayWrite === next.mayWrite &&
      this.file === next.file &&
      this.device === next.device &&
      (this.group === next.group || this.group === null || next.group === null)
    );
  }
}

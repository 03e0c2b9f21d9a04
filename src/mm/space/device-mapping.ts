// SPDX-License-Identifier: MIT

import type { Pfn } from "../frames/index.js";

/** What a device file shows to whoever maps it. Mapped shared alone: its pages are never copied. */
export interface DeviceMapping {
  /** For people. */
  readonly name: string;
  /** Whether the CPU's caches may hold its bytes; not those of a PCI BAR. */
  readonly cached: boolean;
  /**
   * The frame behind a page of the device file; NO_FRAME where there is none. The mapping takes a
   * reference of its own on it.
   */
  frameAt(index: number): Pfn;
}

// SPDX-License-Identifier: MIT
// Making a mapping: what is allowed, where it goes.

import { FarpageError } from "../../base/index.js";
import type { AddressSpace } from "./address-space.js";
import {
  ACCESS,
  ADDRESS_END,
  ADDRESS_MIN,
  FAULT,
  LEAF_PAGES,
  MAPPING_COUNT_MAX,
  MAPPING_PAGES_MAX,
  PAGE_BYTES,
  PROT,
} from "./constants.js";
import type { DeviceMapping } from "./device-mapping.js";
import type { MappedFile } from "./mapped-file.js";
import { Vma } from "./vma.js";
import { NO_PLACE } from "./vma-list.js";

export interface MapOptions {
  /** Bytes; whole pages are mapped. */
  readonly length: number;
  /** Bits of PROT. */
  readonly prot: number;
  /** Writes are seen by all who map it; else they are the process's own. Default: private. */
  readonly shared?: boolean;
  /** Where it should be; taken as a hint unless `fixed`. */
  readonly address?: number;
  /** Just there: instead of what is there (MAP_FIXED), or not at all (MAP_FIXED_NOREPLACE). */
  readonly fixed?: "replace" | "no-replace";
  /** A file's pages, from byte `offset` on. `writable`: how the process has opened it. */
  readonly file?: {
    readonly file: MappedFile;
    readonly offset: number;
    readonly writable?: boolean;
  };
  /** A device's pages, from byte `offset` on. Shared alone. */
  readonly device?: { readonly device: DeviceMapping; readonly offset: number };
  /** Bring the pages in now (MAP_POPULATE); those that can't be had come when they are used. */
  readonly populate?: boolean;
}

/** @returns the address. */
export function mapArea(space: AddressSpace, options: MapOptions): number {
  const pageCount = checkOptions(options);
  checkLimits(space, pageCount);
  const startPage = choosePlace(space, options, pageCount);
  const endPage = startPage + pageCount;
  if (options.fixed === "replace" && !space.vmas.isFree(startPage, endPage)) {
    space.splitAround(startPage, endPage);
    space.unmapPages(startPage, endPage);
  }
  space.vmas.insert(makeArea(space, options, startPage, pageCount));
  space.vmas.mergeIn(startPage, endPage);
  if (options.populate === true) populate(space, startPage, endPage, options.prot);
  return startPage * PAGE_BYTES;
}

function makeArea(
  space: AddressSpace,
  options: MapOptions,
  startPage: number,
  pageCount: number,
): Vma {
  const isShared = options.shared === true;
  const bytes = pageCount * PAGE_BYTES;
  const backing = options.file ?? options.device ?? null;
  let file = options.file?.file ?? null;
  let index = backing === null ? startPage : backing.offset / PAGE_BYTES;
  let opened: MappedFile | null = null;
  if (isShared && backing === null) {
    // As Linux: shared anonymous memory is a file that has no name and no store.
    opened = space.manager.openFile({ name: `shared memory of ${space.name}`, size: bytes });
    file = opened;
    index = 0;
  }
  const area = new Vma(space, {
    startPage,
    pageCount,
    prot: options.prot,
    isShared,
    mayWrite: !isShared || options.file?.writable !== false,
    index,
    file,
    device: options.device?.device ?? null,
    group: null,
  });
  if (opened !== null) {
    // Its mappings keep it from now on.
    opened.areas.add(area);
    opened.close();
  }
  return area;
}

/** @returns pages. @throws FarpageError EINVAL, EACCES, ENOMEM. */
function checkOptions(options: MapOptions): number {
  const { length, prot, address, fixed, file, device } = options;
  if (!Number.isSafeInteger(length) || length <= 0) {
    throw new FarpageError("EINVAL", "a mapping must have bytes");
  }
  if ((prot & ~(PROT.READ | PROT.WRITE)) !== 0) throw new FarpageError("EINVAL", "unknown rights");
  if (fixed !== undefined && (address === undefined || address % PAGE_BYTES !== 0)) {
    throw new FarpageError("EINVAL", "a fixed mapping needs an address, a multiple of 4096");
  }
  if (file !== undefined && device !== undefined) {
    throw new FarpageError("EINVAL", "a mapping is of a file or of a device");
  }
  if (file?.file.isClosed === true) {
    throw new FarpageError("EBADF", `${file.file.name} is closed`);
  }
  const offset = file?.offset ?? device?.offset ?? 0;
  if (!Number.isSafeInteger(offset) || offset < 0 || offset % PAGE_BYTES !== 0) {
    throw new FarpageError("EINVAL", "an offset must be a multiple of 4096");
  }
  if (device !== undefined && options.shared !== true) {
    throw new FarpageError("EINVAL", `${device.device.name} can be mapped shared alone`);
  }
  const isWritable = options.shared === true && (prot & PROT.WRITE) !== 0;
  if (isWritable && file?.writable === false) {
    throw new FarpageError("EACCES", `${file.file.name} was not opened for writing`);
  }
  const pageCount = Math.ceil(length / PAGE_BYTES);
  if (pageCount > MAPPING_PAGES_MAX || offset / PAGE_BYTES + pageCount > 2 ** 31) {
    throw new FarpageError("ENOMEM", "a mapping has less than 8 TiB");
  }
  return pageCount;
}

function checkLimits(space: AddressSpace, pageCount: number): void {
  if (space.vmas.count + 3 > MAPPING_COUNT_MAX) {
    throw new FarpageError("ENOMEM", `${space.name} has ${space.vmas.count} mappings, no more`);
  }
  const bytes = (space.vmas.pageCount + pageCount) * PAGE_BYTES;
  if (bytes > space.limits.addressBytesMax) {
    const limit = space.limits.addressBytesMax;
    throw new FarpageError("ENOMEM", `${space.name} may map ${limit} bytes, and wants ${bytes}`);
  }
}

/** @returns the first page. @throws FarpageError EEXIST, ENOMEM, EINVAL. */
function choosePlace(space: AddressSpace, options: MapOptions, pageCount: number): number {
  const { address, fixed } = options;
  const bytes = pageCount * PAGE_BYTES;
  if (address !== undefined) {
    const startPage = Math.floor(address / PAGE_BYTES);
    const start = startPage * PAGE_BYTES;
    const isRange = start >= ADDRESS_MIN && start + bytes <= ADDRESS_END;
    const isFree = isRange && space.vmas.isFree(startPage, startPage + pageCount);
    if (isFree) return startPage;
    if (fixed !== undefined && !isRange) {
      throw new FarpageError("ENOMEM", "a mapping must lie in the address space");
    }
    if (fixed === "no-replace") throw new FarpageError("EEXIST", "something is mapped there");
    if (fixed === "replace") return startPage;
  }
  const alignPages = pageCount >= LEAF_PAGES ? LEAF_PAGES : 1;
  const place = space.vmas.findPlace(pageCount, space.guardPages, alignPages);
  if (place === NO_PLACE) throw new FarpageError("ENOMEM", `no ${bytes} addresses are free`);
  return place;
}

function populate(space: AddressSpace, startPage: number, endPage: number, prot: number): void {
  const access = (prot & PROT.WRITE) !== 0 ? ACCESS.WRITE : ACCESS.READ;
  for (let page = startPage; page < endPage; page++) {
    if (space.fault(page, access) !== FAULT.READY) return;
  }
}

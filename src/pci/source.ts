// SPDX-License-Identifier: MIT
// What `readTopology` takes: bytes of files and folders that somebody else has read.

/** A file: text that people paste, a tar archive, or (with `gunzip`) either of them compressed. */
export interface FileSource {
  readonly name: string;
  /** Borrowed for the call. */
  readonly bytes: Uint8Array;
}

export type FolderEntry =
  | { readonly kind: "file"; readonly bytes: Uint8Array }
  | { readonly kind: "link"; readonly target: string }
  | { readonly kind: "folder" };

/**
 * A sysfs tree, or a folder of dumps. Keys are paths relative to it with `/` between and no leading
 * one. Of sysfs: `bus/pci/devices/X` (links), `devices/pci…/X/{config,resource,vendor,…}`,
 * `kernel/iommu_groups/N/type`; a prefix before `bus/` and `devices/` does no harm. Whole folders
 * `bus/pci/devices/X/` with the files inside are understood as well.
 */
export interface FolderSource {
  readonly name: string;
  readonly entries: ReadonlyMap<string, FolderEntry>;
  /**
   * A live sysfs of which all was read that counts here: a link or folder that isn't here isn't
   * there either. Of an archive nobody knows what was packed. Default: false.
   */
  readonly isWhole?: boolean;
}

export type Source = FileSource | FolderSource;

export interface ReadOptions {
  /**
   * Unpacks gzip, refusing more than `bytesMax` bytes. Without it a compressed source is an error:
   * this room does no I/O and has no Node.
   */
  readonly gunzip?: (bytes: Uint8Array, bytesMax: number) => Uint8Array;
}

/** Codes of the `FarpageError` that `readTopology` throws. */
export type ReadErrorCode =
  /** No source is anything known. */
  | "PCI_NOT_A_DUMP"
  /** A source is compressed and can't be unpacked here. */
  | "PCI_COMPRESSED"
  /** More bytes than `SOURCE_BYTES_MAX`. */
  | "PCI_TOO_BIG";

/** Of all sources together, unpacked. */
export const SOURCE_BYTES_MAX = 256 << 20;

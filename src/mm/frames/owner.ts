// SPDX-License-Identifier: MIT
// Who uses a frame, and how it is asked to let the frame move.

import { assert } from "../../base/index.js";
import type { Pfn } from "./constants.js";

/**
 * Whoever uses frames and can say where from: an anonymous group, a file, a slab cache, a device.
 * Registered once per owning object; a frame's record holds the owner's id and what the owner calls
 * the frame (`index`).
 */
export interface FrameOwner {
  /** For people: `"file /a/b"`, `"anonymous memory of process 7"`. */
  readonly name: string;
  /**
   * References that the owner accounts for on this frame (mappings and caches). With more than
   * these somebody else holds the frame, and it can't move.
   */
  referencesOf(pfn: Pfn, index: number): number;
  /**
   * Takes every use away for a move: page table entries out, notifiers told; nobody can reach the
   * bytes when this returns true. References stay as they are. @returns false: busy now, and
   * nothing has changed.
   */
  detach(pfn: Pfn, index: number): boolean;
  /**
   * The uses go to `to`, whose contents, flags, references, owner and index are those of `from`;
   * `to` equals `from` when the move was given up. Called after every `detach` that returned true.
   */
  attach(from: Pfn, to: Pfn, index: number): void;
  /**
   * Where the owner can do better than to have the block moved: brings its contents elsewhere and
   * frees it. @returns whether it did; else nothing has changed.
   */
  vacate?(pfn: Pfn, index: number): boolean;
  /** The last pin of a block is gone; whoever had it may hold a reference for a moment yet. */
  unpinned?(pfn: Pfn, index: number): void;
}

/** The owners of a host by id. */
export class OwnerTable {
  /** Id 0 is nobody. */
  private readonly owners: (FrameOwner | null)[] = [null];
  private readonly freeIds: number[] = [];

  register(owner: FrameOwner): number {
    const id = this.freeIds.pop() ?? this.owners.length;
    this.owners[id] = owner;
    return id;
  }

  /** Preconditions: it owns no frame any more. */
  unregister(id: number): void {
    assert(id > 0, "nobody can't be unregistered");
    assert((this.owners[id] ?? null) !== null, "an owner is unregistered once");
    this.owners[id] = null;
    this.freeIds.push(id);
  }

  get(id: number): FrameOwner | null {
    return this.owners[id] ?? null;
  }
}

// SPDX-License-Identifier: MIT
// Handles and the rules of their lives, the same for every kind of object (IBTA vol1 §11.2; the
// uverbs model of Linux). A handle lives in the table of exactly one context. The table is closed
// under dependency: an object's parents are in it as long as the object is, so that a parent with
// children can't be closed (EBUSY) and closing everything, newest first, always succeeds.

import { assert, FarpageError } from "../base/index.js";

/** What `Context` counts and closes. */
export abstract class VerbsObject implements Disposable {
  /** Number of the handle in its context, from 1, never used again. */
  readonly handle: number;
  /** "queue pair" and the like, for messages. */
  readonly kind: string;
  private readonly table: HandleTable;
  private readonly parents: readonly VerbsObject[];
  private childCount = 0;
  private isLive = true;

  /** Internal: objects are made by their parents' methods, which check what they are given. */
  protected constructor(table: HandleTable, kind: string, parents: readonly VerbsObject[]) {
    this.table = table;
    this.kind = kind;
    this.parents = parents;
    for (const parent of parents) parent.childCount++;
    this.handle = table.add(this);
  }

  /** False once it has been destroyed, by itself or with its context. */
  get isOpen(): boolean {
    return this.isLive;
  }

  /** Objects in the same context that need this one. */
  get dependentCount(): number {
    return this.childCount;
  }

  /** Internal: refuses to work on what is gone. @throws FarpageError EBADF. */
  assertOpen(): void {
    if (!this.isLive) throw new FarpageError("EBADF", `${this.name()} was closed`);
  }

  /** Internal: whether `other` is one of the objects that this one needs. */
  isChildOf(other: VerbsObject): boolean {
    return this.parents.includes(other);
  }

  /** Internal: whether both are of one context. */
  isOfSameContext(other: VerbsObject): boolean {
    return this.table === other.table;
  }

  /** "queue pair 7", for messages. */
  name(): string {
    return `${this.kind} ${this.handle}`;
  }

  /**
   * Internal: closes the handle and gives the hardware object back; nothing happens when it is
   * closed already.
   * @throws FarpageError EBUSY while another object needs it.
   */
  closeHandle(): void {
    if (!this.isLive) return;
    if (this.childCount > 0) {
      const users = this.table.namesOfChildren(this);
      throw new FarpageError("EBUSY", `${this.name()} is in use by ${users}; close that first`);
    }
    this.isLive = false;
    this.release();
    this.table.remove(this);
    for (const parent of this.parents) {
      assert(parent.childCount > 0, "a parent has counted its child");
      parent.childCount--;
    }
  }

  [Symbol.dispose](): void {
    this.closeHandle();
  }

  /** Gives back what the handle stands for; called once. */
  protected abstract release(): void;
}

/** Children that an EBUSY names before it says "and N more". */
const NAMED_CHILDREN_MAX = 3;

/** The handles of one context. */
export class HandleTable {
  private readonly objects = new Map<number, VerbsObject>();
  private readonly countMax: number;
  private nextHandle = 1;

  constructor(countMax: number) {
    this.countMax = countMax;
  }

  get count(): number {
    return this.objects.size;
  }

  /**
   * @throws FarpageError ENOMEM when a further handle would not fit. Call before making anything.
   */
  assertRoom(): void {
    if (this.objects.size < this.countMax) return;
    throw new FarpageError(
      "ENOMEM",
      `this context holds all the ${this.countMax} objects it may; ` +
        "close some or raise handleCountMax",
    );
  }

  add(object: VerbsObject): number {
    const handle = this.nextHandle++;
    this.objects.set(handle, object);
    return handle;
  }

  remove(object: VerbsObject): void {
    const existed = this.objects.delete(object.handle);
    assert(existed, "a handle is closed once");
  }

  namesOfChildren(parent: VerbsObject): string {
    const names: string[] = [];
    for (const object of this.objects.values())
      if (object.isChildOf(parent)) names.push(object.name());
    const named = names.slice(0, NAMED_CHILDREN_MAX).join(", ");
    const more = names.length - NAMED_CHILDREN_MAX;
    return more > 0 ? `${named} and ${more} more` : named;
  }

  /**
   * Closes everything. Children are always younger than their parents, so newest first is
   * bottom-up.
   */
  closeAll(): void {
    for (const object of [...this.objects.values()].reverse()) object.closeHandle();
    assert(this.objects.size === 0, "a closed context holds nothing");
  }

  checkInvariants(): void {
    const counts = new Map<VerbsObject, number>();
    for (const [handle, object] of this.objects) {
      assert(object.handle === handle && object.isOpen, "a handle in the table is open");
      for (const parent of this.objects.values()) {
        if (object.isChildOf(parent)) counts.set(parent, (counts.get(parent) ?? 0) + 1);
      }
    }
    for (const object of this.objects.values()) {
      // One child may hold its parent twice: a queue pair one completion queue for both directions.
      assert((counts.get(object) ?? 0) > 0 === object.dependentCount > 0, "children are counted");
    }
  }
}

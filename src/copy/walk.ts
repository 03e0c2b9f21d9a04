// SPDX-License-Identifier: MIT
// Finds what there is to copy, depth first, one item at a call, with memory for what lies on the
// way down and for the directories, whose attributes come last.

import { ERRNO } from "../base/index.js";
import { COPY_PART_PREFIX, COPY_PATH_BYTES_MAX, joinCopyPath, nameOf } from "./path.js";
import { CopyStat, type CopyTree } from "./tree.js";

/** One of the things that a source was told to copy. */
export interface CopyOperand {
  readonly tree: CopyTree;
  /** In the tree. */
  readonly path: string;
  /** What it is called at the sink, below the run's root; "" for the contents of a directory. */
  readonly name: string;
}

/** A file, directory or link that was found. */
export interface CopyItem {
  readonly tree: CopyTree;
  readonly path: string;
  readonly target: string;
  readonly stat: CopyStat;
  /** It can't be at the sink yet, since its folder was not. */
  isFresh: boolean;
  /** Times that it changed while it was read. */
  attempts: number;
}

interface Level {
  readonly item: CopyItem;
  readonly names: readonly string[];
  next: number;
}

/** What a walk tells while it goes on. */
export interface WalkOwner {
  onProblem(path: string, errno: number): void;
  /** Whether everything below an operand is new at the sink. */
  isFresh(operand: CopyOperand): boolean;
}

export class Walk {
  /** Directories in the order of finding: parents before children. */
  readonly directories: { tree: CopyTree; path: string; target: string }[] = [];
  fileCount = 0;
  byteCount = 0;
  private readonly operands: readonly CopyOperand[];
  private readonly owner: WalkOwner;
  private readonly levels: Level[] = [];
  private nextOperand = 0;
  private operandIsFresh = false;

  constructor(operands: readonly CopyOperand[], owner: WalkOwner) {
    this.operands = operands;
    this.owner = owner;
  }

  get isDone(): boolean {
    return this.levels.length === 0 && this.nextOperand >= this.operands.length;
  }

  /** @returns the next item; null at the end. */
  next(): CopyItem | null {
    for (;;) {
      const level = this.levels.at(-1);
      if (level === undefined) {
        if (this.nextOperand >= this.operands.length) return null;
        const operand = this.operands[this.nextOperand++] as CopyOperand;
        this.operandIsFresh = this.owner.isFresh(operand);
        const item = this.look(operand.tree, operand.path, operand.name);
        if (item !== null) return item;
        continue;
      }
      const name = level.names[level.next++];
      if (name === undefined) {
        this.levels.pop();
        continue;
      }
      const { tree, path, target } = level.item;
      const item = this.look(tree, joinCopyPath(path, name), joinCopyPath(target, name));
      if (item !== null) return item;
    }
  }

  private look(tree: CopyTree, path: string, target: string): CopyItem | null {
    // What an interrupted copy left is not a file of anybody's.
    if (nameOf(path).startsWith(COPY_PART_PREFIX)) return null;
    if (target.length > COPY_PATH_BYTES_MAX) {
      this.owner.onProblem(path, ERRNO.ENAMETOOLONG);
      return null;
    }
    const stat = new CopyStat();
    const result = tree.stat(path, stat);
    if (result < 0) {
      this.owner.onProblem(path, -result);
      return null;
    }
    const item = { tree, path, target, stat, isFresh: this.operandIsFresh, attempts: 0 };
    if (stat.kind === "other") {
      this.owner.onProblem(path, ERRNO.EOPNOTSUPP);
      return null;
    }
    if (stat.kind === "directory") this.descend(item);
    else this.fileCount++;
    if (stat.kind === "file") this.byteCount += stat.size;
    return item;
  }

  private descend(item: CopyItem): void {
    const { tree, path, target } = item;
    this.directories.push({ tree, path, target });
    const names = tree.list(path);
    if (typeof names === "number") this.owner.onProblem(path, -names);
    else this.levels.push({ item, names, next: 0 });
  }
}

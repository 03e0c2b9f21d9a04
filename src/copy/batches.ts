// SPDX-License-Identifier: MIT
// The small things of a source: directories, links, small files and the question what the sink has,
// packed into batches, and what came of each.

import { ERRNO } from "../base/index.js";
import type { ClientRequest } from "../rtrs/index.js";
import { ADDED, type BatchWriter, NO_ROOM } from "./batch-writer.js";
import type { BigFiles } from "./big-files.js";
import { COPY_TYPE } from "./messages.js";
import { COPY_ACTION, COPY_RESULT, type CopyAction, RESULT_BYTES } from "./records.js";
import type { BatchEntry, SourceLink, SourceOwner, SourceTask } from "./source-link.js";
import { CopyStat } from "./tree.js";
import type { CopyItem, CopyOperand, Walk } from "./walk.js";

export class Batches {
  private readonly link: SourceLink;
  private readonly owner: SourceOwner;
  private readonly walk: Walk;
  private readonly big: BigFiles;
  /** Of operands that the sink did not have. */
  private readonly freshNames = new Set<string>();
  /** Items that the sink wants; the last is the next. */
  private readonly wanted: CopyItem[] = [];
  /** Further names of files, with the first. */
  private readonly links: { readonly item: CopyItem; readonly first: string }[] = [];
  private readonly firstNames = new Map<string, string>();
  private pushedBack: CopyItem | null = null;
  private nextProbe = 0;
  private nextLink = 0;
  /** Directories whose attributes are to be set, counted from the last. */
  private settledCount = 0;

  constructor(link: SourceLink, owner: SourceOwner, walk: Walk, big: BigFiles) {
    this.link = link;
    this.owner = owner;
    this.walk = walk;
    this.big = big;
  }

  want(item: CopyItem): void {
    this.wanted.push(item);
  }

  isFresh(operand: CopyOperand): boolean {
    return this.freshNames.has(operand.name);
  }

  /** Makes the directories that were named, to learn whether they are new. */
  probe(operands: readonly CopyOperand[], request: ClientRequest, writer: BatchWriter): boolean {
    const entries = this.begin(request, writer);
    const stat = new CopyStat();
    for (; this.nextProbe < operands.length; this.nextProbe++) {
      const { tree, path, name } = operands[this.nextProbe] as CopyOperand;
      if (name === "" || tree.stat(path, stat) < 0 || stat.kind !== "directory") continue;
      if (writer.addName(COPY_ACTION.DIRECTORY, name) === NO_ROOM) break;
      entries.push({ action: COPY_ACTION.DIRECTORY, item: null, path: name });
    }
    return this.send(request, writer);
  }

  /** Packs what is wanted and what the walk finds. @returns false when there is nothing now. */
  pack(request: ClientRequest, writer: BatchWriter): boolean {
    const entries = this.begin(request, writer);
    while (!writer.isFull) {
      const item = this.nextItem();
      if (item === null) break;
      if (!this.add(item, writer, entries)) {
        this.pushedBack = item;
        break;
      }
    }
    const { progress } = this.owner;
    progress.filesFound = this.walk.fileCount;
    progress.bytesFound = this.walk.byteCount;
    progress.isFoundAll = this.walk.isDone;
    return this.send(request, writer);
  }

  /** Names that files have beside the first one. */
  sendLinks(request: ClientRequest, writer: BatchWriter): boolean {
    const entries = this.begin(request, writer);
    for (; this.nextLink < this.links.length && !writer.isFull; this.nextLink++) {
      const { item, first } = this.links[this.nextLink] as (typeof this.links)[number];
      const added = writer.addHardLink(item, first);
      if (!this.isAdded(added, item.path)) {
        if (added === NO_ROOM) break;
        continue;
      }
      entries.push({ action: COPY_ACTION.HARDLINK, item, path: item.target });
    }
    return this.send(request, writer);
  }

  /** Attributes of directories, deepest first: nothing changes in them any more. */
  settleDirectories(request: ClientRequest, writer: BatchWriter): boolean {
    const entries = this.begin(request, writer);
    const { directories } = this.walk;
    for (; this.settledCount < directories.length && !writer.isFull; this.settledCount++) {
      const directory = directories[directories.length - 1 - this.settledCount];
      // The folder that is copied to is not a part of the copy.
      if (directory === undefined || directory.target === "") continue;
      const added = writer.addDirectory(directory);
      if (!this.isAdded(added, directory.path)) {
        if (added === NO_ROOM) break;
        continue;
      }
      const action: CopyAction = COPY_ACTION.ATTRIBUTES;
      entries.push({ action, item: null, path: directory.target });
    }
    return this.send(request, writer);
  }

  /** The answer to a BATCH. */
  onBatch(request: ClientRequest, task: SourceTask): void {
    const { errno } = request;
    if (errno === ERRNO.EREMOTEIO) {
      const argument = task.entries.length;
      const read = argument * RESULT_BYTES;
      this.link.send(request, COPY_TYPE.ANSWER, { slot: request.number, argument, read });
      return;
    }
    const result = errno === 0 ? COPY_RESULT.DONE : COPY_RESULT.FAILED | errno;
    for (const entry of task.entries) this.settle(entry, result);
    this.link.release(request);
  }

  /** The answer to an ANSWER. */
  onResults(request: ClientRequest, task: SourceTask): void {
    const { view } = this.link.place;
    const { errno, memoryOffset } = request;
    // Backwards, since `wanted` is a stack: so they go in the order of the walk.
    for (let i = task.entries.length - 1; i >= 0; i--) {
      const told = view.getUint16(memoryOffset + i * RESULT_BYTES, true);
      const result = errno === 0 ? told : COPY_RESULT.FAILED | errno;
      this.settle(task.entries[i] as BatchEntry, result);
    }
    this.link.release(request);
  }

  private begin(request: ClientRequest, writer: BatchWriter): BatchEntry[] {
    writer.begin(request.memoryOffset);
    const { entries } = this.link.taskOf(request);
    entries.length = 0;
    return entries;
  }

  private send(request: ClientRequest, writer: BatchWriter): boolean {
    if (writer.count === 0) return false;
    const words = { slot: request.number, argument: writer.count, write: writer.byteLength };
    this.link.send(request, COPY_TYPE.BATCH, words);
    return true;
  }

  private nextItem(): CopyItem | null {
    const item = this.pushedBack ?? this.wanted.pop() ?? null;
    this.pushedBack = null;
    if (item !== null) return item;
    return this.big.isFull ? null : this.walk.next();
  }

  /** @returns false when the batch has no room for it. */
  private add(item: CopyItem, writer: BatchWriter, entries: BatchEntry[]): boolean {
    const { stat, target: path } = item;
    let action: CopyAction;
    let added: number;
    if (stat.kind === "directory") {
      action = COPY_ACTION.DIRECTORY;
      added = writer.addName(action, path);
    } else if (stat.kind === "symlink") {
      action = COPY_ACTION.SYMLINK;
      added = writer.addSymlink(item);
    } else if (this.isFurtherName(item)) {
      return true;
    } else if (!item.isFresh) {
      action = COPY_ACTION.CHECK;
      added = writer.addCheck(item);
    } else if (writer.isSmall(item)) {
      action = COPY_ACTION.FILE;
      added = writer.addFile(item);
    } else {
      this.big.add(item);
      return true;
    }
    if (added === NO_ROOM) return false;
    if (added !== ADDED) this.big.again(item, added, false);
    else entries.push({ action, item, path });
    return true;
  }

  private isAdded(added: number, path: string): boolean {
    if (added > 0) this.owner.problem({ path, errno: added, isRemote: false });
    return added === ADDED;
  }

  /** Another name of a file that goes under its first one. */
  private isFurtherName(item: CopyItem): boolean {
    const { stat, target } = item;
    if (stat.linkCount < 2) return false;
    const first = this.firstNames.get(stat.identity);
    if (first === undefined) this.firstNames.set(stat.identity, target);
    if (first === undefined || first === target) return false;
    this.links.push({ item, first });
    return true;
  }

  /** What became of one record. */
  private settle({ action, item, path }: BatchEntry, result: number): void {
    if ((result & COPY_RESULT.FAILED) !== 0) {
      this.owner.refused(path, result & ~COPY_RESULT.FAILED);
    } else if (item === null) {
      if (action === COPY_ACTION.DIRECTORY && result === COPY_RESULT.MADE) {
        this.freshNames.add(path);
      }
    } else if (action === COPY_ACTION.CHECK && result === COPY_RESULT.SEND) {
      item.isFresh = true;
      this.wanted.push(item);
    } else if (item.stat.kind !== "directory") {
      this.count(item, action);
    }
  }

  private count({ stat }: CopyItem, action: CopyAction): void {
    const { progress } = this.owner;
    const bytes = stat.kind === "file" ? stat.size : 0;
    progress.filesDone++;
    progress.bytesDone += bytes;
    // Of a second name nothing but the name is sent.
    if (action === COPY_ACTION.CHECK || action === COPY_ACTION.HARDLINK) {
      progress.bytesSkipped += bytes;
    }
    if (action === COPY_ACTION.CHECK) progress.filesSkipped++;
  }
}

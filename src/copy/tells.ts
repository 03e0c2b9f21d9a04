// SPDX-License-Identifier: MIT
// What a source tells a sink that has asked for the files: how much there is, and what could not be
// read. The sink's user sees nothing else of the source.

import type { ClientRequest } from "../rtrs/index.js";
import { COPY_TELL, COPY_TELL_BYTES, COPY_TYPE } from "./messages.js";
import { CopyRecord, writeRecord } from "./records.js";
import type { CopyProblem, SourceLink } from "./source-link.js";
import type { Walk } from "./walk.js";

/** Between two TELLs of how far the walk is. */
const PAUSE_NS = 500e6;

export class Tells {
  private readonly link: SourceLink;
  private readonly walk: Walk;
  private readonly problems: CopyProblem[] = [];
  private nextNs = 0;
  private hasToldAll = false;

  constructor(link: SourceLink, walk: Walk) {
    this.link = link;
    this.walk = walk;
  }

  add(problem: CopyProblem): void {
    this.problems.push(problem);
  }

  /** Tells something, if there is something to tell. @returns whether the request is used. */
  use(request: ClientRequest, nowNs: number): boolean {
    const problem = this.problems.shift();
    if (problem !== undefined) {
      this.sendProblem(request, problem);
      return true;
    }
    const isDone = this.walk.isDone;
    if (this.hasToldAll || (nowNs < this.nextNs && !isDone)) return false;
    this.nextNs = nowNs + PAUSE_NS;
    this.hasToldAll = isDone;
    this.link.writeNumbers(request, [this.walk.fileCount, this.walk.byteCount]);
    this.link.send(request, COPY_TYPE.TELL, {
      argument: COPY_TELL.FOUND,
      offset: isDone ? 1 : 0,
      write: COPY_TELL_BYTES,
    });
    return true;
  }

  private sendProblem(request: ClientRequest, { path, errno }: CopyProblem): void {
    const { bytes, view } = this.link.place;
    const record = new CopyRecord();
    record.path = path;
    record.size = errno;
    const end = writeRecord(record, bytes, view, request.memoryOffset);
    const write = end - request.memoryOffset;
    this.link.send(request, COPY_TYPE.TELL, { argument: COPY_TELL.PROBLEM, write });
  }
}

// SPDX-License-Identifier: MIT
// The paths of one client session: those that there are, and those that come and go.

import { assert, FarpageError } from "../../base/index.js";
import { joinsTheSame, RTRS_PATH_COUNT_MAX, type RtrsPathAddresses } from "../options.js";
import { ClientPath } from "./client-path.js";
import type { ClientPathContext, ClientPathOwner } from "./path-context.js";

/** How long the paths of a new session leave it to the first to make it, each as long again. */
const HEAD_START_NS = 250e6;

export class ClientPaths {
  /** In the order in which they were added; the picker and the requests look at it, too. */
  readonly list: ClientPath[] = [];
  private readonly context: ClientPathContext;
  private readonly owner: ClientPathOwner;
  private nextNumber = 0;

  constructor(context: ClientPathContext, owner: ClientPathOwner) {
    this.context = context;
    this.owner = owner;
  }

  /**
   * Makes a path; it is IDLE.
   * @throws FarpageError EEXIST when a path joins the two already, ENOSPC.
   */
  add(addresses: RtrsPathAddresses): ClientPath {
    const { source, destination } = addresses;
    if (this.list.some((path) => joinsTheSame(path, addresses))) {
      const what = `the session has a path from ${source} to ${destination} already`;
      throw new FarpageError("EEXIST", what);
    }
    if (this.list.length >= RTRS_PATH_COUNT_MAX) {
      throw new FarpageError("ENOSPC", `the session has ${RTRS_PATH_COUNT_MAX} paths already`);
    }
    const path = new ClientPath(this.context, this.owner, this.nextNumber++, addresses);
    this.list.push(path);
    return path;
  }

  /** @throws FarpageError ENOENT when there is none of that number. */
  find(number: number): ClientPath {
    const path = this.list.find((candidate) => candidate.number === number);
    if (path === undefined) throw new FarpageError("ENOENT", `there is no path ${number}`);
    return path;
  }

  /** Preconditions: the path is CLOSED. */
  drop(path: ClientPath): void {
    assert(path.state === "CLOSED", "a path is dropped when nothing is left of it");
    this.list.splice(this.list.indexOf(path), 1);
  }

  get connectedCount(): number {
    let count = 0;
    for (const path of this.list) if (path.state === "CONNECTED") count++;
    return count;
  }

  get isAllClosed(): boolean {
    return this.list.every((path) => path.state === "CLOSED");
  }

  connect(): void {
    for (const [index, path] of this.list.entries()) path.connect(index * HEAD_START_NS);
  }

  close(): void {
    for (const path of this.list) path.close();
  }

  /** Those that wait for the time of another attempt make it now. */
  hurry(): void {
    for (const path of this.list) path.hurry();
  }

  /** Ahead of all events of a turn: what comes of them is dated by it. */
  setNow(nowNs: number): void {
    for (let i = 0; i < this.list.length; i++) (this.list[i] as ClientPath).nowNs = nowNs;
  }

  pump(nowNs: number): void {
    // Backwards, since a path that closes may leave the list.
    for (let i = this.list.length - 1; i >= 0; i--) (this.list[i] as ClientPath).pump(nowNs);
  }

  deadlineNs(): number {
    let deadlineNs = Infinity;
    for (let i = 0; i < this.list.length; i++) {
      deadlineNs = Math.min(deadlineNs, (this.list[i] as ClientPath).deadlineNs());
    }
    return deadlineNs;
  }
}

// SPDX-License-Identifier: MIT
// The permits of a session, and what lost paths may still do with their chunks.
//
// A Linux server has one set of chunks for all paths of a session, and a path that is lost gets at
// them for seconds more: by packets that come late, and when its queue pair is flushed. The server
// then goes on with every request whose key it had not yet invalidated, as if that had worked, and
// takes for the request what is in the chunk by then (`rtrs_srv_inv_rkey_done` in rtrs-srv.c, 6.1).
// Two precautions, until the path is connected again, which a server allows only when nothing is
// left of its former incarnation: the permit of such a request is handed out after all others, so
// that no other request is in that chunk; and once it was answered by another path, its header in
// the chunk is wiped, so that it is no request any more.

import type { Connection } from "../connection.js";
import { Doubts, type PermitMarks } from "./doubts.js";
import { PermitPool } from "./permit-pool.js";

/** What a path keeps for `ClientPermits`, by permit; null before it is lost for the first time. */
export interface PathMarks {
  /** Permits in doubt (doubts.ts). */
  doubted: PermitMarks | null;
  /** Permits whose chunks its lost incarnation may still take for a request. */
  held: PermitMarks | null;
}

export class ClientPermits {
  readonly count: number;
  private readonly pool: PermitPool;
  private readonly doubts: Doubts;
  private readonly held: Doubts;
  /** The connection by which a held permit's header is wiped: the next request must follow it. */
  private readonly wipers: (Connection | null)[];

  /** @param count of the session: its chunks that are used. */
  constructor(count: number) {
    this.count = count;
    this.pool = new PermitPool(count);
    this.doubts = new Doubts(count);
    this.held = new Doubts(count);
    this.wipers = new Array<Connection | null>(count).fill(null);
  }

  get freeCount(): number {
    return this.pool.freeCount;
  }

  /** Permits in doubt. */
  get doubtedCount(): number {
    return this.doubts.count;
  }

  /**
   * The permit for the next request, not taken yet. Preconditions: one is free.
   * @param isUrgent those in doubt come first: after a reconnect, so that they are settled.
   */
  choose(isUrgent: boolean): number {
    const doubted = isUrgent && this.doubts.count > 0 ? this.doubts.findFree(this.pool) : -1;
    if (doubted >= 0) return doubted;
    const clean = this.held.count > 0 ? this.held.findClean(this.pool) : -1;
    return clean >= 0 ? clean : this.pool.lowest();
  }

  /** The one connection by which a permit may be used now; null: any. */
  connectionFor(permit: number): Connection | null {
    return this.held.count > 0 ? (this.wipers[permit] as Connection | null) : null;
  }

  /** Preconditions: `permit` is free. */
  take(permit: number): void {
    this.pool.takeThis(permit);
  }

  give(permit: number): void {
    this.pool.give(permit);
  }

  /** A path is lost with a request in flight. */
  onLost(path: { readonly marks: PathMarks }, permit: number): void {
    const { marks } = path;
    marks.doubted ??= new Uint8Array(this.count);
    this.doubts.mark(marks.doubted, permit);
    marks.held ??= new Uint8Array(this.count);
    this.held.mark(marks.held, permit);
  }

  /** A path is lost: nothing follows what went by its connections. */
  onPathLost(path: unknown): void {
    if (this.held.count === 0) return;
    for (let permit = 0; permit < this.count; permit++) {
      if (this.wipers[permit]?.owner === path) this.wipers[permit] = null;
    }
  }

  /** A path is connected again: the server has nothing left of its former incarnation. */
  onConnected({ marks }: { readonly marks: PathMarks }): void {
    if (marks.doubted !== null) this.doubts.settlePath(marks.doubted);
    if (marks.held !== null) this.held.settlePath(marks.held);
    if (this.held.count === 0) this.wipers.fill(null);
  }

  /** A request was answered. @param all marks of every path that there is. */
  onAnswered(permit: number, all: readonly { readonly marks: PathMarks }[]): void {
    if (this.doubts.count === 0) return;
    this.doubts.settlePermit(
      permit,
      all.map(({ marks }) => marks.doubted),
    );
  }

  /** Whether a lost path may still take the chunk for a request. */
  isHeld(permit: number): boolean {
    return this.held.count > 0 && this.held.has(permit);
  }

  /** The header in a held permit's chunk is being wiped. */
  onWipe(permit: number, connection: Connection): void {
    this.wipers[permit] = connection;
  }
}

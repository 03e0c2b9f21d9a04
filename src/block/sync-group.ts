// SPDX-License-Identifier: MIT
// One fdatasync(2) for everybody who waits for one: FLUSH requests, and changes with FUA that are
// written and not yet durable.
//
// What a sync covers is what was written before it *started*. So a request is answered by the first
// sync that starts after it joined, never by the one that is running: one runs, the rest gather for
// the next.
//
// A failed sync is not retried. The kernel reports a write-back error once and may have dropped the
// pages, so a second sync that succeeds says nothing about them (errseq_t; "fsyncgate", 2018). Data
// that some client believes in is gone, and the device can't tell whose: from then on every FLUSH
// fails with that errno, whoever asks, until the file is opened anew. A change with FUA still gets
// an honest answer about itself: it was written after the error, and its own sync covers it.

import { assert } from "../base/index.js";
import { BLOCK_OPERATION, type BlockRequest } from "./block-device.js";
import { type BlockFile, FILE_OPERATION, FileIo, type FileIoOwner } from "./block-file.js";
import { type RequestLedger, RequestList } from "./request-list.js";

export class SyncGroup implements FileIoOwner {
  /** Of the first sync that failed; 0 while none did. Never cleared. */
  errno = 0;
  private readonly file: BlockFile;
  private readonly ledger: RequestLedger;
  private readonly io: FileIo;
  /** Answered by the sync that runs; empty exactly when none runs. */
  private readonly covered = new RequestList();
  /** Answered by the next. */
  private readonly gathered = new RequestList();

  constructor(file: BlockFile, ledger: RequestLedger) {
    this.file = file;
    this.ledger = ledger;
    this.io = new FileIo(this, 0);
    this.io.operation = FILE_OPERATION.SYNC;
  }

  /** Requests that wait for a sync. */
  get count(): number {
    return this.covered.count + this.gathered.count;
  }

  /**
   * Finishes `request` when everything written by now is durable.
   * Preconditions: a change that joins has been written.
   */
  join(request: BlockRequest): void {
    if (this.errno !== 0 && request.operation === BLOCK_OPERATION.FLUSH) {
      this.ledger.finish(request, this.errno);
      return;
    }
    this.gathered.push(request);
    if (this.covered.count === 0) this.start();
  }

  onFileIoComplete(io: FileIo): void {
    const errno = io.result < 0 ? -io.result : 0;
    if (this.errno === 0) this.errno = errno;
    for (let request = this.covered.shift(); request !== null; request = this.covered.shift()) {
      const isFlush = request.operation === BLOCK_OPERATION.FLUSH;
      this.ledger.finish(request, isFlush ? this.errno : errno);
    }
    if (this.gathered.count > 0) this.start();
  }

  checkInvariants(): void {
    assert(this.gathered.count === 0 || this.covered.count > 0, "none waits while no sync runs");
  }

  private start(): void {
    this.covered.append(this.gathered);
    this.file.start(this.io);
  }
}

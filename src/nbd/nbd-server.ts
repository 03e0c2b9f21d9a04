// SPDX-License-Identifier: MIT
// An NBD endpoint (door; its body follows).

import type { Machine, Memory, MemorySource } from "../base/index.js";
import type { ByteStream } from "./byte-stream.js";
import { NbdConnection } from "./nbd-connection.js";
import { NbdCounters } from "./nbd-counters.js";
import type { NbdExports } from "./nbd-export.js";
import { type NbdLimits, nbdLimits } from "./nbd-limits.js";

export interface NbdServerOptions {
  readonly exports: NbdExports;
  /** Where buffers come from; all of them are allocated when the server is made. */
  readonly memory: MemorySource;
  readonly limits?: Partial<NbdLimits>;
}

export class NbdServer implements Machine {
  readonly exports: NbdExports;
  readonly limits: NbdLimits;
  readonly counters: NbdCounters = new NbdCounters();
  /** Every buffer that requests to block devices will ever name; one Memory per connection. */
  readonly memories: readonly Memory[] = [];

  constructor(options: NbdServerOptions) {
    this.exports = options.exports;
    this.limits = nbdLimits(options.limits ?? {});
  }

  /** Bytes of all `memories`. */
  get memoryBytes(): number {
    return 0;
  }

  /** Connections whose stream is open. */
  get connectionCount(): number {
    return 0;
  }

  /** No connection is open and no request is at a device. */
  get isIdle(): boolean {
    return true;
  }

  /** Serves `stream` from now on; null (and the stream closed) when there is no room for it. */
  accept(stream: ByteStream, _nowNs: number): NbdConnection | null {
    return new NbdConnection(this, stream);
  }

  /** Sends what is complete and takes up what waited. Call it after the devices' `pump`. */
  pump(_nowNs: number): void {}

  deadlineNs(): number {
    return Number.POSITIVE_INFINITY;
  }

  /** Takes no new connections; lets the open ones finish their requests, then closes them. */
  shutdown(): void {}

  /** Closes everything at once and gives the memory back. Preconditions: `isIdle`. */
  close(): void {}

  checkInvariants(): void {}
}

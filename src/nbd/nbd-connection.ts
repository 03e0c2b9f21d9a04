// SPDX-License-Identifier: MIT
// One client's connection (door; its stages follow).

import type { ByteStream } from "./byte-stream.js";
import type { NbdCloseReason } from "./nbd-counters.js";
import type { NbdServer } from "./nbd-server.js";

export class NbdConnection {
  readonly server: NbdServer;
  readonly peer: string;
  closeReason: NbdCloseReason | null = null;
  private readonly stream: ByteStream;

  constructor(server: NbdServer, stream: ByteStream) {
    this.server = server;
    this.stream = stream;
    this.peer = stream.peer;
  }

  /** Bytes may have arrived, or the stream's end. */
  onReadable(_nowNs: number): void {}

  /** The stream takes bytes again. */
  onWritable(_nowNs: number): void {}

  /** Whether to watch the stream for readability now; changes with every call into server or device. */
  get wantsRead(): boolean {
    return false;
  }

  get wantsWrite(): boolean {
    return false;
  }

  /** The stream is closed: forget it. Requests may still be at the device. */
  get isClosed(): boolean {
    return this.closeReason !== null;
  }

  /** Takes no further request; answers what is in progress, then closes. */
  shutdown(): void {
    this.close();
  }

  /** Closes the stream at once. */
  close(): void {
    this.closeReason = "CLOSED";
    this.stream.close();
  }
}

// SPDX-License-Identifier: MIT
import { LatencyHistogram } from "./latency-histogram.js";

/** What one connection of a path has carried since the path was made, over all its reconnects. */
export class ConnectionCounters {
  requests = 0;
  /** Data and user messages. */
  bytes = 0;
  /** Requests sent and not answered. Idle: 0. */
  inflight = 0;
}

/**
 * What one path has carried since it was made or `reset`; the first six are what Linux has in
 * `stats/rdma` and `stats/reconnects` (facts page, section 14).
 */
export class PathCounters {
  reads = 0;
  /** Bytes asked for, and of user messages. */
  readBytes = 0;
  writes = 0;
  /** Bytes sent, user messages included. */
  writeBytes = 0;
  /** Requests that were in flight when the path failed and went on by another. */
  failedOver = 0;
  /** Attempts to connect again that came to their end, well or not. */
  reconnectsOk = 0;
  reconnectsFailed = 0;
  /** From a request's sending to its answer. */
  readonly latency = new LatencyHistogram();
  /** By number of the connection; 0, the service connection, carries no requests. */
  readonly connections: readonly ConnectionCounters[];

  constructor(connectionCount: number) {
    this.connections = Array.from({ length: connectionCount }, () => new ConnectionCounters());
  }

  /** @param bytes data and user message. */
  onIssue(isRead: boolean, bytes: number, cid: number): void {
    if (isRead) {
      this.reads++;
      this.readBytes += bytes;
    } else {
      this.writes++;
      this.writeBytes += bytes;
    }
    const connection = this.connections[cid] as ConnectionCounters;
    connection.requests++;
    connection.bytes += bytes;
    connection.inflight++;
  }

  /** The request is answered, or taken back. */
  onWithdraw(cid: number): void {
    (this.connections[cid] as ConnectionCounters).inflight--;
  }

  /** Everything from 0 again, but for what is in flight. */
  reset(): void {
    this.reads = 0;
    this.readBytes = 0;
    this.writes = 0;
    this.writeBytes = 0;
    this.failedOver = 0;
    this.reconnectsOk = 0;
    this.reconnectsFailed = 0;
    this.latency.reset();
    for (const connection of this.connections) {
      connection.requests = 0;
      connection.bytes = 0;
    }
  }
}

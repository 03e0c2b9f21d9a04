// SPDX-License-Identifier: MIT
import { expect } from "vitest";
import { WC_STATUS } from "../verbs/index.js";
import { writeRtrsWriteHeader } from "../wire/index.js";
import type { ChunkTable } from "./client/chunk-table.js";
import type { ClientPath } from "./client/client-path.js";
import { MS, Pair, SECOND, TestHost } from "./pair.fixture.js";
import { RAW_DEPTH, RawClient } from "./raw.fixture.js";

/** A server with a well-behaved session "blue" that must not notice, and a raw client beside it. */
export class HostileScene {
  readonly pair: Pair;
  readonly raw: RawClient;

  constructor(alwaysInvalidate = true, copyBytesMax = 8192) {
    this.pair = new Pair({}, { alwaysInvalidate, copyBytesMax, queueDepth: RAW_DEPTH });
    this.pair.connect();
    const host = new TestHost("192.0.2.9", 9);
    this.pair.pipe.hosts.push(host);
    this.raw = new RawClient(host, this.pair.serverHost);
  }

  up(): this {
    connectRaw(this.pair, this.raw);
    return this;
  }

  /** Runs, and says why the server closed the raw client's path: "" when it did not. */
  fate(): string {
    this.pair.pipe.run(2 * SECOND);
    const isUp = this.pair.server.sessions().some((session) => session.name === this.raw.name);
    return isUp ? "" : this.pair.server.lastCloseReason;
  }

  /** The well-behaved session has not noticed, and works. */
  expectOthersWell(): void {
    const { pair } = this;
    expect(pair.clientNotes.events).toEqual(["up"]);
    pair.serverNotes.onAny = null;
    pair.serverNotes.holds = false;
    const write = pair.write(77, 77);
    pair.untilIdle();
    expect(write.errno).toBe(0);
    pair.client.release(write);
  }
}

export function connectRaw(pair: Pair, raw: RawClient): void {
  for (let cid = 0; cid < 2; cid++) {
    const connection = raw.ask();
    pair.pipe.until(() => connection.events.length > 0, "a raw connection is up");
  }
  raw.askInfo();
  const isUp = () => pair.server.sessions().some((session) => session.name === raw.name);
  pair.pipe.until(isUp, "the raw session is up");
  pair.pipe.run(MS);
  raw.takeInfo();
}

export function writeHeader(userLength: number): Uint8Array {
  const bytes = new Uint8Array(4);
  writeRtrsWriteHeader(new DataView(bytes.buffer), 0, userLength);
  return bytes;
}

export function chunksOf({ client }: Pair): ChunkTable {
  const [path] = client.paths as readonly ClientPath[];
  return path?.chunks as ChunkTable;
}

export function isAccessError(completion: { readonly status: number }): boolean {
  return completion.status === WC_STATUS.REM_ACCESS_ERR;
}

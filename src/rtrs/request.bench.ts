// SPDX-License-Identifier: MIT
// One request from `submit` to its completion, both ends in this process, packets handed over in
// memory, no CRC: what RTRS and the transport below cost per request. Compare the rows with each
// other: the ways to keep data from changing, reads by a key of their own and by the session's.

import { bench, describe } from "vitest";
import { RxBurst } from "../transport/index.js";
import { ROCE_PORT } from "../wire/index.js";
import type { ClientRequest } from "./client/client-request.js";
import { Pair, type TestHost } from "./pair.fixture.js";

const DEPTH = 32;
/** As long as any request here. */
const COPY_BYTES_MAX = 66_000;

/**
 * How a server keeps data from changing: it closes the chunk, copies the data, or not at all.
 */
type Keys = "close" | "copy" | "stay";

/** Hands everything that `from` has to send straight to `to`, in bursts as GRO makes them. */
function carry(from: TestHost, to: TestHost, burst: RxBurst, nowNs: number): void {
  const { tx } = from;
  for (let isMore = true; isMore; ) {
    isMore = from.device.pump(nowNs, tx);
    for (let message = 0; message < tx.messageCount; message++) {
      const start = tx.offsets[message] as number;
      const length = tx.lengths[message] as number;
      const step = tx.segmentLengths[message] as number;
      burst.length = length;
      burst.segmentLength = step;
      for (let at = 0; at < length; at += step) {
        burst.offset = start + at;
        to.device.onPacket(nowNs, burst, start + at, Math.min(step, length - at));
      }
    }
    tx.reset();
  }
}

/** A connected pair, and a function that has `count` requests done. */
function prepare(isRead: boolean, length: number, keys: Keys, invalidate: boolean) {
  const crc32 = (_bytes: Uint8Array, _start: number, _end: number, state: number) => state;
  const server = {
    alwaysInvalidate: keys !== "stay",
    copyBytesMax: keys === "copy" ? COPY_BYTES_MAX : 0,
    queueDepth: 64,
    chunkBytes: 131_072,
  };
  const pair = new Pair({ invalidate }, server, { crc32 });
  pair.connect();
  pair.serverNotes.onAny = (request) => {
    request.complete(0);
    pair.serverNotes.requests.length = 0;
  };
  const a = pair.clientHost;
  const b = pair.serverHost;
  const bursts = [burstOf(a), burstOf(b)] as const;
  let left = 0;
  let done = 0;
  const submit = (request: ClientRequest) => {
    request.userLength = 32;
    request.memory = pair.data;
    request.memoryOffset = 0;
    if (isRead) pair.client.submitRead(request, length);
    else pair.client.submitWrite(request, length);
  };
  pair.clientNotes.onComplete = (request) => {
    done++;
    if (left > 0) {
      left--;
      submit(request);
    } else {
      pair.client.release(request);
    }
    pair.clientNotes.completed.length = 0;
    pair.clientNotes.errnos.length = 0;
  };
  return (count: number) => {
    done = 0;
    left = count - DEPTH;
    for (let i = 0; i < DEPTH; i++) submit(pair.client.acquire() as ClientRequest);
    while (done < count) {
      pair.pipe.nowNs += 1000;
      carry(a, b, bursts[0], pair.pipe.nowNs);
      pair.server.pump(pair.pipe.nowNs);
      carry(b, a, bursts[1], pair.pipe.nowNs);
      pair.client.pump(pair.pipe.nowNs);
    }
  };
}

function burstOf(host: TestHost): RxBurst {
  const burst = new RxBurst(host.tx.bytes);
  burst.source0 = host.address.word0;
  burst.source1 = host.address.word1;
  burst.source2 = host.address.word2;
  burst.source3 = host.address.word3;
  burst.sourcePort = ROCE_PORT;
  return burst;
}

const COUNT = 4096;

const LENGTHS = [0, 4096, 8192, 16_384, 32_768, 65_536];

describe.each(LENGTHS)(`${COUNT} requests of %i bytes, ${DEPTH} at a time`, (length) => {
  const rows = {
    "write, chunk closed": prepare(false, length, "close", true),
    "write, data copied": prepare(false, length, "copy", true),
    "write, keys stay": prepare(false, length, "stay", true),
    "read, chunk closed": prepare(true, length, "close", true),
    "read, beside the chunk": prepare(true, length, "copy", true),
    "read, keys stay": prepare(true, length, "stay", true),
    "read, keys stay, the session's key": prepare(true, length, "stay", false),
  };
  for (const [name, run] of Object.entries(rows)) {
    bench(name, () => run(COUNT), { time: 1000, warmupTime: 300 });
  }
});

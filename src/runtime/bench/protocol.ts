// SPDX-License-Identifier: MIT
// What the two ends of a benchmark tell each other in the CM's private data: the initiator which
// test it runs and with what size, the responder where its memory is.

import { FarpageError } from "../../base/index.js";

/** What is measured. */
export const BENCH_TEST = {
  /** RDMA WRITE, acknowledged bytes per second. */
  WRITE: 1,
  /** RDMA READ, bytes per second. */
  READ: 2,
  /** Half a ping-pong of RDMA WRITEs, each waiting for the other's bytes to appear in memory. */
  WRITE_LATENCY: 3,
  /** SENDs per second into posted receives. */
  SEND_RATE: 4,
} as const;
export type BenchTest = (typeof BENCH_TEST)[keyof typeof BENCH_TEST];

/** RTRS uses 1234; this is the next to it that nothing of farpage uses. */
export const BENCH_PORT = 1244;
/** Memory that the responder offers; the largest message. */
export const BENCH_MEMORY_BYTES = 16 << 20;
/** Receives that the responder keeps posted in SEND_RATE. */
export const BENCH_RECEIVE_DEPTH = 512;

/** "fpb1", so that a stranger's connect is refused and not misread. */
const MAGIC = 0x66706231;

/** What the initiator asks for: 24 bytes of private data. */
export interface BenchRequest {
  readonly test: BenchTest;
  readonly messageBytes: number;
  /** WRITE_LATENCY: where the responder writes its answers, in the initiator's memory. */
  readonly address: number;
  readonly rkey: number;
}

export function encodeBenchRequest(request: BenchRequest): Uint8Array {
  const bytes = new Uint8Array(24);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC);
  view.setUint32(4, request.test);
  view.setUint32(8, request.messageBytes);
  view.setUint32(12, request.rkey);
  view.setFloat64(16, request.address);
  return bytes;
}

/** @throws FarpageError EPROTO when the bytes are no benchmark's. */
export function decodeBenchRequest(bytes: Uint8Array): BenchRequest {
  const view = viewOf(bytes, 24);
  const test = view.getUint32(4) as BenchTest;
  const messageBytes = view.getUint32(8);
  if (!Object.values(BENCH_TEST).includes(test) || messageBytes > BENCH_MEMORY_BYTES) {
    throw new FarpageError(
      "EPROTO",
      "the peer asks for a benchmark that this version doesn't have",
    );
  }
  return { test, messageBytes, rkey: view.getUint32(12), address: view.getFloat64(16) };
}

/** Where the responder's memory is: 16 bytes of private data. */
export interface BenchReply {
  readonly address: number;
  readonly rkey: number;
}

export function encodeBenchReply(reply: BenchReply): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, MAGIC);
  view.setUint32(4, reply.rkey);
  view.setFloat64(8, reply.address);
  return bytes;
}

/** @throws FarpageError EPROTO when the bytes are no benchmark's. */
export function decodeBenchReply(bytes: Uint8Array): BenchReply {
  const view = viewOf(bytes, 16);
  return { rkey: view.getUint32(4), address: view.getFloat64(8) };
}

function viewOf(bytes: Uint8Array, length: number): DataView {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < length || view.getUint32(0) !== MAGIC) {
    throw new FarpageError("EPROTO", "the peer is no farpage benchmark");
  }
  return view;
}

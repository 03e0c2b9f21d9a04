// SPDX-License-Identifier: MIT
// How much an NBD endpoint may hold. Everything it ever allocates follows from these numbers:
// connectionCountMax x (stagingBytes + requestCountMax x inlineBytes + segmentCount x segmentBytes)
// plus the reply headers. Sizes are bytes.

import { assert, FarpageError } from "../base/index.js";

/** All of it fixed for the life of a server. */
export interface NbdLimits {
  /** Connections served at once; more are closed as they come. 1 .. 4,096. */
  readonly connectionCountMax: number;
  /** Requests in progress on one connection; the client's further ones wait unread. 1 .. 4,096. */
  readonly requestCountMax: number;
  /** Every request has a buffer of this size of its own; a multiple of 4,096. */
  readonly inlineBytes: number;
  /** Buffers per connection for the parts of longer READs and WRITEs. 4 .. 4,096. */
  readonly segmentCount: number;
  /** Size of such a part; a multiple of 4,096, at least 65,536 and `inlineBytes`. */
  readonly segmentBytes: number;
  /** Bytes taken from a socket at once, and the longest option understood; a multiple of 4,096. */
  readonly stagingBytes: number;
  /** Longest READ or WRITE, told to clients as the maximum block size; a power of two. */
  readonly requestBytesMax: number;
  /** How long a client may take to choose its export. */
  readonly handshakeTimeoutNs: number;
}

export const NBD_LIMITS_DEFAULT: NbdLimits = {
  connectionCountMax: 16,
  requestCountMax: 128,
  inlineBytes: 16_384,
  segmentCount: 32,
  segmentBytes: 262_144,
  stagingBytes: 65_536,
  requestBytesMax: 33_554_432,
  handshakeTimeoutNs: 30_000_000_000,
};

const PAGE_BYTES = 4096;
/** The largest block that a device can have is a part of its own. */
const SEGMENT_BYTES_MIN = 65_536;
/** Room for the longest single reply of the handshake: two strings of 4,096 bytes and headers. */
const HANDSHAKE_REPLY_BYTES = 12_288;

/**
 * `limits` with defaults where it is silent.
 * @throws FarpageError EINVAL naming the limit that is out of range.
 */
export function nbdLimits(limits: Partial<NbdLimits>): NbdLimits {
  const merged = { ...NBD_LIMITS_DEFAULT, ...limits };
  checkRange(merged, "connectionCountMax", 1, 4096);
  checkRange(merged, "requestCountMax", 1, 4096);
  checkRange(merged, "segmentCount", 4, 4096);
  checkPages(merged, "inlineBytes", PAGE_BYTES, 1 << 20);
  checkPages(merged, "segmentBytes", Math.max(merged.inlineBytes, SEGMENT_BYTES_MIN), 1 << 25);
  checkPages(merged, "stagingBytes", 2 * PAGE_BYTES, 1 << 24);
  checkRange(merged, "requestBytesMax", 65_536, 1 << 30);
  if ((merged.requestBytesMax & (merged.requestBytesMax - 1)) !== 0) {
    throw new FarpageError("EINVAL", "NBD limit requestBytesMax must be a power of two");
  }
  if (merged.requestCountMax * merged.inlineBytes < HANDSHAKE_REPLY_BYTES) {
    throw new FarpageError("EINVAL", "NBD limits leave no room for the handshake's replies");
  }
  const bytes = poolLayout(merged).byteLength;
  if (bytes > 0x7fff_f000) {
    throw new FarpageError("EINVAL", `NBD limits need ${bytes} bytes per connection: over 2 GiB`);
  }
  return merged;
}

function checkRange(limits: NbdLimits, key: keyof NbdLimits, min: number, max: number): void {
  const value = limits[key];
  if (Number.isInteger(value) && value >= min && value <= max) return;
  throw new FarpageError("EINVAL", `NBD limit ${key} is ${value}: not in ${min} .. ${max}`);
}

function checkPages(limits: NbdLimits, key: keyof NbdLimits, min: number, max: number): void {
  checkRange(limits, key, min, max);
  if (limits[key] % PAGE_BYTES === 0) return;
  throw new FarpageError("EINVAL", `NBD limit ${key} is ${limits[key]}: not a multiple of 4096`);
}

/** Bytes that the longest reply header takes, payload fields that belong to it included. */
export const REPLY_HEADER_BYTES_MAX = 64;

/** Where things lie in a connection's memory. */
export interface PoolLayout {
  readonly stagingOffset: number;
  readonly headersOffset: number;
  readonly headersBytes: number;
  readonly inlineOffset: number;
  readonly segmentsOffset: number;
  readonly byteLength: number;
}

/** Every buffer starts on a page, so that devices may want aligned memory. */
export function poolLayout(limits: NbdLimits): PoolLayout {
  // One header per request and one per segment can wait to be sent; two more cover the wrap.
  const headerCount = limits.requestCountMax + limits.segmentCount + 2;
  const headersBytes = Math.ceil((headerCount * REPLY_HEADER_BYTES_MAX) / PAGE_BYTES) * PAGE_BYTES;
  const headersOffset = limits.stagingBytes;
  const inlineOffset = headersOffset + headersBytes;
  const segmentsOffset = inlineOffset + limits.requestCountMax * limits.inlineBytes;
  const byteLength = segmentsOffset + limits.segmentCount * limits.segmentBytes;
  assert(byteLength % PAGE_BYTES === 0, "a connection's memory is whole pages");
  return {
    stagingOffset: 0,
    headersOffset,
    headersBytes,
    inlineOffset,
    segmentsOffset,
    byteLength,
  };
}

// SPDX-License-Identifier: MIT
// The CRC-32 routines beside each other, at the sizes where one overtakes another.

import { crc32 } from "node:zlib";
import { bench, describe } from "vitest";
import { CRC32_TABLES, updateCrc32, updateCrc32View } from "./crc32.js";
import { SeededRandom } from "./random.js";

const random = new SeededRandom(1);
const bytes = Uint8Array.from({ length: 4096 }, () => random.nextU32());
const view = new DataView(bytes.buffer);

/** One table, one byte at a time: what slicing is measured against. */
function bytewise(start: number, end: number, register: number): number {
  for (let at = start; at < end; at++) {
    const index = (register ^ (bytes[at] as number)) & 255;
    register = (CRC32_TABLES[index] as number) ^ (register >>> 8);
  }
  return register;
}

/** Calls in one measured run: one call is shorter than the clock can tell. */
const CALLS = 100;
/** Keeps the results alive. */
const sink = { value: 0 };

describe.each([16, 64, 200, 1024, 4096])("CRC-32 of %i bytes", (length) => {
  bench("one table", () => {
    for (let call = 0; call < CALLS; call++) {
      sink.value ^= bytewise(0, length, sink.value);
    }
  });
  bench("slices by bytes", () => {
    for (let call = 0; call < CALLS; call++) {
      sink.value ^= updateCrc32(bytes, 0, length, sink.value);
    }
  });
  bench("slices by words", () => {
    for (let call = 0; call < CALLS; call++) {
      sink.value ^= updateCrc32View(view, 0, length, sink.value);
    }
  });
  bench("zlib through a subarray", () => {
    for (let call = 0; call < CALLS; call++) {
      sink.value ^= crc32(bytes.subarray(0, length), sink.value >>> 0);
    }
  });
});

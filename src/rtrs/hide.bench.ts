// SPDX-License-Identifier: MIT
// How a server keeps what it has checked from changing: it closes the chunk to the peer and opens
// it again under a fresh key, or it copies the data to where the peer can't reach it. The size at
// which the two rows cost the same is where one becomes cheaper than the other.

import { bench, describe } from "vitest";
import type { MemoryRegion } from "../verbs/index.js";
import { TestHost } from "./pair.fixture.js";
import { CHUNK_ACCESS } from "./server-chunks.js";

const CHUNK_BYTES = 131_072;
const CHUNKS = 128;
const ROUNDS = 1024;

const host = new TestHost("10.0.0.1", 1);
const pd = host.context.allocPd();
const memory = host.memory.allocate(CHUNK_BYTES * CHUNKS);
const base = pd.registerMr(memory, { access: CHUNK_ACCESS });
const regions = Array.from({ length: CHUNKS }, () => pd.allocMr());
const copies = new Uint8Array(CHUNK_BYTES * CHUNKS);

function open(chunk: number): void {
  const address = memory.address + chunk * CHUNK_BYTES;
  (regions[chunk] as MemoryRegion).fastRegister(base, address, CHUNK_BYTES, CHUNK_ACCESS);
}

for (let chunk = 0; chunk < CHUNKS; chunk++) open(chunk);

describe(`${ROUNDS} chunks hidden`, () => {
  bench("closed, and opened under a fresh key", () => {
    for (let round = 0; round < ROUNDS; round++) {
      const chunk = round % CHUNKS;
      (regions[chunk] as MemoryRegion).invalidate();
      open(chunk);
    }
  });
  for (const bytes of [512, 1024, 2048, 4096, 8192, 16_384, 65_536, 126_976]) {
    bench(`${bytes} bytes copied`, () => {
      for (let round = 0; round < ROUNDS; round++) {
        const start = (round % CHUNKS) * CHUNK_BYTES;
        copies.set(memory.bytes.subarray(start, start + bytes), start);
      }
    });
  }
});

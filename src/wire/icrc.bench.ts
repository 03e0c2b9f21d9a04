// SPDX-License-Identifier: MIT
// What the ICRC costs per packet: with the identification known, solved for, and, for comparison,
// by putting the masked packet together and running one CRC over it.

import { bench, describe } from "vitest";
import { IpAddress, SeededRandom, updateCrc32 } from "../base/index.js";
import { IcrcEngine, IcrcFlow } from "./icrc.js";

const random = new SeededRandom(1);
const bytes = Uint8Array.from({ length: 4160 }, () => random.nextU32());
const view = new DataView(bytes.buffer);
const destination = IpAddress.parse("192.0.2.2");
const flow = IcrcFlow.between(IpAddress.parse("192.0.2.1"), 4791, destination, 4791);
const engine = new IcrcEngine();
const HEADERS = Uint8Array.from({ length: 36 }, (_, i) => (i < 8 ? 0xff : i));
const scratch = new Uint8Array(HEADERS.length + bytes.length);

/** Copies headers and packet, masks, one pass: the definition taken literally. */
function literally(length: number): number {
  scratch.set(HEADERS);
  scratch.set(bytes.subarray(0, length - 4), HEADERS.length);
  scratch[HEADERS.length + 4] = 0xff;
  return ~updateCrc32(scratch, 0, HEADERS.length + length - 4, -1);
}

/** Calls in one measured run: one call is shorter than the clock can tell. */
const CALLS = 100;
/** Keeps the results alive. */
const sink = { value: 0 };

describe.each([20, 80, 1040, 4112])("ICRC of a packet of %i bytes", (length) => {
  bench("identification guessed", () => {
    for (let call = 0; call < CALLS; call++) {
      engine.write(flow, bytes, view, 0, length, 3);
      sink.value ^= engine.check(flow, bytes, view, 0, length, 3);
    }
  });
  bench("identification solved for", () => {
    for (let call = 0; call < CALLS; call++) {
      engine.write(flow, bytes, view, 0, length, 3);
      sink.value ^= engine.check(flow, bytes, view, 0, length, 0xbeef);
    }
  });
  bench("taken literally, twice", () => {
    for (let call = 0; call < CALLS; call++) {
      sink.value ^= literally(length) ^ literally(length);
    }
  });
});

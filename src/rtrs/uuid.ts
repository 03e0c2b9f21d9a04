// SPDX-License-Identifier: MIT
// The 16 random bytes that name sessions and paths on the wire.

import type { Random } from "../base/index.js";
import { numberOfLane, RTRS_UUID_BYTES } from "../wire/index.js";
import type { RtrsEnvironment } from "./environment.js";

/** A multiple of all numbers to 16. */
const SPREAD = 720_720;

/** A fresh UUID of RFC 9562 version 4; only its being unpredictable and unique matters. */
export function randomUuid(random: Random): Uint8Array {
  const bytes = new Uint8Array(RTRS_UUID_BYTES);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < RTRS_UUID_BYTES; i += 4) view.setUint32(i, random.nextU32());
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
  return bytes;
}

/**
 * The same for a session. A server's lane is its last word mod the number of lanes there; sessions
 * of several lanes of a client are to be on several there, however many it has (to 16).
 */
export function sessionUuid({ random, context }: RtrsEnvironment): Uint8Array {
  const bytes = randomUuid(random.fork("rtrs session"));
  const { lane } = context.device;
  if (lane.count === 1) return bytes;
  const view = new DataView(bytes.buffer);
  const at = RTRS_UUID_BYTES - 4;
  const number = numberOfLane({ index: lane.index, count: SPREAD }, view.getUint32(at));
  view.setUint32(at, number > 0xffff_ffff ? number - SPREAD : number);
  return bytes;
}

/** The UUID as a key for a Map. */
export function uuidKey(uuid: Uint8Array): string {
  let key = "";
  for (const byte of uuid) key += byte.toString(16).padStart(2, "0");
  return key;
}

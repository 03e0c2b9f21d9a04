// SPDX-License-Identifier: MIT
// What the sessions of a client's lanes share, made on the host's own thread and handed to each.

import type { Random } from "../../base/index.js";
import {
  allocateSharedVolume,
  type SessionGroup,
  type SharedVolumeMemory,
} from "../../rnbd/index.js";
import { type LaneNumber, RNBD_GROUP_BYTES } from "../../wire/index.js";

/** The group as plain data. */
export interface SharedSessions {
  /** Its secret name. */
  readonly name: Uint8Array;
  readonly volumes: ReadonlyMap<string, SharedVolumeMemory>;
}

/** @param random unpredictable. */
export function shareSessions(
  volumes: readonly string[],
  laneCount: number,
  random: Random,
): SharedSessions {
  const name = new Uint8Array(RNBD_GROUP_BYTES);
  const view = new DataView(name.buffer);
  for (let i = 0; i < RNBD_GROUP_BYTES; i += 4) view.setUint32(i, random.nextU32());
  const entries = volumes.map((volume) => [volume, allocateSharedVolume(laneCount)] as const);
  return { name, volumes: new Map(entries) };
}

/** One lane's part. @param wake has another lane take a turn soon. */
export function groupOf(
  { name, volumes }: SharedSessions,
  { index: lane, count: laneCount }: LaneNumber,
  wake: (lane: number) => void,
): SessionGroup {
  const memoryOf = (volume: string) => volumes.get(volume) as SharedVolumeMemory;
  return { name, lane, laneCount, memoryOf, wake };
}

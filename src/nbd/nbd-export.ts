// SPDX-License-Identifier: MIT
// What an NBD server serves: block devices by name. An export is the one place where requests of
// all connections meet, so it keeps to the device's queue depth.

import { assert, decodeUtf8, encodeUtf8, FarpageError, ObjectRing } from "../base/index.js";
import type { BlockDevice, BlockRequest } from "../block/index.js";
import { NBD_STRING_BYTES_MAX, NBD_TRANSMISSION_FLAG } from "../wire/index.js";

/** One served device. */
export class NbdExport {
  readonly name: string;
  readonly description: string;
  readonly device: BlockDevice;
  readonly nameBytes: Uint8Array;
  readonly descriptionBytes: Uint8Array;
  /** Connections in transmission on it. */
  connectionCount = 0;
  /** Requests that wait for room in the device's queue, oldest first. */
  private waiting: ObjectRing<BlockRequest> = new ObjectRing<BlockRequest>(64);

  constructor(name: string, device: BlockDevice, description: string) {
    this.name = name;
    this.device = device;
    this.description = description;
    this.nameBytes = encodeUtf8(name);
    this.descriptionBytes = encodeUtf8(description);
  }

  /** Bytes that can be addressed: the device's size in whole blocks. */
  get sizeBytes(): number {
    const limits = this.device.limits;
    return limits.sizeBytes - (limits.sizeBytes % limits.logicalBlockBytes);
  }

  /**
   * The flags that a client may rely on. Flush is always there: on a device without volatile cache
   * it has nothing to do. All connections share one device, whose FLUSH covers every completed
   * write whoever sent it: CAN_MULTI_CONN is true.
   */
  transmissionFlags(structured: boolean): number {
    const limits = this.device.limits;
    const flag = NBD_TRANSMISSION_FLAG;
    let flags = flag.HAS_FLAGS | flag.SEND_FLUSH | flag.SEND_CACHE | flag.CAN_MULTI_CONN;
    if (limits.rotational) flags |= flag.ROTATIONAL;
    if (structured) flags |= flag.SEND_DF;
    if (limits.fua || !limits.volatileCache) flags |= flag.SEND_FUA;
    if (limits.readOnly) return flags | flag.READ_ONLY;
    if (limits.discardBytesMax > 0) flags |= flag.SEND_TRIM;
    if (limits.writeZeroesBytesMax > 0) flags |= flag.SEND_WRITE_ZEROES | flag.SEND_FAST_ZERO;
    return flags;
  }

  /** Makes room for `count` more requests of a connection that enters transmission. */
  join(count: number): void {
    this.connectionCount++;
    const room = new ObjectRing<BlockRequest>(this.waiting.count + this.connectionCount * count);
    for (let next = this.waiting.shift(); next !== null; next = this.waiting.shift()) {
      room.push(next);
    }
    this.waiting = room;
  }

  /** Preconditions: the connection's requests have all come back. */
  leave(): void {
    assert(this.connectionCount > 0, "a connection that leaves has joined");
    this.connectionCount--;
  }

  /** Hands `request` to the device now, or as soon as its queue has room. */
  submit(request: BlockRequest): void {
    const device = this.device;
    if (this.waiting.count === 0 && device.inflight < device.limits.queueDepth) {
      device.submit(request);
    } else {
      const queued = this.waiting.push(request);
      assert(queued, "every request of every connection fits the queue");
    }
  }

  /** Submits what waits, as far as the device's queue has room. @returns how many. */
  pump(): number {
    const device = this.device;
    let count = 0;
    while (this.waiting.count > 0 && device.inflight < device.limits.queueDepth) {
      device.submit(this.waiting.shift() as BlockRequest);
      count++;
    }
    return count;
  }

  get waitingCount(): number {
    return this.waiting.count;
  }
}

/** The exports of a server, by name, in the order in which they were added. */
export class NbdExports {
  private readonly byName = new Map<string, NbdExport>();

  /**
   * Serves `device` as `name`. The first one added is also the default export, the one that clients
   * get that ask for the empty name.
   * @param name up to 4,096 bytes of UTF-8 without NUL.
   * @throws FarpageError EINVAL for a name or description that NBD can't carry, EEXIST for a taken
   *   one.
   */
  add(name: string, device: BlockDevice, description = ""): NbdExport {
    if (this.byName.has(name)) {
      throw new FarpageError("EEXIST", `there is already an NBD export named "${name}"`);
    }
    const added = new NbdExport(name, device, description);
    for (const bytes of [added.nameBytes, added.descriptionBytes]) {
      if (bytes.length > NBD_STRING_BYTES_MAX || bytes.includes(0)) {
        throw new FarpageError(
          "EINVAL",
          `the name or description of NBD export "${name}" is over 4096 bytes or contains NUL`,
        );
      }
    }
    this.byName.set(name, added);
    return added;
  }

  /**
   * No new connection gets it; those that have it keep it.
   * @returns whether there was one.
   */
  remove(name: string): boolean {
    return this.byName.delete(name);
  }

  /** The export called `name`; for the empty name, when none is called so, the first. */
  get(name: string): NbdExport | null {
    const found = this.byName.get(name);
    if (found !== undefined) return found;
    if (name !== "") return null;
    for (const first of this.byName.values()) return first;
    return null;
  }

  /** The same for a name as it came in, which need not even be UTF-8: `bytes[start .. end)`. */
  find(bytes: Uint8Array, start: number, end: number): NbdExport | null {
    if (end - start > NBD_STRING_BYTES_MAX) return null;
    const name = decodeUtf8(bytes, start, end);
    return name === null ? null : this.get(name);
  }

  list(): NbdExport[] {
    return [...this.byName.values()];
  }
}

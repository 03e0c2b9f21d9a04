// SPDX-License-Identifier: MIT
// What an RNBD server exports, and who has it open how.

import { assert, ERRNO } from "../base/index.js";
import type { BlockDevice, BlockOperation } from "../block/index.js";
import { RNBD_ACCESS, type RnbdAccess } from "../wire/index.js";
import { VolumeRights } from "./volume-rights.js";

/** How a volume is exported. */
export interface VolumeOptions {
  /** Refuse rw and migration opens though the device takes writes. Default false. */
  readonly readOnly?: boolean;
  /**
   * Names the cache in which acknowledged, unflushed writes of this volume live: two 32-bit halves,
   * not both 0. A restarted server gives the same epoch exactly when that cache has survived: for a
   * file, as long as the machine has not rebooted (the kernel's page cache outlives the process);
   * for memory, never. Clients that see another epoch fail the next flush of writes they had
   * acknowledged, rather than lie. Default: not told, as Linux.
   */
  readonly epoch?: { readonly high: number; readonly low: number };
  /** Who has it open how, shared with the servers on the host's other lanes; its own by default. */
  readonly rights?: VolumeRights;
}

/** What has been done to a volume since it was added; errors count once more under `errors`. */
export interface VolumeCounters {
  reads: number;
  readBytes: number;
  writes: number;
  writeBytes: number;
  flushes: number;
  discards: number;
  writeZeroes: number;
  errors: number;
}

/** An exported device. */
export class Volume {
  readonly name: string;
  readonly device: BlockDevice;
  /** Whether this export takes no writes. */
  readonly readOnly: boolean;
  readonly epochHigh: number;
  readonly epochLow: number;
  readonly counters: VolumeCounters = {
    reads: 0,
    readBytes: 0,
    writes: 0,
    writeBytes: 0,
    flushes: 0,
    discards: 0,
    writeZeroes: 0,
    errors: 0,
  };
  private readonly rights: VolumeRights;
  /** Requests in the device, of all opens, ended ones included. */
  inflight = 0;
  /** The device failed a request with this errno; told each time, before the client hears. */
  onDeviceError: ((operation: BlockOperation, errno: number) => void) | null = null;
  /** Set when the volume is removed: called from `pump` when nothing of it is in flight. */
  onDrained: (() => void) | null = null;

  constructor(name: string, device: BlockDevice, options: VolumeOptions) {
    this.name = name;
    this.device = device;
    this.readOnly = options.readOnly ?? false;
    this.epochHigh = options.epoch?.high ?? 0;
    this.epochLow = options.epoch?.low ?? 0;
    this.rights = options.rights ?? new VolumeRights();
  }

  /** Opens of all sessions; an ended one counts until its last request is out of the device. */
  get openCount(): number {
    return this.rights.openCount;
  }

  /**
   * Takes the right to access the volume in a mode (facts page 13: any number of readers, one
   * writer; two where one of them only migrates).
   * @param exclusive nobody else may have it in any mode.
   * @param group of sessions that share a right; null for none.
   * @returns 0; EROFS for writing what can't be written, EPERM when somebody else has the right to
   *   write, EBUSY where one of both must be alone.
   */
  acquire(access: RnbdAccess, exclusive: boolean, group: Uint8Array | null): number {
    const writes = access !== RNBD_ACCESS.RO;
    if (writes && (this.readOnly || this.device.limits.readOnly)) return ERRNO.EROFS;
    return this.rights.acquire(access, exclusive, group);
  }

  /** Gives back what `acquire` gave. */
  release(access: RnbdAccess, exclusive: boolean): void {
    this.rights.release(access, exclusive);
  }

  checkInvariants(): void {
    this.rights.checkInvariants();
    assert(this.inflight >= 0, "requests end once");
  }
}

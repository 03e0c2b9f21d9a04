// SPDX-License-Identifier: MIT
// From what a server tells of a device in OPEN_RSP to what the device can do here.

import type { BlockLimits } from "../block/index.js";
import {
  RNBD_ACCESS,
  RNBD_CACHE,
  RNBD_SECTOR_BYTES,
  type RnbdAccess,
  type RnbdOpenResponse,
} from "../wire/index.js";
import type { DeviceHost } from "./device-host.js";

/** Largest range of a discard or zeroing: what an NBD client can name, in whole 64 KiB. */
const RANGE_BYTES_MAX = 0xffff_0000;
/** Largest range of one command: its length is 32 bits of bytes. */
const PART_BYTES_MAX = 0xffff_0000;

/** Of a device that is not open yet: nothing is possible. */
export const NO_LIMITS: BlockLimits = {
  sizeBytes: 0,
  logicalBlockBytes: 512,
  physicalBlockBytes: 512,
  readOnly: true,
  transferBytesMax: 0,
  queueDepth: 0,
  volatileCache: false,
  fua: false,
  discardBytesMax: 0,
  discardGranularityBytes: 512,
  writeZeroesBytesMax: 0,
  rotational: false,
};

/**
 * The limits of a device that the server describes so, for users who have it open in mode `access`;
 * null where no device can be like that.
 */
export function limitsFrom(
  response: RnbdOpenResponse,
  access: RnbdAccess,
  host: DeviceHost,
): BlockLimits | null {
  const block = response.logicalBlockBytes;
  if (block < 512 || (block & (block - 1)) !== 0) return null;
  if (block > host.partBytesMax) return null;
  const sizeBytes = response.sectorCount * RNBD_SECTOR_BYTES;
  if (!Number.isSafeInteger(sizeBytes)) return null;
  return {
    sizeBytes: sizeBytes - (sizeBytes % block),
    logicalBlockBytes: block,
    physicalBlockBytes: Math.max(response.physicalBlockBytes, block),
    readOnly: access === RNBD_ACCESS.RO,
    transferBytesMax: host.transferBytesMax,
    queueDepth: host.queueDepth,
    volatileCache: (response.cachePolicy & RNBD_CACHE.WRITE_BACK) !== 0,
    fua: true,
    discardBytesMax: partMax(response.discardSectorsMax, block) > 0 ? RANGE_BYTES_MAX : 0,
    discardGranularityBytes: Math.max(response.discardGranularityBytes, block),
    writeZeroesBytesMax: partMax(response.writeZeroesSectorsMax, block) > 0 ? RANGE_BYTES_MAX : 0,
    rotational: response.rotational,
  };
}

/** Bytes that one command may cover where the server takes `sectors`: whole blocks. */
export function partMax(sectors: number, blockBytes: number): number {
  const bytes = Math.min(sectors * RNBD_SECTOR_BYTES, PART_BYTES_MAX);
  return bytes - (bytes % blockBytes);
}

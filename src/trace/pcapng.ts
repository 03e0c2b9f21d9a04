// SPDX-License-Identifier: MIT
// Blocks of a pcapng file (draft-ietf-opsawg-pcapng), written into memory that the caller has.
// Little-endian, timestamps in nanoseconds, raw IP packets. Nothing here allocates per packet.
//
//   section header | interface description, one per port | packets ... | interface statistics
//
// Every function that writes a block returns the offset behind it; the caller has seen to the room.

import type { IpAddress } from "../base/index.js";

const BLOCK_SECTION_HEADER = 0x0a0d0d0a;
const BLOCK_INTERFACE_DESCRIPTION = 1;
const BLOCK_INTERFACE_STATISTICS = 5;
const BLOCK_ENHANCED_PACKET = 6;
const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
/** IPv4 or IPv6, told apart by the first nibble. */
const LINKTYPE_RAW = 101;

const OPTION_END = 0;
const SHB_USERAPPL = 4;
const IF_NAME = 2;
const IF_DESCRIPTION = 3;
const IF_TSRESOL = 9;
const EPB_FLAGS = 2;
const EPB_DROPCOUNT = 4;
const ISB_STARTTIME = 2;
const ISB_ENDTIME = 3;
const ISB_IFRECV = 4;
const ISB_IFDROP = 5;
const ISB_USRDELIV = 8;

/** 10^-9 seconds. */
const RESOLUTION_NANOSECONDS = 9;
const TWO_32 = 0x1_0000_0000;

/** Bits of `epb_flags`: the direction, and what was wrong with the packet. */
export const PACKET_FLAG = {
  INBOUND: 1,
  OUTBOUND: 2,
  /** The ICRC does not fit. The format means the link's frame check, the nearest thing to it. */
  CRC_ERROR: 1 << 24,
} as const;

/** A section header with a name of at most 64 ASCII characters fits into this. */
export const SECTION_BYTES_MAX = 128;
/** So does an interface description, with the longest address as its name. */
export const INTERFACE_BYTES_MAX = 160;
export const STATISTICS_BYTES = 12 + 12 + 5 * 12 + 4;
/** What a packet block has beside the packet: fields, padding, options, both lengths. */
export const PACKET_OVERHEAD_BYTES_MAX = 28 + 3 + 8 + 12 + 4 + 4;

/**
 * Nanoseconds since 1970 in 64 bits, as two halves: a double has too few digits. Set once from a
 * clock of the day, then moved on by a monotonic one.
 */
export class Timestamp {
  high = 0;
  low = 0;
  private readonly baseHigh: number;
  private readonly baseLow: number;

  /** @param epochMs the time of day at zero of the clock that `set` is given, an integer. */
  constructor(epochMs: number) {
    // epochMs is 41 bits: times 10^6 in two steps that stay exact.
    const upper = Math.floor(epochMs / 65_536) * 1_000_000;
    const lower = (epochMs % 65_536) * 1_000_000;
    const low = (upper % 65_536) * 65_536 + lower;
    this.baseLow = low % TWO_32;
    this.baseHigh = Math.floor(upper / 65_536) + Math.floor(low / TWO_32);
  }

  /** @param ns since the base, an integer 0 .. 2^53 - 2^32. */
  set(ns: number): void {
    const low = this.baseLow + (ns % TWO_32);
    this.low = low % TWO_32;
    this.high = this.baseHigh + Math.floor(ns / TWO_32) + (low >= TWO_32 ? 1 : 0);
  }
}

/** The block that a file begins with. @param application at most 64 ASCII characters. */
export function writeSectionHeader(view: DataView, at: number, application: string): number {
  view.setUint32(at + 8, BYTE_ORDER_MAGIC, true);
  view.setUint16(at + 12, 1, true);
  view.setUint16(at + 14, 0, true);
  // Section length: not known.
  view.setInt32(at + 16, -1, true);
  view.setInt32(at + 20, -1, true);
  const end = writeText(view, at + 24, SHB_USERAPPL, application.slice(0, 64));
  return endBlock(view, at, writeEndOfOptions(view, end), BLOCK_SECTION_HEADER);
}

/**
 * One port. The first interface of a section has number 0, and so on.
 * @param name what readers show as the interface's name; at most 48 ASCII characters.
 * @param snapBytes bytes of a packet that are kept at most.
 */
export function writeInterface(
  view: DataView,
  at: number,
  name: string,
  address: IpAddress,
  snapBytes: number,
): number {
  view.setUint16(at + 8, LINKTYPE_RAW, true);
  view.setUint16(at + 10, 0, true);
  view.setUint32(at + 12, snapBytes, true);
  let end = writeText(view, at + 16, IF_NAME, name.slice(0, 48));
  end = writeText(view, end, IF_DESCRIPTION, `farpage on ${address}`);
  end = beginOption(view, end, IF_TSRESOL, 1);
  view.setUint32(end, RESOLUTION_NANOSECONDS, true);
  end = writeEndOfOptions(view, end + 4);
  return endBlock(view, at, end, BLOCK_INTERFACE_DESCRIPTION);
}

/** Where the packet's bytes go in a packet block that begins at `at`. */
export function packetDataAt(at: number): number {
  return at + 28;
}

/**
 * A packet, whose bytes stand at `packetDataAt(at)` already.
 * @param capturedLength of them; @param originalLength of the packet as it was.
 * @param flags `PACKET_FLAG` bits.
 * @param dropCount packets of this interface lost since the last one that was written.
 */
export function writePacket(
  view: DataView,
  at: number,
  interfaceNumber: number,
  time: Timestamp,
  capturedLength: number,
  originalLength: number,
  flags: number,
  dropCount: number,
): number {
  view.setUint32(at + 8, interfaceNumber, true);
  view.setUint32(at + 12, time.high, true);
  view.setUint32(at + 16, time.low, true);
  view.setUint32(at + 20, capturedLength, true);
  view.setUint32(at + 24, originalLength, true);
  let end = pad(view, at + 28 + capturedLength);
  end = beginOption(view, end, EPB_FLAGS, 4);
  view.setUint32(end, flags, true);
  end += 4;
  if (dropCount > 0) end = writeCount(view, end, EPB_DROPCOUNT, dropCount);
  return endBlock(view, at, writeEndOfOptions(view, end), BLOCK_ENHANCED_PACKET);
}

/** What became of the packets of one interface. */
export interface InterfaceStatistics {
  /** Packets seen, wanted by the filter, and lost because the reader was too slow. */
  readonly receivedCount: number;
  readonly deliveredCount: number;
  readonly droppedCount: number;
}

/** The end of an interface's story. Takes `STATISTICS_BYTES`. */
export function writeStatistics(
  view: DataView,
  at: number,
  interfaceNumber: number,
  start: Timestamp,
  now: Timestamp,
  statistics: InterfaceStatistics,
): number {
  view.setUint32(at + 8, interfaceNumber, true);
  view.setUint32(at + 12, now.high, true);
  view.setUint32(at + 16, now.low, true);
  let end = writeTime(view, at + 20, ISB_STARTTIME, start);
  end = writeTime(view, end, ISB_ENDTIME, now);
  end = writeCount(view, end, ISB_IFRECV, statistics.receivedCount);
  end = writeCount(view, end, ISB_IFDROP, statistics.droppedCount);
  end = writeCount(view, end, ISB_USRDELIV, statistics.deliveredCount);
  return endBlock(view, at, writeEndOfOptions(view, end), BLOCK_INTERFACE_STATISTICS);
}

function beginOption(view: DataView, at: number, code: number, length: number): number {
  view.setUint16(at, code, true);
  view.setUint16(at + 2, length, true);
  return at + 4;
}

function writeText(view: DataView, at: number, code: number, text: string): number {
  const from = beginOption(view, at, code, text.length);
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    view.setUint8(from + i, unit < 128 ? unit : 63);
  }
  return pad(view, from + text.length);
}

function writeCount(view: DataView, at: number, code: number, count: number): number {
  const from = beginOption(view, at, code, 8);
  view.setUint32(from, count % TWO_32, true);
  view.setUint32(from + 4, Math.floor(count / TWO_32), true);
  return from + 8;
}

/** Times in options have their upper half first, whatever the byte order. */
function writeTime(view: DataView, at: number, code: number, time: Timestamp): number {
  const from = beginOption(view, at, code, 8);
  view.setUint32(from, time.high, true);
  view.setUint32(from + 4, time.low, true);
  return from + 8;
}

function writeEndOfOptions(view: DataView, at: number): number {
  return beginOption(view, at, OPTION_END, 0);
}

/** Zeroes up to the next multiple of four; blocks begin at one. */
function pad(view: DataView, at: number): number {
  let end = at;
  while ((end & 3) !== 0) view.setUint8(end++, 0);
  return end;
}

/** Length of the block that begins at `at`. */
export function blockBytesAt(view: DataView, at: number): number {
  return view.getUint32(at + 4, true);
}

/** Type and length in front of the block, the length once more behind it. */
function endBlock(view: DataView, at: number, end: number, type: number): number {
  const length = end + 4 - at;
  view.setUint32(at, type, true);
  view.setUint32(at + 4, length, true);
  view.setUint32(end, length, true);
  return end + 4;
}

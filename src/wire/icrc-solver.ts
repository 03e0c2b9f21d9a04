// SPDX-License-Identifier: MIT
// Runs the CRC register backwards (RoCEv2 facts §7.3).
//
// Feeding a byte to a reflected CRC register is a shift and an XOR that can be undone, and undoing
// m zero bytes is one linear map of 32 bits to 32 bits: four look-ups in tables of 256. A table set
// per packet length would be 4 KiB for each length that a peer cares to send. Instead the number of
// 4-byte words is written in two digits to the base 64 and each digit has its map: 64 + 17 sets in
// all, built once, and any length costs eight look-ups.

import { CRC32_TABLES } from "../base/index.js";

const DIGIT_BITS = 6;
const DIGIT_VALUES = 1 << DIGIT_BITS;
/** Values of the high digit, 0 .. 16: up to 17 * 64 - 1 words. */
const HIGH_VALUES = 17;
/** Int32 entries of one map: four tables of 256. */
const MAP_ENTRIES = 1024;

/**
 * Bytes of IPv4 and UDP header from the identification on, which the CRC covers after it starts.
 */
const HEADER_BYTES_FROM_ID = 24;
const ICRC_BYTES = 4;

/**
 * Longest UDP payload that can be solved, 4,328 bytes: no path MTU of RoCE (4,096 at most, with 32
 * of headers and 4 of ICRC) needs as much.
 */
export const ICRC_SOLVABLE_BYTES_MAX =
  (HIGH_VALUES * DIGIT_VALUES - 1) * 4 - HEADER_BYTES_FROM_ID + ICRC_BYTES;

/** By the top byte of a table-0 entry: the entry's index. All 256 top bytes are different. */
const INDEX_BY_TOP_BYTE: Uint8Array = buildIndexByTopByte();

function buildIndexByTopByte(): Uint8Array {
  const indices = new Uint8Array(256);
  for (let index = 0; index < 256; index++) {
    indices[(CRC32_TABLES[index] as number) >>> 24] = index;
  }
  return indices;
}

/** The register before the zero byte that led to `register`. */
function undoZeroByte(register: number): number {
  const index = INDEX_BY_TOP_BYTE[register >>> 24] as number;
  return ((register ^ (CRC32_TABLES[index] as number)) << 8) | index;
}

/** All maps: low digits 0 .. 63 first, then high digits 0 .. 16. Digit 0 is the identity. */
const MAPS: Int32Array = buildMaps();
const HIGH_MAPS_AT = DIGIT_VALUES * MAP_ENTRIES;

/** Applies the map that begins at `at` in `maps`. */
function applyMap(maps: Int32Array, at: number, register: number): number {
  return (
    (maps[at + (register & 255)] as number) ^
    (maps[at + 256 + ((register >>> 8) & 255)] as number) ^
    (maps[at + 512 + ((register >>> 16) & 255)] as number) ^
    (maps[at + 768 + (register >>> 24)] as number)
  );
}

/** Fills the map at `at` from the images of the 32 single bits. */
function fillMap(maps: Int32Array, at: number, images: Int32Array): void {
  for (let byte = 0; byte < 4; byte++) {
    for (let value = 1; value < 256; value++) {
      // A value's image is that of its lowest bit and that of the rest, which is already there.
      const lowest = 31 - Math.clz32(value & -value);
      maps[at + byte * 256 + value] =
        (maps[at + byte * 256 + (value & (value - 1))] as number) ^
        (images[byte * 8 + lowest] as number);
    }
  }
}

function buildMaps(): Int32Array {
  const maps = new Int32Array((DIGIT_VALUES + HIGH_VALUES) * MAP_ENTRIES);
  const images = new Int32Array(32);
  for (let bit = 0; bit < 32; bit++) images[bit] = 1 << bit;
  for (let digit = 0; digit < DIGIT_VALUES; digit++) {
    fillMap(maps, digit * MAP_ENTRIES, images);
    for (let bit = 0; bit < 32; bit++) {
      let register = images[bit] as number;
      for (let i = 0; i < 4; i++) register = undoZeroByte(register);
      images[bit] = register;
    }
  }
  // `images` now undoes 64 words: the high digit's unit.
  const unit = new Int32Array(MAP_ENTRIES);
  fillMap(unit, 0, images);
  for (let bit = 0; bit < 32; bit++) images[bit] = 1 << bit;
  for (let digit = 0; digit < HIGH_VALUES; digit++) {
    fillMap(maps, (DIGIT_VALUES + digit) * MAP_ENTRIES, images);
    for (let bit = 0; bit < 32; bit++) {
      images[bit] = applyMap(unit, 0, images[bit] as number);
    }
  }
  return maps;
}

/**
 * Turns the XOR of two ICRCs into the XOR of what the two packets have in IPv4 header bytes 4 .. 7,
 * provided that they differ nowhere else: identification in bits 0 .. 15 (its first byte lowest),
 * flags and fragment offset in bits 16 .. 31 likewise.
 *
 * @param difference the XOR, signed or unsigned 32 bits.
 * @param udpPayloadLength of the packet, ICRC included, 4 .. `ICRC_SOLVABLE_BYTES_MAX`.
 * @returns a signed 32-bit number, as if the four bytes were a little-endian word.
 */
export function solveHeaderDifference(difference: number, udpPayloadLength: number): number {
  // Four bytes XORed into a register and then shifted through are the same as those bytes fed in,
  // so the whole stretch from the identification to the ICRC is undone as zero bytes.
  const steps = udpPayloadLength - ICRC_BYTES + HEADER_BYTES_FROM_ID;
  const words = steps >>> 2;
  let register = difference;
  for (let i = steps & 3; i > 0; i--) register = undoZeroByte(register);
  register = applyMap(MAPS, (words & (DIGIT_VALUES - 1)) * MAP_ENTRIES, register);
  return applyMap(MAPS, HIGH_MAPS_AT + (words >>> DIGIT_BITS) * MAP_ENTRIES, register);
}

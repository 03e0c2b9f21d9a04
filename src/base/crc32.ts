// SPDX-License-Identifier: MIT
// CRC-32 of IEEE 802.3 (polynomial 0x04C11DB7, reflected to 0xEDB88320), as a register that is
// moved over bytes. RoCEv2's ICRC is this CRC over a masked packet; the masking lives in
// wire/icrc.ts.

/**
 * Moves a CRC-32 register over `bytes[start .. end - 1]`.
 *
 * The register is raw: start a fresh CRC with -1 (all ones) and complement the final register to
 * get the CRC; nothing is complemented between calls, so a range may be cut anywhere. It is a
 * *signed* 32-bit integer going in and coming out: a value above 2^31 would be a heap number in V8,
 * one allocation per call. Implementations keep no reference to `bytes`.
 *
 * (A library's `crc32(bytes, previousCrc)` usually takes and returns the complemented value: wrap
 * it as `~crc32(bytes.subarray(start, end), ~register)`.)
 */
export type Crc32 = (bytes: Uint8Array, start: number, end: number, register: number) => number;

/** Bytes that one step of `updateCrc32`'s main loop takes. */
const SLICE_BYTES = 8;

/**
 * Eight tables of 256: entry `k * 256 + b` is the register that byte `b`, fed to a zero register,
 * leaves after `k` more zero bytes. Table 0 is the usual one. Signed, like the register.
 */
export const CRC32_TABLES: Int32Array = buildTables();

function buildTables(): Int32Array {
  const tables = new Int32Array(SLICE_BYTES * 256);
  for (let byte = 0; byte < 256; byte++) {
    let register = byte;
    for (let bit = 0; bit < 8; bit++) {
      register = (register >>> 1) ^ ((register & 1) !== 0 ? 0xedb88320 : 0);
    }
    tables[byte] = register;
  }
  for (let index = 256; index < tables.length; index++) {
    const register = tables[index - 256] as number;
    tables[index] = (tables[register & 255] as number) ^ (register >>> 8);
  }
  return tables;
}

/** Moves the register over one byte, 0 .. 255. */
export function updateCrc32Byte(byte: number, register: number): number {
  return (CRC32_TABLES[(register ^ byte) & 255] as number) ^ (register >>> 8);
}

/**
 * The portable `Crc32`: slicing by eight (Kounavis and Berry, Intel 2005). The better choice below
 * some 200 bytes, where the call into a native library costs more than it saves.
 */
export const updateCrc32: Crc32 = (bytes, start, end, register) => {
  const t = CRC32_TABLES;
  let at = start;
  for (; at + SLICE_BYTES <= end; at += SLICE_BYTES) {
    register =
      (t[1792 + ((register ^ (bytes[at] as number)) & 255)] as number) ^
      (t[1536 + (((register >>> 8) ^ (bytes[at + 1] as number)) & 255)] as number) ^
      (t[1280 + (((register >>> 16) ^ (bytes[at + 2] as number)) & 255)] as number) ^
      (t[1024 + ((register >>> 24) ^ (bytes[at + 3] as number))] as number) ^
      (t[768 + (bytes[at + 4] as number)] as number) ^
      (t[512 + (bytes[at + 5] as number)] as number) ^
      (t[256 + (bytes[at + 6] as number)] as number) ^
      (t[bytes[at + 7] as number] as number);
  }
  for (; at < end; at++) {
    register = (t[(register ^ (bytes[at] as number)) & 255] as number) ^ (register >>> 8);
  }
  return register;
};

/**
 * `updateCrc32` over a view: a quarter faster from 32 bytes on, since it loads words. `start` and
 * `end` count from the view's first byte.
 */
export function updateCrc32View(
  view: DataView,
  start: number,
  end: number,
  register: number,
): number {
  const t = CRC32_TABLES;
  let at = start;
  for (; at + SLICE_BYTES <= end; at += SLICE_BYTES) {
    const a = register ^ view.getInt32(at, true);
    const b = view.getInt32(at + 4, true);
    register =
      (t[1792 + (a & 255)] as number) ^
      (t[1536 + ((a >>> 8) & 255)] as number) ^
      (t[1280 + ((a >>> 16) & 255)] as number) ^
      (t[1024 + (a >>> 24)] as number) ^
      (t[768 + (b & 255)] as number) ^
      (t[512 + ((b >>> 8) & 255)] as number) ^
      (t[256 + ((b >>> 16) & 255)] as number) ^
      (t[b >>> 24] as number);
  }
  for (; at < end; at++) {
    register = (t[(register ^ view.getUint8(at)) & 255] as number) ^ (register >>> 8);
  }
  return register;
}

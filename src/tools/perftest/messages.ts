// SPDX-License-Identifier: MIT
// What perftest's two sides tell each other before and after a test, in bytes: docs/perftest.md has
// the order. Everything that a peer says is checked here; what leaves this file can be used.

import { FarpageError, IpAddress } from "../../runtime/index.js";

/** The version that we say we are: that of Debian 12, whose exchange this is. */
export const VERSION = "6.06";
/** Older ones exchange other things. Newer ones see our version and do as 6.06 does. */
const VERSION_MIN = 5.7;
const VERSION_BYTES = 16;

/** Everybody's page size and cache line: they decide where small messages go (`cycleBytes`). */
export const PAGE_BYTES = 4096;
export const CACHE_LINE_BYTES = 64;
/** More than that is no page or cache line of any machine. */
const PAGE_BYTES_MAX = 1 << 21;
const CACHE_LINE_BYTES_MAX = 4096;

/** Where one side's queue pair and memory are. */
export interface Place {
  /** READs and atomics that this side serves at a time. */
  readonly outReads: number;
  readonly qpn: number;
  /** The first PSN that this side sends. */
  readonly psn: number;
  readonly rkey: number;
  /** Where the peer writes or reads: two halves of a virtual address. */
  readonly addressHigh: number;
  readonly addressLow: number;
  readonly gid: IpAddress;
}

/** A place over TCP: 107 characters and a zero. */
export const PLACE_TEXT_BYTES = 108;
/** A place over an RDMA connection: the fields of a C structure, big-endian. */
export const PLACE_BINARY_BYTES = 56;
/** What each side says last over TCP. */
export const DONE = new TextEncoder().encode("done\0");

export function encodeVersion(): Uint8Array {
  const bytes = new Uint8Array(VERSION_BYTES);
  new TextEncoder().encodeInto(VERSION, bytes);
  return bytes;
}

/**
 * The version that a peer says it is, "6.06".
 * @throws FarpageError EPROTO when it is none, EPROTONOSUPPORT when it is too old.
 */
export function decodeVersion(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  const text = latin1(bytes.subarray(0, end < 0 ? bytes.length : end));
  if (!/^\d{1,3}\.\d{1,4}$/.test(text)) {
    throw wrong(`it begins with ${quoted(latin1(bytes))}, which is no version`);
  }
  if (Number(text) >= VERSION_MIN) return text;
  throw new FarpageError(
    "EPROTONOSUPPORT",
    `the peer is perftest ${text}; farpage speaks what ${VERSION_MIN.toFixed(2)} and newer speak`,
  );
}

export function encodeU32(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, value);
  return bytes;
}

/** A peer's page size. @throws FarpageError EPROTO. */
export function decodePageBytes(bytes: Uint8Array): number {
  return decodeSize(bytes, PAGE_BYTES_MAX, "page size");
}

/** A peer's cache line. @throws FarpageError EPROTO. */
export function decodeCacheLineBytes(bytes: Uint8Array): number {
  return decodeSize(bytes, CACHE_LINE_BYTES_MAX, "cache line");
}

function decodeSize(bytes: Uint8Array, max: number, what: string): number {
  const value = viewOf(bytes).getUint32(0);
  if (value >= 8 && value <= max && (value & (value - 1)) === 0) return value;
  throw wrong(`its ${what} of ${value} bytes can't be`);
}

/** The path MTU as its code, a digit: 1 is 256, 5 is 4096. */
export function encodeMtu(mtu: number): Uint8Array {
  return Uint8Array.of(0x30 + Math.log2(mtu) - 7, 0);
}

/** @throws FarpageError EPROTO. */
export function decodeMtu(bytes: Uint8Array): number {
  const code = (bytes[0] ?? 0) - 0x30;
  if (bytes.length === 2 && bytes[1] === 0 && code >= 1 && code <= 5) return 2 ** (code + 7);
  throw wrong(`its MTU is ${quoted(latin1(bytes))}, not a digit from 1 to 5`);
}

export function encodePlaceText(place: Place): Uint8Array {
  const gid = [...gidBytes(place.gid)].map((byte) => hex(byte, 2)).join(":");
  const fields = [
    hex(0, 4),
    hex(place.outReads, 4),
    hex(place.qpn, 6),
    hex(place.psn, 6),
    hex(place.rkey, 8),
    hex(place.addressHigh, 8) + hex(place.addressLow, 8),
    gid,
    hex(0, 8),
  ];
  return new TextEncoder().encode(`${fields.join(":")}:\0`);
}

const PLACE_TEXT = new RegExp(
  `^[0-9a-f]{4}:([0-9a-f]{4}):([0-9a-f]{6}):([0-9a-f]{6}):([0-9a-f]{8}):` +
    `([0-9a-f]{8})([0-9a-f]{8}):((?:[0-9a-f]{2}:){16})[0-9a-f]{8}:\\0$`,
);

/** @throws FarpageError EPROTO saying what is wrong with it. */
export function decodePlaceText(bytes: Uint8Array): Place {
  const match = PLACE_TEXT.exec(latin1(bytes));
  if (match === null) {
    throw wrong(`${quoted(latin1(bytes))} is no line "LID:reads:QPN:PSN:rkey:address:GID:SRQN:"`);
  }
  const number = (index: number) => Number.parseInt(match[index] as string, 16);
  const gid = Uint8Array.from((match[7] as string).split(":").slice(0, 16), (text) =>
    Number.parseInt(text, 16),
  );
  return checkPlace({
    outReads: number(1),
    qpn: number(2),
    psn: number(3),
    rkey: number(4),
    addressHigh: number(5),
    addressLow: number(6),
    gid: IpAddress.fromGid(viewOf(gid), 0),
  });
}

export function encodePlaceBinary(place: Place): Uint8Array {
  const bytes = new Uint8Array(PLACE_BINARY_BYTES);
  const view = viewOf(bytes);
  view.setUint32(4, place.outReads);
  view.setUint32(8, place.qpn);
  view.setUint32(12, place.psn);
  view.setUint32(16, place.rkey);
  view.setUint32(24, place.addressHigh);
  view.setUint32(28, place.addressLow);
  place.gid.writeGid(view, 32);
  return bytes;
}

/** @throws FarpageError EPROTO saying what is wrong with it. */
export function decodePlaceBinary(bytes: Uint8Array): Place {
  const view = viewOf(bytes);
  return checkPlace({
    outReads: view.getUint32(4),
    qpn: view.getUint32(8),
    psn: view.getUint32(12),
    rkey: view.getUint32(16),
    addressHigh: view.getUint32(24),
    addressLow: view.getUint32(28),
    gid: IpAddress.fromGid(view, 32),
  });
}

function checkPlace(place: Place): Place {
  const { qpn, psn, gid, outReads } = place;
  if (qpn < 2 || qpn >= 0xff_ffff) throw wrong(`0x${qpn.toString(16)} is no queue pair number`);
  if (psn > 0xff_ffff) throw wrong(`0x${psn.toString(16)} is no PSN`);
  if (outReads > 0xffff) throw wrong(`it says that it serves ${outReads} READs at a time`);
  const first = gid.family === 4 ? gid.word3 >>> 28 : gid.word0 >>> 24;
  const isMulticast = gid.family === 4 ? first >= 0xe : first === 0xff;
  const isNothing = gid.family === 4 ? gid.word3 === 0 : isZero(gid);
  if (isMulticast || isNothing) throw wrong(`its GID ${gid} is no address of a host`);
  return place;
}

function isZero(gid: IpAddress): boolean {
  return (gid.word0 | gid.word1 | gid.word2 | gid.word3) === 0;
}

/** What the measuring side tells the other in the end. */
export interface Report {
  readonly messageBytes: number;
  readonly iterations: number;
  /** MiB (2^20 bytes) a second; 0 for a peak that was not looked for. */
  readonly peak: number;
  readonly average: number;
  /** Millions of messages a second. */
  readonly messageRate: number;
}

/** The report's five numbers, each a message of eight bytes of its own. */
export function encodeReport(report: Report): Uint8Array[] {
  const integers = [report.messageBytes, report.iterations].map((value) => {
    const bytes = new Uint8Array(8);
    viewOf(bytes).setBigUint64(0, BigInt(value));
    return bytes;
  });
  const doubles = [report.peak, report.average, report.messageRate].map((value) => {
    const bytes = new Uint8Array(8);
    viewOf(bytes).setFloat64(0, value);
    return bytes;
  });
  return [...integers, ...doubles];
}

/** Messages of a report. */
export const REPORT_PARTS = 5;

/**
 * The other side's figures. Only from a side that measured: the other one sends whatever its memory
 * holds.
 * @throws FarpageError EPROTO when a number can't be.
 */
export function decodeReport(parts: readonly Uint8Array[]): Report {
  const integer = (index: number, what: string) => {
    const value = viewOf(parts[index] as Uint8Array).getBigUint64(0);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw wrong(`it reports ${value} ${what}`);
    return Number(value);
  };
  const double = (index: number, what: string) => {
    const value = viewOf(parts[index] as Uint8Array).getFloat64(0);
    if (!(value >= 0 && value < 1e12)) throw wrong(`it reports a ${what} of ${value}`);
    return value;
  };
  return {
    messageBytes: integer(0, "bytes a message"),
    iterations: integer(1, "iterations"),
    peak: double(2, "peak"),
    average: double(3, "bandwidth"),
    messageRate: double(4, "message rate"),
  };
}

function wrong(what: string): FarpageError {
  return new FarpageError("EPROTO", `the peer does not speak perftest's language: ${what}`);
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

function gidBytes(gid: IpAddress): Uint8Array {
  const bytes = new Uint8Array(16);
  gid.writeGid(viewOf(bytes), 0);
  return bytes;
}

function latin1(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

/** For people: at most 40 characters of a byte each, all but printable ASCII escaped. */
function quoted(text: string): string {
  const json = JSON.stringify(text.slice(0, 40).replace(/\0+$/, ""));
  const ascii = json.replace(/[\x7f-\xff]/g, (c) => `\\x${hex(c.charCodeAt(0), 2)}`);
  return text.length > 40 ? `${ascii}…` : ascii;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

// SPDX-License-Identifier: MIT
// The invariant CRC of RoCEv2 (IBTA annex A17, vol1 §7.8.1; RoCEv2 facts §6 and §7):
// CRC-32 over eight bytes of ones, the IP, UDP and BTH headers with what routers may change set to
// ones, and the rest as sent; stored least significant byte first.
//
// A UDP socket shows neither the IP header of what it receives nor lets one choose what it sends,
// so nothing here reads an IP header: it is rebuilt from what is known of it. Two facts make that
// cheap. A CRC register is affine over XOR: changing some bits of the input changes the register by
// an amount that depends on those bits and on how many bytes follow, on nothing else. So
//
// - all packets between two ports share one register (`IcrcFlow`), computed once with zero lengths
//   and a zero identification; a packet's own two lengths and identification are XORed in from
//   small tables. Nothing is cached per length, and nothing grows with what a peer sends.
// - an IPv4 identification that the receiver can't see is *solved for*: run backwards over the rest
//   of the packet, the difference between the received and the computed CRC becomes the difference
//   of the identification and fragment words themselves. See icrc-solver.ts.

import {
  CRC32_TABLES,
  type Crc32,
  type IpAddress,
  updateCrc32,
  updateCrc32Byte,
  updateCrc32View,
} from "../base/index.js";
import { BTH_BYTES } from "./bth.js";
import { ICRC_SOLVABLE_BYTES_MAX, solveHeaderDifference } from "./icrc-solver.js";
import { ICRC_BYTES } from "./packet.js";

/** The register after the eight bytes of ones that stand for an InfiniBand local route header. */
const REGISTER_AFTER_LRH = 0xdebb20e3 | 0;

const IPV4_BYTES = 20;
const UDP_BYTES = 8;
const IP_PROTOCOL_UDP = 17;
const DONT_FRAGMENT = 0x4000;

/**
 * What each value of one byte adds to a register when `following` bytes come after it: 256 entries,
 * entry 0 is 0.
 */
function contributions(following: number): Int32Array {
  const table = new Int32Array(256);
  for (let value = 1; value < 256; value++) {
    let register = CRC32_TABLES[value] as number;
    for (let i = 0; i < following; i++) register = updateCrc32Byte(0, register);
    table[value] = register;
  }
  return table;
}

/** The same for a field that stands in two places, `followingA` and `followingB` from the end. */
function contributionsTwice(followingA: number, followingB: number): Int32Array {
  const b = contributions(followingB);
  return contributions(followingA).map((value, index) => value ^ (b[index] as number));
}

// The places, counted as bytes that follow up to the end of the UDP header (28 or 48 bytes in all).
/** IPv4 bytes 2, 3: total length. */
const V4_TOTAL_HIGH = contributions(25);
const V4_TOTAL_LOW = contributions(24);
/** IPv4 bytes 4, 5: identification. */
const V4_ID_HIGH = contributions(23);
const V4_ID_LOW = contributions(22);
/** IPv4 + UDP bytes 24, 25: UDP length. */
const V4_UDP_HIGH = contributions(3);
const V4_UDP_LOW = contributions(2);
/** IPv6 bytes 4, 5 (payload length) and 44, 45 (UDP length), which always say the same. */
const V6_LENGTH_HIGH = contributionsTwice(43, 3);
const V6_LENGTH_LOW = contributionsTwice(42, 2);

/** What `IcrcEngine.check` finds. `BAD` is 0; everything else is a good packet. */
export const ICRC_RESULT = {
  BAD: 0,
  /** All 32 bits agree: IPv6, or IPv4 with the guessed identification. */
  EXACT: 1,
  /** IPv4 with another identification, DF set. 2^-16 of random corruptions end here. */
  SOLVED: 2,
  /** IPv4 with any identification, DF clear and not a fragment. Another 2^-16 of them. */
  SOLVED_WITHOUT_DF: 3,
} as const;
export type IcrcResult = (typeof ICRC_RESULT)[keyof typeof ICRC_RESULT];

/**
 * What the packets from one UDP port to another have in common, as a CRC register. Owned by the
 * caller, who keeps one per direction of a connection (or one per port of the host, re-assigned
 * when `matches` says no: that costs some 100 ns).
 */
export class IcrcFlow {
  /** The addresses' family; both ends have the same. */
  family: 4 | 6 = 4;
  /**
   * IPv4: the identification of the packet checked last, exact or solved for; unspecified if bad.
   */
  identification = 0;
  /** Register after the UDP header with every length and the identification 0, DF set. */
  private register = 0;
  private source0 = 0;
  private source1 = 0;
  private source2 = 0;
  private source3 = 0;
  private sourcePort = -1;

  /** A flow from `source` to `destination`, for sending. */
  static between(
    source: IpAddress,
    sourcePort: number,
    destination: IpAddress,
    destinationPort: number,
  ): IcrcFlow {
    const { word0, word1, word2, word3 } = source;
    const flow = new IcrcFlow();
    flow.assign(word0, word1, word2, word3, sourcePort, destination, destinationPort);
    return flow;
  }

  /** Whether packets of this source belong here. The destination is the caller's to keep apart. */
  matches(
    source0: number,
    source1: number,
    source2: number,
    source3: number,
    sourcePort: number,
  ): boolean {
    return (
      this.source3 === source3 &&
      this.sourcePort === sourcePort &&
      this.source2 === source2 &&
      this.source1 === source1 &&
      this.source0 === source0
    );
  }

  /**
   * Makes this the flow from a source (a GID in four words and a UDP port) to a destination.
   * Allocates nothing. The destination's family decides which IP header is meant.
   */
  assign(
    source0: number,
    source1: number,
    source2: number,
    source3: number,
    sourcePort: number,
    destination: IpAddress,
    destinationPort: number,
  ): void {
    this.source0 = source0;
    this.source1 = source1;
    this.source2 = source2;
    this.source3 = source3;
    this.sourcePort = sourcePort;
    this.family = destination.family;
    let r = REGISTER_AFTER_LRH;
    if (destination.family === 4) {
      // Version and IHL, TOS (masked), total length 0; identification 0, DF; TTL (masked),
      // protocol, header checksum (masked).
      r = word(0x45ff_0000, r);
      r = word(DONT_FRAGMENT, r);
      r = word(0xff00_ffff | (IP_PROTOCOL_UDP << 16), r);
    } else {
      // Version, traffic class and flow label (masked); payload length 0, next header, hop limit.
      r = word(0x6fff_ffff, r);
      r = word((IP_PROTOCOL_UDP << 8) | 0xff, r);
      r = word(source0, r);
      r = word(source1, r);
      r = word(source2, r);
    }
    r = word(source3, r);
    if (destination.family === 6) {
      r = word(destination.word0, r);
      r = word(destination.word1, r);
      r = word(destination.word2, r);
    }
    r = word(destination.word3, r);
    r = word((sourcePort << 16) | destinationPort, r);
    // UDP length 0, checksum (masked).
    this.register = word(0x0000_ffff, r);
  }

  /**
   * The register after the UDP header of a packet with `udpPayloadLength` bytes of UDP payload and,
   * on IPv4, this identification. Precondition: the packet fits an IP packet (65,507 bytes).
   */
  headerRegister(udpPayloadLength: number, identification: number): number {
    const udpLength = udpPayloadLength + UDP_BYTES;
    if (this.family === 6) {
      return (
        this.register ^
        (V6_LENGTH_HIGH[udpLength >>> 8] as number) ^
        (V6_LENGTH_LOW[udpLength & 255] as number)
      );
    }
    const totalLength = udpLength + IPV4_BYTES;
    return (
      this.register ^
      (V4_TOTAL_HIGH[totalLength >>> 8] as number) ^
      (V4_TOTAL_LOW[totalLength & 255] as number) ^
      (V4_ID_HIGH[identification >>> 8] as number) ^
      (V4_ID_LOW[identification & 255] as number) ^
      (V4_UDP_HIGH[udpLength >>> 8] as number) ^
      (V4_UDP_LOW[udpLength & 255] as number)
    );
  }
}

/** Moves the register over a word of four bytes, most significant first. */
function word(value: number, register: number): number {
  register = updateCrc32Byte(value >>> 24, register);
  register = updateCrc32Byte((value >>> 16) & 255, register);
  register = updateCrc32Byte((value >>> 8) & 255, register);
  return updateCrc32Byte(value & 255, register);
}

/** Bytes behind the BTH from which on the injected CRC is worth its call. */
const LONG_BYTES_MIN = 200;

/**
 * Computes and checks ICRCs. One per device; without state of its own but the CRC routine. `bytes`
 * and `view` of every call show the same memory; `offset` is the BTH's, `length` that of the whole
 * UDP payload, ICRC included. Precondition of all: length >= 16. Nothing is allocated, nothing but
 * the ICRC is written.
 */
export class IcrcEngine {
  private readonly longCrc32: Crc32;
  private readonly longBytesMin: number;

  /**
   * @param longCrc32 CRC routine for long payloads; the portable one if none is given.
   * @param longBytesMin bytes from which on to use it.
   */
  constructor(longCrc32: Crc32 = updateCrc32, longBytesMin = LONG_BYTES_MIN) {
    this.longCrc32 = longCrc32;
    this.longBytesMin = longBytesMin;
  }

  /** The ICRC of a packet as a signed 32-bit number. IPv6 ignores `identification`. */
  compute(
    flow: IcrcFlow,
    bytes: Uint8Array,
    view: DataView,
    offset: number,
    length: number,
    identification: number,
  ): number {
    const t = CRC32_TABLES;
    // The BTH, its byte 4 (FECN, BECN, reserved) as ones: eight bytes at once, then four.
    const a = flow.headerRegister(length, identification) ^ view.getInt32(offset, true);
    const b = view.getInt32(offset + 4, true) | 0xff;
    let r =
      (t[1792 + (a & 255)] as number) ^
      (t[1536 + ((a >>> 8) & 255)] as number) ^
      (t[1280 + ((a >>> 16) & 255)] as number) ^
      (t[1024 + (a >>> 24)] as number) ^
      (t[768 + (b & 255)] as number) ^
      (t[512 + ((b >>> 8) & 255)] as number) ^
      (t[256 + ((b >>> 16) & 255)] as number) ^
      (t[b >>> 24] as number);
    const c = r ^ view.getInt32(offset + 8, true);
    r =
      (t[768 + (c & 255)] as number) ^
      (t[512 + ((c >>> 8) & 255)] as number) ^
      (t[256 + ((c >>> 16) & 255)] as number) ^
      (t[c >>> 24] as number);
    const start = offset + BTH_BYTES;
    const end = offset + length - ICRC_BYTES;
    return end - start < this.longBytesMin
      ? ~updateCrc32View(view, start, end, r)
      : ~this.longCrc32(bytes, start, end, r);
  }

  /**
   * Writes the ICRC into the last four bytes of a packet that is complete but for it.
   * @param identification the IPv4 identification that the packet will carry (facts §7.1: the index
   *   of the segment in its GSO send); ignored on IPv6.
   */
  write(
    flow: IcrcFlow,
    bytes: Uint8Array,
    view: DataView,
    offset: number,
    length: number,
    identification: number,
  ): void {
    const icrc = this.compute(flow, bytes, view, offset, length, identification);
    view.setInt32(offset + length - ICRC_BYTES, icrc, true);
  }

  /**
   * Checks a packet when the IPv4 identification is known: all 32 bits must agree.
   * @param identification what the IP header says; ignored on IPv6.
   */
  checkExact(
    flow: IcrcFlow,
    bytes: Uint8Array,
    view: DataView,
    offset: number,
    length: number,
    identification: number,
  ): boolean {
    const received = view.getInt32(offset + length - ICRC_BYTES, true);
    return received === this.compute(flow, bytes, view, offset, length, identification);
  }

  /**
   * Checks a packet whose IPv4 identification can't be seen. On IPv6 all 32 bits are checked.
   * @param guess the likeliest identification; costs nothing when it is wrong.
   */
  check(
    flow: IcrcFlow,
    bytes: Uint8Array,
    view: DataView,
    offset: number,
    length: number,
    guess: number,
  ): IcrcResult {
    const received = view.getInt32(offset + length - ICRC_BYTES, true);
    const difference = received ^ this.compute(flow, bytes, view, offset, length, guess);
    if (difference === 0) {
      flow.identification = guess;
      return ICRC_RESULT.EXACT;
    }
    if (flow.family === 6 || length > ICRC_SOLVABLE_BYTES_MAX) return ICRC_RESULT.BAD;
    return solve(flow, difference, length, guess);
  }
}

/** DF flipped, as `solveHeaderDifference` shows it: bytes 6, 7 in the two upper bytes. */
const DF_DIFFERENCE = 0x0040;

function solve(flow: IcrcFlow, difference: number, length: number, guess: number): IcrcResult {
  const header = solveHeaderDifference(difference, length);
  const fragmentWord = header >>> 16;
  if (fragmentWord !== 0 && fragmentWord !== DF_DIFFERENCE) return ICRC_RESULT.BAD;
  flow.identification = guess ^ ((header & 255) << 8) ^ ((header >>> 8) & 255);
  return fragmentWord === 0 ? ICRC_RESULT.SOLVED : ICRC_RESULT.SOLVED_WITHOUT_DF;
}

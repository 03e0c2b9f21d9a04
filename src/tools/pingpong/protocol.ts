// SPDX-License-Identifier: MIT
// What the pingpong programs tell each other over TCP before the first message: one line each way,
// "lid:qpn:psn:gid" in hexadecimal and a zero, 52 bytes; then the client says "done".

import { FarpageError, IpAddress } from "../../runtime/index.js";

/** TCP port. */
export const PINGPONG_PORT = 18_515;
export const PINGPONG_LINE_BYTES = 52;
/** "done" and its zero. */
export const PINGPONG_DONE = "done\0";
/** Q_Key of the UD queue pairs. */
export const PINGPONG_QKEY = 0x1111_1111;

/** One side's queue pair. */
export interface PingpongEnd {
  readonly qpn: number;
  /** First PSN that it sends. */
  readonly psn: number;
  readonly gid: IpAddress;
}

export function encodePingpongLine(end: PingpongEnd): string {
  const { word0, word1, word2, word3 } = end.gid;
  const gid = [word0, word1, word2, word3].map((word) => hex(word, 8)).join("");
  // The LID has no meaning on Ethernet.
  return `0000:${hex(end.qpn, 6)}:${hex(end.psn, 6)}:${gid}\0`;
}

/**
 * Reads the peer's line.
 * @throws FarpageError EPROTO when it is none, or names an address that nothing can be sent to.
 */
export function decodePingpongLine(bytes: Uint8Array): PingpongEnd {
  const text = Buffer.from(bytes).toString("latin1");
  const match = /^[0-9a-f]{4}:([0-9a-f]{6}):([0-9a-f]{6}):([0-9a-f]{32})\0$/i.exec(text);
  if (match === null || bytes.length !== PINGPONG_LINE_BYTES) {
    throw new FarpageError("EPROTO", "the peer is no pingpong program: its line can't be read");
  }
  const [, qpn = "", psn = "", gid = ""] = match;
  const word = (index: number) => Number.parseInt(gid.slice(8 * index, 8 * index + 8), 16);
  const address = new IpAddress(word(0), word(1), word(2), word(3));
  checkGid(address);
  return { qpn: Number.parseInt(qpn, 16), psn: Number.parseInt(psn, 16), gid: address };
}

function checkGid(gid: IpAddress): void {
  const isNothing = (gid.word0 | gid.word1 | gid.word3) === 0;
  if (isNothing) {
    throw new FarpageError(
      "EPROTO",
      "the peer names no address: start it with -g and the index of its IP address's GID",
    );
  }
  const isMulticast = gid.family === 4 ? gid.word3 >>> 28 === 0xe : gid.word0 >>> 24 === 0xff;
  if (isMulticast) throw new FarpageError("EPROTO", `the peer names ${gid}, a group's address`);
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, "0");
}

// SPDX-License-Identifier: MIT
// What the user of a client session fills in. All are made when the session first connects and then
// reused: nothing is allocated per request.

import type { Memory } from "../../base/index.js";
import { SGE_COUNT_MAX } from "../../verbs/index.js";
import { DataPiece } from "./scatter.js";

/** A work request has one entry more, for message and header. */
const PIECES_MAX = SGE_COUNT_MAX - 1;

/**
 * A request, taken by `RtrsClient.acquire` and given back by `release`. Between the two it belongs
 * to the caller, but for the time from `submitRead`/`submitWrite` to `onRequestComplete`, when
 * neither the request's fields, nor its user message, nor the memory it names may be touched.
 *
 * It takes one of the session's permits, which is a chunk of the server, when it is sent, and gives
 * it back with its answer.
 */
export class ClientRequest {
  /** Its number among the requests of the session, from 0; the lowest that are free are taken. */
  readonly number: number;
  /**
   * Room for the user message, `RtrsClient.userBytesMax` bytes in registered memory. Holds whatever
   * the last user left: write every byte of the message.
   */
  readonly userMessage: Uint8Array;
  readonly userView: DataView;
  /** Bytes of the user message, 0 .. userMessage.length. Set before submitting. */
  userLength = 0;
  /**
   * Where the data comes from (write) or goes (read): memory given to `registerMemory`; may be null
   * when the data length is 0.
   */
  memory: Memory | null = null;
  /** First byte of the data in `memory`. */
  memoryOffset = 0;
  /**
   * The scatter list, for data in up to `pieces.length` places: the first `pieceCount` pieces in a
   * row are the data, and `memory` and `memoryOffset` count for nothing. 0: one place, as above.
   * Their memory is registered, their lengths add up to the data length. Reset to 0 by `release`.
   * A WRITE gathers them without a copy; a READ has one copy to deal its data out to them.
   */
  pieceCount = 0;
  readonly pieces: readonly DataPiece[] = Array.from({ length: PIECES_MAX }, () => new DataPiece());
  /**
   * What becomes of the request when the session is lost before the reply: true, it is kept and
   * re-issued by `RtrsClient.reissue`; false, it completes with ECONNRESET. While the session is
   * down a submit with true waits, one with false completes with ENOTCONN. As long as a path is
   * left, both kinds go on by that, and may so be executed twice. Reset to true by `acquire`.
   */
  retry = true;
  /** The caller's own. */
  context: unknown = null;
  /** After completion: 0 or a positive Linux errno, the server's or one of RTRS itself. */
  errno = 0;
  /** Data bytes of the last submit. */
  dataLength = 0;
  /** Whether the last submit was a READ. */
  isRead = false;
  /** Times this request was issued again since it was submitted; 0 = the first issue. */
  reissueCount = 0;

  constructor(number: number, userMessage: Uint8Array) {
    this.number = number;
    this.userMessage = userMessage;
    this.userView = new DataView(
      userMessage.buffer,
      userMessage.byteOffset,
      userMessage.byteLength,
    );
  }

  /** Internal: whether the pieces, if there are any, hold `dataLength` bytes. */
  holds(dataLength: number): boolean {
    if (this.pieceCount === 0) return true;
    let length = 0;
    for (let i = 0; i < this.pieceCount; i++) length += (this.pieces[i] as DataPiece).length;
    return this.pieceCount <= PIECES_MAX && length === dataLength;
  }

  /** Internal: lets go of what it was about. */
  clear(): void {
    this.context = null;
    this.memory = null;
    for (let i = 0; i < this.pieceCount; i++) (this.pieces[i] as DataPiece).memory = null;
    this.pieceCount = 0;
  }
}

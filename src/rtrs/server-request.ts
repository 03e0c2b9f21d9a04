// SPDX-License-Identifier: MIT
import type { Memory } from "../base/index.js";
import type { ServerSession } from "./server-session.js";

/** Who sends the reply of a request. */
export interface ServerRequestOwner {
  reply(request: ServerRequest, errno: number, dataLength: number): void;
}

/**
 * One chunk of a server path with the request that is in it. Made with the path and reused; it and
 * its chunk belong to the user from `onRequest` to `complete`.
 */
export class ServerRequest {
  readonly session: ServerSession;
  /** Number of the chunk within its path. */
  readonly chunk: number;
  /**
   * The user message: a copy in memory that the client cannot reach, made once. `userLength` bytes
   * are this request's; what follows is left over.
   */
  readonly userMessage: Uint8Array;
  readonly userView: DataView;
  userLength = 0;
  /** READ: the user fills the data; WRITE: the data is there. */
  isRead = false;
  /**
   * Where the data is: `dataLength` bytes of `memory` from `memoryOffset` on; in the chunk, or in
   * memory that the client can't reach.
   */
  memory: Memory;
  memoryOffset: number;
  /** Bytes of data that the request is about, 0 .. `RtrsServer.maxIoBytes`. */
  dataLength = 0;
  /** The user's own; kept from one request of this chunk to the next. */
  context: unknown = null;
  private readonly owner: ServerRequestOwner;

  constructor(
    owner: ServerRequestOwner,
    session: ServerSession,
    chunk: number,
    userMessage: Uint8Array,
    memory: Memory,
    memoryOffset: number,
  ) {
    this.owner = owner;
    this.session = session;
    this.chunk = chunk;
    this.userMessage = userMessage;
    this.userView = new DataView(
      userMessage.buffer,
      userMessage.byteOffset,
      userMessage.byteLength,
    );
    this.memory = memory;
    this.memoryOffset = memoryOffset;
  }

  /**
   * Answers, exactly once; the request and its chunk are no longer the user's.
   * @param errno 0 or a positive Linux errno below 512.
   * @param dataLength READ with errno 0: bytes of the chunk to give to the client, at most
   *   `dataLength` of the request, which is the default. The client gets fewer where its buffer is
   *   shorter.
   */
  complete(errno: number, dataLength: number = this.dataLength): void {
    this.owner.reply(this, errno, dataLength);
  }
}

// SPDX-License-Identifier: MIT
import { ACCESS, type ProtectionDomain } from "../../verbs/index.js";
import { Area } from "../area.js";
import type { ToolEnvironment } from "../environment.js";
import { Queues } from "../queues.js";
import { RPING_MESSAGE_BYTES } from "./protocol.js";

/** What is posted: the completion says which. */
export const RPING_WR = { RECEIVE: 1, SEND: 2, READ: 3, WRITE: 4 } as const;

const NAMES: Readonly<Record<number, string>> = {
  [RPING_WR.RECEIVE]: "the receive",
  [RPING_WR.SEND]: "the SEND",
  [RPING_WR.READ]: "the READ of the client's buffer",
  [RPING_WR.WRITE]: "the WRITE to the client's buffer",
};

/** Where the messages are in the area. */
const RECEIVED_OFFSET = 0;
const SENT_OFFSET = RPING_MESSAGE_BYTES;

/** One side's queue pair and the two messages of 16 bytes. */
export class RpingSide implements Disposable {
  readonly queues: Queues;
  readonly messages: Area;
  readonly receivedOffset = RECEIVED_OFFSET;
  readonly sentOffset = SENT_OFFSET;
  private readonly timeoutMs: number;

  constructor(environment: ToolEnvironment, pd: ProtectionDomain, timeoutMs: number) {
    this.timeoutMs = timeoutMs;
    this.queues = new Queues(environment, pd, {
      type: "RC",
      sendDepth: 4,
      receiveDepth: 2,
      describe: (wrId) => NAMES[wrId] ?? "a request",
    });
    try {
      this.messages = new Area(environment, pd, 2 * RPING_MESSAGE_BYTES);
    } catch (error) {
      this.queues.destroy();
      throw error;
    }
  }

  postReceive(): void {
    this.queues.poster.receive({
      area: this.messages,
      offset: RECEIVED_OFFSET,
      length: RPING_MESSAGE_BYTES,
      wrId: RPING_WR.RECEIVE,
    });
  }

  postSend(): void {
    this.queues.poster.send({
      area: this.messages,
      offset: SENT_OFFSET,
      length: RPING_MESSAGE_BYTES,
      wrId: RPING_WR.SEND,
    });
  }

  /** Waits for one request of each kind that is named. @returns the last one's bytes. */
  async completed(...wrIds: readonly number[]): Promise<number> {
    let byteLength = 0;
    for (const wrId of wrIds) {
      const wc = await this.queues.reader.of(wrId, { timeoutMs: this.timeoutMs });
      byteLength = wc.byteLength;
    }
    return byteLength;
  }

  /** Preconditions: the queue pair is destroyed or was never connected. */
  [Symbol.dispose](): void {
    this.queues.destroy();
    this.messages.free();
  }
}

/** Rights of the client's buffers: the server READs one and WRITEs the other. */
export const RPING_ACCESS = ACCESS.LOCAL_WRITE | ACCESS.REMOTE_READ | ACCESS.REMOTE_WRITE;

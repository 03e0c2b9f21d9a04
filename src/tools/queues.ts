// SPDX-License-Identifier: MIT
import type { CompletionQueue, ProtectionDomain, QueuePair } from "../verbs/index.js";
import { Poster } from "./area.js";
import { CompletionReader } from "./completions.js";
import type { ToolEnvironment } from "./environment.js";

export interface QueueOptions {
  readonly type: "RC" | "UD";
  /** Sends and receives that can be posted at a time. */
  readonly sendDepth: number;
  readonly receiveDepth: number;
  /** What a request was, by its wrId; for the error when it fails. */
  readonly describe: (wrId: number) => string;
}

/** A queue pair in RESET with a completion queue of its own, who posts there and who waits. */
export class Queues implements Disposable {
  readonly qp: QueuePair;
  readonly reader: CompletionReader;
  readonly poster: Poster;
  private readonly cq: CompletionQueue;

  /** @throws FarpageError EINVAL for depths beyond the device's, ENOMEM. */
  constructor(environment: ToolEnvironment, pd: ProtectionDomain, options: QueueOptions) {
    const { sendDepth, receiveDepth } = options;
    this.cq = pd.context.createCq({ depth: sendDepth + receiveDepth });
    try {
      this.qp = pd.createQp({
        type: options.type,
        sendCq: this.cq,
        recvCq: this.cq,
        maxSendWr: sendDepth,
        maxRecvWr: receiveDepth,
      });
    } catch (error) {
      this.cq.destroy();
      throw error;
    }
    this.reader = new CompletionReader(environment, this.cq, options.describe);
    this.poster = new Poster(this.qp);
  }

  /** Ends the waits for what has not completed by now. */
  fail(error: unknown): void {
    this.reader.fail(error);
  }

  destroy(): void {
    this.qp.destroy();
    this.cq.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }
}

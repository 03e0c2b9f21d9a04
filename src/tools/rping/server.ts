// SPDX-License-Identifier: MIT
// `rping -s`: READs a client's buffer, WRITEs it to another one of the client's, again and again.

import type { CmEvent } from "../../cm/index.js";
import { FarpageError } from "../../runtime/index.js";
import type { ProtectionDomain } from "../../verbs/index.js";
import { Area } from "../area.js";
import { CmDesk } from "../cm-desk.js";
import type { ToolEnvironment } from "../environment.js";
import { firstDifference } from "../pattern.js";
import type { RpingResult } from "./client.js";
import { RPING_WR, RpingSide } from "./memory.js";
import {
  decodeRpingBuffer,
  fillPing,
  pingText,
  RPING_PORT,
  RPING_SIZE_MAX,
  type RpingBuffer,
} from "./protocol.js";

export interface RpingServerOptions {
  /** Default 7174. */
  readonly port?: number;
  /** Serve clients, many at a time, until the user stops it; else the first one and no other. */
  readonly persistent: boolean;
  /** Compare each ping with the text that a stock client writes. */
  readonly validate: boolean;
  readonly showPings: boolean;
  /** How long a client may take for its next message. */
  readonly timeoutMs: number;
}

/** Clients that a persistent server serves at a time; further ones are refused. */
const CLIENTS_MAX = 256;

/**
 * Serves rping clients, stock or ours.
 * @throws FarpageError EADDRINUSE, EINTR; not persistent: what went wrong with it, ETIMEDOUT
 *   when it says nothing, EPROTO and EMSGSIZE for messages not rping's, EILSEQ for another text.
 */
export async function runRpingServer(
  environment: ToolEnvironment,
  options: RpingServerOptions,
): Promise<void> {
  using desk = new CmDesk(environment);
  const pd = environment.host.openDevice().allocPd();
  const listener = desk.listen({ port: options.port ?? RPING_PORT });
  const { addresses } = environment.host;
  environment.report(
    "ready",
    { addresses, port: listener.port },
    `rping server on ${addresses.join(", ")}, port ${listener.port}`,
  );
  const server = new RpingServer(environment, options, desk, pd);
  if (!options.persistent) {
    const request = await desk.request();
    listener.close();
    await server.serve(request);
    return;
  }
  await server.serveAll();
}

class RpingServer {
  private readonly environment: ToolEnvironment;
  private readonly options: RpingServerOptions;
  private readonly desk: CmDesk;
  private readonly pd: ProtectionDomain;
  private clientCount = 0;

  constructor(
    environment: ToolEnvironment,
    options: RpingServerOptions,
    desk: CmDesk,
    pd: ProtectionDomain,
  ) {
    this.environment = environment;
    this.options = options;
    this.desk = desk;
    this.pd = pd;
  }

  async serveAll(): Promise<never> {
    const { report } = this.environment;
    for (;;) {
      const request = await this.desk.request();
      const client = String(request.id.remoteAddress);
      if (this.clientCount >= CLIENTS_MAX) {
        this.desk.refuse(request);
        report("refused", { client }, `${client}: refused, ${CLIENTS_MAX} are served already`);
        continue;
      }
      this.clientCount++;
      void this.serve(request)
        .catch((error) => {
          // One that could not be taken, for want of memory, waits for an answer.
          this.desk.refuse(request);
          const code = error instanceof FarpageError ? error.code : "EBUG";
          const text = error instanceof Error ? error.message : String(error);
          report("failed", { client, code, text }, `${client}: ${text}`);
        })
        .finally(() => {
          this.clientCount--;
        });
    }
  }

  /** Serves one client until it leaves. */
  async serve(request: CmEvent): Promise<void> {
    const { environment, options, pd } = this;
    using side = new RpingSide(environment, pd, options.timeoutMs);
    using buffer = new Area(environment, pd, RPING_SIZE_MAX);
    using link = this.desk.take(request, side.queues);
    side.postReceive();
    await link.accept();
    const client = link.peer;
    environment.report("connected", { client }, `${client} has connected`);
    const result: RpingResult = { pings: 0, bytes: 0, seconds: 0 };
    const startMs = performance.now();
    try {
      for (;;) await this.pong(side, buffer, result);
    } catch (error) {
      if (!(error instanceof FarpageError) || error.code !== "ENOTCONN") throw error;
    }
    result.seconds = (performance.now() - startMs) / 1000;
    const verified = options.validate;
    environment.report(
      "done",
      { client, ...result, verified },
      `${client}: ${result.pings} pings, ${result.bytes} bytes read and written in ` +
        `${result.seconds.toFixed(3)} s, ${verified ? "every byte compared" : "not compared"}`,
    );
  }

  /** One ping of the client's. */
  private async pong(side: RpingSide, buffer: Area, result: RpingResult): Promise<void> {
    const source = await this.told(side);
    const { poster } = side.queues;
    poster.read({ area: buffer, length: source.length, wrId: RPING_WR.READ }, source);
    await side.completed(RPING_WR.READ);
    const text = buffer.bytes.subarray(0, source.length);
    this.look(text, result.pings);
    side.postSend();
    const sink = await this.told(side);
    await side.completed(RPING_WR.SEND);
    const length = Math.min(source.length, sink.length);
    poster.write({ area: buffer, length, wrId: RPING_WR.WRITE }, sink);
    await side.completed(RPING_WR.WRITE);
    side.postSend();
    await side.completed(RPING_WR.SEND);
    result.pings++;
    result.bytes += source.length + length;
  }

  /** The client's next message, and a receive for the one after it. */
  private async told(side: RpingSide): Promise<RpingBuffer> {
    const byteLength = await side.completed(RPING_WR.RECEIVE);
    const told = decodeRpingBuffer(side.messages.view, side.receivedOffset, byteLength);
    side.postReceive();
    return told;
  }

  private look(text: Uint8Array, ping: number): void {
    const { environment, options } = this;
    if (options.showPings) {
      const shown = pingText(text);
      environment.report("ping", { ping, text: shown }, `server ping data: ${shown}`);
    }
    if (!options.validate || text.length === 0) return;
    const expected = new Uint8Array(text.length);
    fillPing(expected, ping);
    const at = firstDifference(text, expected);
    if (at < 0) return;
    throw new FarpageError(
      "EILSEQ",
      `ping ${ping} is not what a client writes: byte ${at} is ${text[at]}, not ${expected[at]}`,
    );
  }
}

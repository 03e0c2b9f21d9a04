// SPDX-License-Identifier: MIT
// `rping -c`: offers a buffer to be read, and one to be written, and compares them.

import { FarpageError, type IpAddress } from "../../runtime/index.js";
import { Area } from "../area.js";
import { CmDesk, type CmLink } from "../cm-desk.js";
import type { ToolEnvironment } from "../environment.js";
import { firstDifference } from "../pattern.js";
import { RPING_ACCESS, RPING_WR, RpingSide } from "./memory.js";
import {
  checkMessage,
  encodeRpingBuffer,
  fillPing,
  pingText,
  RPING_PORT,
  RPING_SIZE_MAX,
} from "./protocol.js";

export interface RpingClientOptions {
  readonly server: IpAddress;
  /** Default 7174. */
  readonly port?: number;
  /** Pings; 0: until the user stops it. */
  readonly count: number;
  /** Bytes of a ping, 1 .. 65,535. */
  readonly size: number;
  /** Compare what comes back with what went. */
  readonly validate: boolean;
  /** Tell the text of each ping. */
  readonly showPings: boolean;
  /** How long the server may take for an answer. */
  readonly timeoutMs: number;
}

/** What a run has done. */
export interface RpingResult {
  pings: number;
  /** Bytes read and written. */
  bytes: number;
  seconds: number;
}

/**
 * Pings a server, stock or ours.
 * @throws FarpageError ECONNREFUSED, ETIMEDOUT, ENOTCONN when the server leaves, EILSEQ when other
 *   bytes come back, EINTR; a completion status' name when a request fails.
 */
export async function runRpingClient(
  environment: ToolEnvironment,
  options: RpingClientOptions,
): Promise<RpingResult> {
  const { size } = options;
  if (!Number.isInteger(size) || size < 1 || size > RPING_SIZE_MAX) {
    throw new FarpageError("EINVAL", `a ping has 1 .. ${RPING_SIZE_MAX} bytes, not ${size}`);
  }
  using desk = new CmDesk(environment);
  const pd = environment.host.openDevice().allocPd();
  using side = new RpingSide(environment, pd, options.timeoutMs);
  using source = new Area(environment, pd, size, RPING_ACCESS);
  using sink = new Area(environment, pd, size, RPING_ACCESS);
  using link = desk.open({
    destination: options.server,
    port: options.port ?? RPING_PORT,
    makeQueues: () => side.queues,
  });
  side.postReceive();
  await link.connect({
    responderResources: 1,
    initiatorDepth: 1,
    retryCount: 7,
    rnrRetryCount: 7,
    timeoutNs: options.timeoutMs * 1e6,
  });
  environment.report("connected", { peer: link.peer }, `connected to ${link.peer}`);
  // Awaited here: what is in use must outlive it.
  return await ping(environment, options, { link, side, source, sink });
}

interface Parts {
  readonly link: CmLink;
  readonly side: RpingSide;
  readonly source: Area;
  readonly sink: Area;
}

async function ping(
  environment: ToolEnvironment,
  options: RpingClientOptions,
  parts: Parts,
): Promise<RpingResult> {
  const { link, source, sink } = parts;
  const result: RpingResult = { pings: 0, bytes: 0, seconds: 0 };
  const startMs = performance.now();
  const tell = (interrupted: boolean) => {
    result.seconds = (performance.now() - startMs) / 1000;
    const fields = { ...result, size: options.size, verified: options.validate, interrupted };
    environment.report("done", fields, summary(result, options));
  };
  try {
    while (options.count === 0 || result.pings < options.count) {
      const text = source.bytes.subarray(0, options.size);
      fillPing(text, result.pings);
      await exchange(parts, source, options.size);
      await exchange(parts, sink, options.size);
      const echo = sink.bytes.subarray(0, options.size);
      if (options.validate) compare(text, echo, result.pings);
      if (options.showPings) {
        const shown = pingText(echo);
        environment.report("ping", { ping: result.pings, text: shown }, `ping data: ${shown}`);
      }
      result.pings++;
      result.bytes += 2 * options.size;
    }
  } catch (error) {
    if (error instanceof FarpageError && error.code === "EINTR") tell(true);
    throw error;
  }
  tell(false);
  await link.disconnect();
  return result;
}

/** Tells the server of a buffer and waits until it says that it is done with it. */
async function exchange(parts: Parts, buffer: Area, length: number): Promise<void> {
  const { side } = parts;
  encodeRpingBuffer(side.messages.view, side.sentOffset, {
    address: buffer.mr.address,
    rkey: buffer.mr.rkey,
    length,
  });
  side.postSend();
  checkMessage(await side.completed(RPING_WR.SEND, RPING_WR.RECEIVE));
  side.postReceive();
}

function compare(sent: Uint8Array, came: Uint8Array, ping: number): void {
  const at = firstDifference(came, sent);
  if (at < 0) return;
  throw new FarpageError(
    "EILSEQ",
    `ping ${ping} came back wrong: byte ${at} is ${came[at]}, was ${sent[at]}`,
  );
}

function summary(result: RpingResult, options: RpingClientOptions): string {
  const verified = options.validate ? "every byte compared" : "not compared";
  return (
    `${result.pings} pings of ${options.size} bytes, ${result.bytes} bytes read and written in ` +
    `${result.seconds.toFixed(3)} s, ${verified}`
  );
}

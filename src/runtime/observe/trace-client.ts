// SPDX-License-Identifier: MIT
// The asking side of a trace: receives pcapng from an instance and hands it on.

import { FarpageError } from "../../base/index.js";
import { BlockWalker } from "../../trace/index.js";
import { ControlClient, type Instance } from "./control-client.js";
import type { TraceControlRequest } from "./protocol.js";

/** How long an instance that was told to stop may be silent before the end. */
const END_MS = 10_000;

/** How a trace went. */
export interface TraceResult {
  /** Packets in it, and packets that it lacks because it was taken too slowly. */
  readonly packetCount: number;
  readonly droppedCount: number;
  /** Whether it has its end: false when the instance is gone, or does not answer any more. */
  readonly isComplete: boolean;
}

/**
 * Traces an instance until it has sent as many packets as were asked for, `stop` settles, or it
 * ends.
 * @param write takes bytes, borrowed until its promise settles; when it rejects the trace is over.
 *   All that it has taken are whole blocks: a file that readers can read, whatever comes next.
 * @param options.endMs how long the instance may be silent after `stop`; default ten seconds.
 * @throws FarpageError what the instance refuses with; EPROTO when it sends no trace; what `write`
 *   rejects with.
 */
export async function receiveTrace(
  instance: Instance,
  request: Omit<TraceControlRequest, "request">,
  write: (bytes: Uint8Array) => Promise<void>,
  stop: Promise<unknown>,
  options: { readonly onStarted?: () => void; readonly endMs?: number } = {},
): Promise<TraceResult> {
  const client = await ControlClient.connect(instance.path);
  const walker = new BlockWalker();
  /** The beginning of a block. */
  let rest: Buffer = Buffer.alloc(0);
  try {
    await client.ask({ ...request, request: "trace" });
    options.onStarted?.();
    void stop.then(() => {
      client.say({ request: "stop" });
      client.endAfterSilence(options.endMs ?? END_MS);
    });
    for await (const bytes of client.bytes()) {
      const writtenBytes = walker.wholeBytes;
      walker.push(bytes);
      if (walker.isBroken) throw new FarpageError("EPROTO", "what the instance sends is no trace");
      const pending = rest.length === 0 ? bytes : Buffer.concat([rest, bytes]);
      const count = walker.wholeBytes - writtenBytes;
      if (count > 0) await write(pending.subarray(0, count));
      rest = pending.subarray(count);
    }
  } finally {
    client.close();
  }
  const { packetCount, droppedCount, statisticsCount } = walker;
  return { packetCount, droppedCount, isComplete: statisticsCount > 0 };
}

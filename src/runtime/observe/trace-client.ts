// SPDX-License-Identifier: MIT
// The asking side of a trace: receives pcapng from an instance and hands it on.

import { BlockWalker } from "../../trace/index.js";
import { ControlClient, type Instance } from "./control-client.js";
import type { TraceControlRequest } from "./protocol.js";

/** How a trace went. */
export interface TraceResult {
  /** Packets in it, and packets that it lacks because it was taken too slowly. */
  readonly packetCount: number;
  readonly droppedCount: number;
  /** Bytes up to the end of the last whole block. */
  readonly wholeBytes: number;
  /** Whether it has its end: false when the instance ended in the middle of it. */
  readonly isComplete: boolean;
}

/**
 * Traces an instance until it has sent as many packets as were asked for, `stop` settles, or it
 * ends.
 * @param write takes bytes, borrowed until its promise settles; when it rejects the trace is over.
 * @throws FarpageError what the instance refuses with; what `write` rejects with.
 */
export async function receiveTrace(
  instance: Instance,
  request: Omit<TraceControlRequest, "request">,
  write: (bytes: Uint8Array) => Promise<void>,
  stop: Promise<unknown>,
  onStarted: () => void = () => {},
): Promise<TraceResult> {
  const client = await ControlClient.connect(instance.path);
  const walker = new BlockWalker();
  try {
    await client.ask({ ...request, request: "trace" });
    onStarted();
    void stop.then(() => client.say({ request: "stop" }));
    for await (const bytes of client.bytes()) {
      walker.push(bytes);
      await write(bytes);
    }
  } finally {
    client.close();
  }
  const { packetCount, droppedCount, wholeBytes } = walker;
  const isComplete = walker.statisticsCount > 0 && !walker.isBroken;
  return { packetCount, droppedCount, wholeBytes, isComplete };
}

// SPDX-License-Identifier: MIT
// `farpage trace`: what a running instance sends and receives, as pcapng.

import {
  FarpageError,
  type Instance,
  openTraceFile,
  receiveTrace,
  type TraceSink,
} from "../runtime/index.js";
import { findInstance } from "./instances.js";
import { checkOptions, TRACE_OPTIONS } from "./options.js";
import type { Reporter } from "./reporter.js";
import { StopSignal } from "./signals.js";
import { statisticsOfInstance } from "./stat.js";

/** Commands whose RC connections are RTRS'. */
const RTRS_COMMANDS: ReadonlySet<string> = new Set(["up", "serve", "attach", "copy"]);
/** Queue depth of a farpage server's sessions, by default. */
const DEPTH = 128;

/** Where the bytes go. */
interface Output extends TraceSink {
  /** Told to people; null: to standard output, which is the trace's own. */
  readonly name: string | null;
  /** Settles when nobody reads any more. */
  readonly gone: Promise<void>;
}

export async function runTrace(
  target: string | undefined,
  raw: unknown,
  reporter: Reporter,
): Promise<void> {
  const options = checkOptions(TRACE_OPTIONS, raw);
  if (options.json && options.write === "-") {
    throw new FarpageError("EINVAL", "--json and --write - both want standard output");
  }
  const stop = new StopSignal();
  const instance = await findInstance(target, options.data);
  const rtrsQpns = await rtrsQpnsOf(instance);
  const output = options.write === "-" ? standardOutput() : await fileAt(options.write);
  const peers = options.filter.flatMap((part) => (typeof part === "number" ? [] : [String(part)]));
  const qpns = options.filter.filter((part) => typeof part === "number");
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<void>((resolve) => {
    if (options.duration !== undefined) timer = setTimeout(resolve, options.duration * 1000);
    void stop.wait(new Promise<never>(() => {})).then(() => resolve());
    void output.gone.then(resolve);
  });
  const request = {
    ...(peers.length === 0 ? {} : { peers }),
    ...(qpns.length === 0 ? {} : { qpns }),
    ...(options.packets === undefined ? {} : { packets: options.packets }),
    ...(options.snap === undefined ? {} : { snapBytes: options.snap }),
    ...(options.buffer === undefined ? {} : { ringBytes: options.buffer }),
  };
  try {
    const result = await receiveTrace(instance, request, (bytes) => output.write(bytes), over, {
      onStarted: () => tellStart(instance, rtrsQpns, output, reporter),
    });
    const { packetCount: packets, droppedCount: dropped, isComplete } = result;
    const lost = dropped === 0 ? "" : `; ${dropped} more came too fast and are not in it`;
    const text = `${packets} packets${lost}`;
    if (output.name === null) {
      process.stderr.write(`farpage: ${text}\n`);
    } else {
      reporter.event("traced", { file: output.name, packets, dropped, isComplete }, text);
    }
    if (!isComplete) {
      reporter.warn("the trace lacks its end: the instance is gone, or does not answer any more");
    }
  } catch (error) {
    // Whoever read standard output has seen enough.
    if ((error as NodeJS.ErrnoException).code !== "EPIPE") throw error;
  } finally {
    clearTimeout(timer);
    await output.end();
  }
}

/**
 * QPNs, both ends', of the RTRS connections that are up already: the trace lacks their set-up, from
 * which the dissector would know them.
 */
async function rtrsQpnsOf(instance: Instance): Promise<readonly number[]> {
  if (!RTRS_COMMANDS.has(instance.name)) return [];
  const { queuePairs } = await statisticsOfInstance(instance);
  return queuePairs.flatMap(({ type, qpn, peerQpn }) =>
    type === "RC" && peerQpn !== null ? [qpn, peerQpn] : [],
  );
}

function tellStart(
  instance: Instance,
  rtrsQpns: readonly number[],
  output: Output,
  reporter: Reporter,
): void {
  const { pid, name, addresses } = instance;
  const lines = [`tracing ${name} (process ${pid}) on ${addresses.join(", ")}; Ctrl-C ends it`];
  if (rtrsQpns.length > 0) {
    const names = rtrsQpns.map((qpn) => `0x${qpn.toString(16)}`);
    lines.push(
      "for RTRS by name, as its connections are up already (docs/trace.md): tshark " +
        `-X lua_script:docs/wireshark/rtrs.lua -o rtrs.qps:${names} -o rtrs.depth:${DEPTH}`,
    );
  }
  if (output.name === null) {
    for (const line of lines) process.stderr.write(`farpage: ${line}\n`);
  } else {
    const fields = { pid, name, addresses, file: output.name, rtrsQpns };
    reporter.event("tracing", fields, lines.join("\n"));
  }
}

async function fileAt(path: string): Promise<Output> {
  return { name: path, gone: new Promise(() => {}), ...(await openTraceFile(path)) };
}

function standardOutput(): Output {
  const { stdout } = process;
  if (stdout.isTTY) {
    throw new FarpageError("EINVAL", "--write -: a trace is no text; send it to tshark or a file");
  }
  return {
    name: null,
    gone: new Promise((resolve) => stdout.once("error", () => resolve())),
    write: (bytes) =>
      new Promise((resolve, reject) => {
        stdout.write(bytes, (error) => (error ? reject(error) : resolve()));
      }),
    end: async () => {},
  };
}

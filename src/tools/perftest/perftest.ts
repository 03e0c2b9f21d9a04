// SPDX-License-Identifier: MIT
// perftest, either side: ib_write_bw, ib_read_bw, ib_send_bw, ib_atomic_bw and their _lat
// counterparts. docs/perftest.md has the protocol.

import type { ToolEnvironment } from "../environment.js";
import {
  type BandwidthFigures,
  bandwidthOf,
  figuresOf,
  headingOf,
  type LatencyFigures,
  latencyOf,
  lineOf,
  reportOf,
  sumOf,
} from "./figures.js";
import { decodeReport, encodeReport, REPORT_PARTS } from "./messages.js";
import { checkPerfOptions, isOneSided, type PerfOptions, sizesOf, stockName } from "./options.js";
import { Session } from "./session.js";
import { type Arrivals, ByteArrivals, ReceiveArrivals, Sink, Stream, Turns } from "./traffic.js";

export type PerfFigures = BandwidthFigures | LatencyFigures;

/** perftest's completion moderation: one in so many, of messages up to so many bytes. */
const SIGNAL_EVERY = 100;
const SIGNAL_EVERY_BYTES_MAX = 8192;

/**
 * Runs one test with one peer, and tells by `environment.report`: "listening" (server),
 * "connected", "result" for each size.
 * @returns the figures of each size; none where the client alone measures latency.
 * @throws FarpageError EINVAL for options that don't go together; what `Session.open` and
 *   `Traffic.run` throw.
 */
export async function runPerftest(
  environment: ToolEnvironment,
  options: PerfOptions,
): Promise<PerfFigures[]> {
  checkPerfOptions(options);
  using session = await Session.open(environment, options);
  const { remoteVersion, mtu } = session.agreement;
  const peer = session.exchange.remoteAddress;
  environment.report(
    "connected",
    {
      test: stockName(options),
      peer,
      version: remoteVersion,
      mtu,
      gid: String(session.remote.gid),
    },
    `${stockName(options)} with ${peer} (perftest ${remoteVersion}), MTU ${mtu}`,
  );
  if (!session.isClient && isOneSided(options) && !options.bidirectional) {
    return await serve(session);
  }
  const figures: PerfFigures[] = [];
  for (const size of sizesOf(options, mtu)) figures.push(await measure(session, size));
  await partWays(session, figures);
  return figures;
}

/** The passive side of a one-sided test: waits, and hears what the client found. */
async function serve(session: Session): Promise<PerfFigures[]> {
  await session.meet({ isPatient: true });
  const figures: PerfFigures[] = [];
  if (session.options.kind === "bw") {
    const figure = figuresOf(decodeReport(await hearReport(session)));
    tell(session, figure, true);
    figures.push(figure);
    await session.meet();
  }
  await session.finish();
  return figures;
}

async function measure(session: Session, size: number): Promise<PerfFigures> {
  const { options } = session;
  const figure =
    options.kind === "lat"
      ? await measureLatency(session, size)
      : await measureBandwidth(session, size);
  const together = options.bidirectional
    ? sumOf(figure as BandwidthFigures, figuresOf(decodeReport(await swapReport(session, figure))))
    : figure;
  tell(session, together, size === sizesOf(options, session.agreement.mtu)[0]);
  return together;
}

async function measureBandwidth(session: Session, size: number): Promise<BandwidthFigures> {
  const { options, qp, environment, lost } = session;
  const { iterations } = options;
  const sends = session.isClient || options.bidirectional;
  const receives = options.verb === "send" && (!session.isClient || options.bidirectional);
  const depth =
    options.durationMs === undefined ? Math.min(options.txDepth, iterations) : options.txDepth;
  const sink = receives
    ? new Sink({
        qp,
        cq: session.recvCq,
        wr: session.receive(),
        iterations,
        depth: options.rxDepth,
      })
    : null;
  const stream = sends
    ? new Stream({
        qp,
        cq: session.sendCq,
        wr: session.request(size),
        iterations,
        durationMs: options.durationMs,
        depth,
        signalEvery: size > SIGNAL_EVERY_BYTES_MAX ? 1 : Math.min(SIGNAL_EVERY, depth),
      })
    : null;
  if (options.verb === "send" || options.bidirectional) await session.meet({ isPatient: true });
  try {
    await Promise.all([sink?.run(environment, lost), stream?.run(environment, lost)]);
  } finally {
    sink?.stop();
    stream?.stop();
  }
  // Stock 6.06: of all sizes each ends with a meeting as well, the last one too.
  if (options.verb === "send" && options.size === "all") await session.meet({ isPatient: true });
  const measured = stream ?? sink;
  return bandwidthOf(
    size,
    stream?.count ?? iterations,
    (measured?.endNs ?? 0) - (measured?.startNs ?? 0),
  );
}

async function measureLatency(session: Session, size: number): Promise<LatencyFigures> {
  const { options, qp, environment, lost, isClient } = session;
  const { iterations, verb } = options;
  const arrivals = arrivalsOf(session, size);
  if (verb === "send") await session.meet({ isPatient: true });
  const turns = new Turns({
    qp,
    cq: session.sendCq,
    wr: session.request(size),
    iterations,
    isFirst: verb === "write" ? !isClient : isClient,
    arrivals,
  });
  await turns.run(environment, lost);
  return latencyOf(size, turns.postedNs, arrivals !== null);
}

function arrivalsOf(session: Session, size: number): Arrivals | null {
  const { options, qp, memory, spanBytes } = session;
  if (options.verb === "write") {
    return new ByteArrivals(memory.bytes, size - 1, spanBytes + size - 1);
  }
  if (options.verb !== "send") return null;
  const { rxDepth: depth, iterations } = options;
  return new ReceiveArrivals({ qp, cq: session.recvCq, wr: session.receive(), depth, iterations });
}

/** The meetings after a test, which differ from test to test. */
async function partWays(session: Session, figures: readonly PerfFigures[]): Promise<void> {
  const { verb, kind, bidirectional } = session.options;
  if (verb === "write" && kind === "lat") {
    await session.leave();
    return;
  }
  const last = figures.at(-1);
  if (kind === "bw" && verb !== "send" && !bidirectional && last !== undefined) {
    await session.meet();
    await swapReport(session, last);
  }
  await session.meet({ isPatient: true });
  await session.finish();
}

/** @returns what the peer says; worth something only where it measured. */
async function swapReport(session: Session, figure: PerfFigures): Promise<Uint8Array[]> {
  const theirs: Uint8Array[] = [];
  for (const part of encodeReport(reportOf(figure as BandwidthFigures))) {
    theirs.push(await session.exchange.swap(part, { timeoutMs: Number.POSITIVE_INFINITY }));
  }
  return theirs;
}

async function hearReport(session: Session): Promise<Uint8Array[]> {
  const theirs: Uint8Array[] = [];
  while (theirs.length < REPORT_PARTS) theirs.push(await session.exchange.swap(new Uint8Array(8)));
  return theirs;
}

function tell(session: Session, figures: PerfFigures, isFirst: boolean): void {
  const { options, environment } = session;
  const heading = isFirst ? `${headingOf(options.kind)}\n` : "";
  const fields = { test: stockName(options), ...figures };
  environment.report("result", fields, `${heading}${lineOf(figures)}`);
}

// SPDX-License-Identifier: MIT
// `farpage copy`: files to a server's folder, or from there.

import {
  type CopyClientOptions,
  type CopyStatus,
  FarpageError,
  formatSize,
  parseRtrsUri,
  type RtrsUri,
  runCopyClient,
} from "../runtime/index.js";
import { createLog } from "./log.js";
import { observing } from "./observe.js";
import { COPY_OPTIONS, checkOptions } from "./options.js";
import { ProgressLine } from "./progress-line.js";
import type { Reporter } from "./reporter.js";
import { StopSignal } from "./signals.js";

/** Problems that are told one by one; of the others there is a number at the end. */
const PROBLEMS_TOLD_MAX = 100;

export async function runCopy(
  what: readonly string[],
  raw: unknown,
  reporter: Reporter,
): Promise<void> {
  const options = checkOptions(COPY_OPTIONS, raw);
  const { server, job } = jobOf(what);
  const stop = new StopSignal();
  const line = new ProgressLine(options.quiet || reporter.json);
  let problemCount = 0;
  let code = "";
  const startMs = performance.now();
  let status: CopyStatus;
  try {
    status = await runCopyClient({
      server,
      what: job,
      ...(options.address === undefined ? {} : { address: options.address }),
      connectionCount: options.connections,
      timeoutMs: options.timeout * 1000,
      onProgress: (now) => {
        line.show(now);
        if (reporter.json && !options.quiet) reporter.event("progress", { ...now }, null);
      },
      onProblem: (path, why, isRemote) => {
        if (code === "") code = why;
        if (++problemCount > PROBLEMS_TOLD_MAX) return;
        line.clear();
        reporter.event("problem", { path, code: why, isRemote }, null);
        reporter.warn(`"${path}" is not copied${isRemote ? ", the other end says" : ""}: ${why}`);
      },
      stopped: stop.wait(new Promise(() => {})),
      backend: options.backend,
      segmentation: options.segmentation,
      ...observing("copy", options),
      log: createLog(options),
    });
  } finally {
    line.clear();
  }
  const elapsedSeconds = (performance.now() - startMs) / 1000;
  reporter.event("done", { ...status, seconds: elapsedSeconds }, summary(status, elapsedSeconds));
  if (status.problems === 0) return;
  const count = status.problems === 1 ? "one file was" : `${status.problems} files were`;
  // The first one's reason, for whoever looks at the code alone.
  const text = `${count} not copied; run it again when that is mended`;
  throw new FarpageError(code === "" ? "EIO" : code, text);
}

/** Which way, from what the operands look like. */
function jobOf(what: readonly string[]): {
  readonly server: RtrsUri;
  readonly job: CopyClientOptions["what"];
} {
  const target = what.at(-1) ?? "";
  const sources = what.slice(0, -1);
  if (target === "") throw new FarpageError("EINVAL", "the target of the copy has no name");
  if (sources.length === 0) {
    throw new FarpageError("EINVAL", "a copy has a target: farpage copy FILE... rtrs://IP/EXPORT");
  }
  const remoteCount = sources.filter(isRemote).length;
  if (isRemote(target) && remoteCount === 0) {
    const server = parseRtrsUri(target);
    const path = server.path.replace(/\/+$/, "");
    return { server, job: { kind: "push", paths: sources, target: path } };
  }
  if (!isRemote(target) && remoteCount === sources.length) {
    const uris = sources.map(parseRtrsUri);
    const [server] = uris as [RtrsUri];
    const other = uris.find(
      ({ addresses, port }) => `${addresses} ${port}` !== `${server.addresses} ${server.port}`,
    );
    if (other !== undefined) throw new FarpageError("EINVAL", "one copy has one server");
    const targets = uris.map(({ path }) => path);
    return { server, job: { kind: "pull", targets, folder: target } };
  }
  throw new FarpageError(
    "EINVAL",
    "either the files are here and the target is rtrs://IP/EXPORT, or the other way round",
  );
}

function isRemote(text: string): boolean {
  return text.startsWith("rtrs://");
}

function summary(status: CopyStatus, elapsedSeconds: number): string {
  const { files, bytes, skippedFiles, skippedBytes } = status;
  const rate = formatSize(Math.round((bytes - skippedBytes) / Math.max(elapsedSeconds, 0.001)));
  const kept =
    skippedFiles + skippedBytes === 0
      ? ""
      : `; ${filesText(skippedFiles)} there before, ${formatSize(skippedBytes)} not sent`;
  const time = elapsedSeconds.toFixed(1);
  return `${filesText(files)}, ${formatSize(bytes)} in ${time} s (${rate}/s)${kept}`;
}

function filesText(count: number): string {
  return count === 1 ? "1 file" : `${count} files`;
}

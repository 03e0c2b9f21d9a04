// SPDX-License-Identifier: MIT
// `farpage attach --status` and its like: the session of an instance that runs, and its paths.

import { z } from "zod";
import {
  ControlClient,
  FarpageError,
  formatSize,
  type PathStatus,
  SESSION_STATUS,
  type SessionStatus,
} from "../runtime/index.js";
import { findInstance } from "./instances.js";
import { checkOptions, SESSION_OPTIONS } from "./options.js";
import type { Reporter } from "./reporter.js";

const REPLY = z.object({
  session: SESSION_STATUS,
  /** Of all lanes; `session` is lane 0's. */
  sessions: z.array(SESSION_STATUS).default([]),
});
/** Commands that have a session. */
const NAMES = ["attach", "up"];

/** Whether the options of `attach` are about an instance that runs. */
export function isAboutSession(
  uris: readonly string[],
  raw: Readonly<Record<string, unknown>>,
): boolean {
  const { status, addPath, removePath, resetCounters, policy } = raw;
  const isChange = addPath !== undefined || removePath !== undefined || resetCounters === true;
  const startsOne = uris.some((uri) => uri.includes("://"));
  return status === true || isChange || (policy !== undefined && !startsOne);
}

export async function runSession(
  targets: readonly string[],
  raw: unknown,
  reporter: Reporter,
): Promise<void> {
  const options = checkOptions(SESSION_OPTIONS, raw);
  const [target, more] = targets;
  if (more !== undefined || target?.includes("://") === true) {
    const what = "name one running instance, by its process id or an address, and no volume";
    throw new FarpageError("EINVAL", what);
  }
  const instance = await findInstance(target, options.data, NAMES);
  const client = await ControlClient.connect(instance.path);
  try {
    const { policy, addPath: addPaths, removePath: removePaths, resetCounters: reset } = options;
    const change = { addPaths, removePaths, reset, ...(policy === undefined ? {} : { policy }) };
    const reply = REPLY.safeParse(await client.ask({ request: "session", ...change }));
    if (!reply.success) throw new FarpageError("EPROTO", "the instance's answer is no session");
    const { session, sessions } = reply.data;
    const text = (sessions.length > 1 ? sessions : [session]).map(sessionText).join("\n");
    reporter.event("session", { pid: instance.pid, ...session, sessions }, text);
  } finally {
    client.close();
  }
}

function sessionText(session: SessionStatus): string {
  const { sessname, state, mpath_policy, inflight, queue_depth, reconnects } = session;
  return [
    `session ${sessname}: ${state.toLowerCase()}, policy ${mpath_policy}, ` +
      `${inflight} of ${queue_depth} requests in flight, ${reconnects} reconnects`,
    ...session.paths.flatMap(pathText),
  ].join("\n");
}

function pathText(path: PathStatus): string[] {
  const { rdma, reconnects } = path.stats;
  const { latency } = path;
  const heartbeat =
    path.cur_latency === 0 ? "" : `, heartbeat ${(path.cur_latency / 1000).toFixed(0)} us`;
  const stage =
    path.state === "connected"
      ? path.state
      : `${path.stage.toLowerCase()}, attempt ${path.attempts}`;
  const lines = [
    `  ${path.path}: ${stage}, ${rdma.inflight} in flight${heartbeat}`,
    `    ${rdma.reads} reads (${formatSize(rdma.read_bytes)}), ${rdma.writes} writes ` +
      `(${formatSize(rdma.write_bytes)}), ${rdma.failed_over} went on by another path; ` +
      `${reconnects.ok} reconnects, ${reconnects.failed} failed`,
  ];
  if (latency.count > 0) {
    const buckets = latency.histogram.map(
      ({ below_us, count }) => `${below_us === null ? "more" : `<${below_us}`}: ${count}`,
    );
    lines.push(
      `    answers after ${latency.mean_us} us on average, ${latency.max_us} us at most; ` +
        `us ${buckets.join(", ")}`,
    );
  }
  if (path.last_error !== null) lines.push(`    ${path.last_error}`);
  return lines;
}

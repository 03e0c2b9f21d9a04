// SPDX-License-Identifier: MIT
// Many connections: one after the other.

import { type CaseContext, check, type InteropCase } from "../case.js";
import { untilListening } from "./pair.js";

const PORT = 7174;
const TIMES = 500;
const LONG_MS = 1_500_000;

/** The kernel connects to one server, pings and disconnects, again and again. */
async function kernelConnects(context: CaseContext): Promise<undefined> {
  const { here, guest } = context;
  const server = context.farpage("rping", "--server", "--persistent", "-V", "--address", here());
  await server.event("ready listening");
  // rping's thread for CM events may look at its channel when its main thread has closed that, and
  // ends the process with an error then; the pings were all there, and the server counts them.
  const client = guest.start(`
    for i in $(seq ${TIMES}); do
      said=$(rping -c -C 1 -V -a ${here()} 2>&1) && continue
      case $said in *"rdma_get_cm_event: Bad file descriptor"*) continue ;; esac
      echo "number $i: $said"
      exit 1
    done`);
  const status = await client.end(LONG_MS);
  check(status === 0, client.evidence(), server.evidence());
  await server.stop();
  const done = server.events.filter(({ event, verified }) => event === "done" && verified === true);
  const pings = done.reduce((sum, event) => sum + Number(event["pings"]), 0);
  check(pings === TIMES, `${pings} of ${TIMES} pings were verified`, server.evidence());
  return undefined;
}

/** farpage connects, pings and disconnects, again and again; each time another process. */
async function farpageConnects(context: CaseContext): Promise<undefined> {
  const { here, there, guest } = context;
  const server = guest.start(`exec rping -s -P -V -a ${there()}`);
  await untilListening(context, server, { kind: "cm", port: PORT });
  for (let i = 0; i < TIMES; i++) {
    const ping = ["--client", there(), "-C", "1", "-V", "--address", here()];
    await context.farpage("rping", ...ping).end();
    check(server.status === null, `the server ended at number ${i}`, server.evidence());
  }
  server.signal("TERM");
  await server.end();
  return undefined;
}

const COMMON = {
  title: `connect, ping, disconnect ${TIMES} times`,
  ips: [4, 6],
  needs: ["rping"],
  timeoutSeconds: 1800,
} as const;

export const CONNECTION_CASES: readonly InteropCase[] = [
  { ...COMMON, id: "connect-in", direction: "kernel to farpage", run: kernelConnects },
  { ...COMMON, id: "connect-out", direction: "farpage to kernel", run: farpageConnects },
];

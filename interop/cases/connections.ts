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
  const ping = `rping -c -C 1 -V -a ${here()}`;
  const loop = `for i in $(seq ${TIMES}); do ${ping} || { echo "number $i"; exit 1; }; done`;
  const client = guest.start(loop);
  const status = await client.end(LONG_MS);
  check(status === 0, client.evidence(), server.evidence());
  await server.stop();
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

// SPDX-License-Identifier: MIT
// Bad luck on the link: netem in the guest's kernel, on what it sends and (by an intermediate
// device) on what it receives; and its interface going down and up. Loss, reordering and
// duplication cost time, never a completion or a byte.

import { type CaseContext, check, type Direction, type InteropCase, PeerFault } from "../case.js";
import { contradictionIn, rxeCounters } from "../evidence.js";
import type { Guest } from "../guest.js";
import { addressOf } from "../network.js";
import { startPair } from "./pair.js";
import { runPerf } from "./perftest.js";
import { rpingPair, runRping } from "./rping.js";

/** Impairs link 0 of a guest, both ways, until the case ends. `rule` is netem's. */
export async function impair(context: CaseContext, rule: string): Promise<void> {
  const { guest } = context;
  context.finally(async () => heal(guest));
  await guest.run(`
    set -e
    modprobe -a sch_netem sch_ingress cls_matchall act_mirred
    modprobe ifb numifbs=1
    ip link set ifb0 up
    tc qdisc add dev eth0 root netem ${rule}
    tc qdisc add dev eth0 handle ffff: ingress
    tc filter add dev eth0 parent ffff: matchall action mirred egress redirect dev ifb0
    tc qdisc add dev ifb0 root netem ${rule}`);
}

async function heal(guest: Guest): Promise<void> {
  await guest.run(`
    tc qdisc del dev eth0 root; tc qdisc del dev eth0 ingress; tc qdisc del dev ifb0 root; true`);
}

/** What netem has done, as it says itself; what it reorders and doubles it does not count. */
async function statisticsOf(guest: Guest): Promise<{ packets: number; dropped: number }> {
  const text = await guest.run("tc -s qdisc show dev eth0 root; tc -s qdisc show dev ifb0 root");
  const sent = [...text.matchAll(/Sent \d+ bytes (\d+) pkt \(dropped (\d+)/g)];
  const sum = (index: number) => sent.reduce((total, match) => total + Number(match[index]), 0);
  check(sent.length === 2 && sum(1) > 0, "the packets went through netem", text);
  return { packets: sum(1), dropped: sum(2) };
}

async function survive(context: CaseContext, direction: Direction, rule: string): Promise<string> {
  await impair(context, rule);
  const before = await misfortunes(context.guest);
  for (const verb of ["write", "read", "send"] as const) {
    await orPeerFault(context, async () => {
      await runPerf(context, { verb, kind: "bw", direction, flags: ["-s", "32768", "-n", "50"] });
    });
  }
  await runRping(context, direction, 20, 10_000);
  const { packets, dropped } = await statisticsOf(context.guest);
  const after = await misfortunes(context.guest);
  // Of more than a thousand packets: none at all would be no luck, but a broken harness.
  const isMeant = (word: string) => rule.includes(word);
  check(dropped > 0 || !isMeant("loss"), `none of ${packets} packets was lost`);
  const [late, twice] = [after.late - before.late, after.twice - before.twice];
  check(late > 0 || !isMeant("reorder"), `none of ${packets} packets came out of order`);
  check(twice > 0 || !isMeant("duplicate"), `none of ${packets} packets came twice`);
  return `${packets} packets, ${dropped} dropped`;
}

/** Requests that came late or twice, as the kernel tells: here, or at the peer, by its NAKs. */
async function misfortunes(guest: Guest): Promise<{ late: number; twice: number }> {
  const names = ["out_of_seq_request", "rcvd_seq_err", "duplicate_request"];
  const [ahead = 0, naks = 0, twice = 0] = await rxeCounters(guest, names);
  return { late: ahead + naks, twice };
}

/**
 * rxe 6.1 as a requester loses count of what it has to send again when an acknowledgement comes
 * while it does so: the same PSN is another packet then, and the responder must refuse it.
 * @throws PeerFault when `run` fails and its packets show that.
 */
async function orPeerFault(context: CaseContext, run: () => Promise<void>): Promise<void> {
  const endCapture = await context.capture();
  try {
    await run();
  } catch (error) {
    const evidence = await contradictionIn(await endCapture(), context.there());
    if (evidence === null) throw error;
    const why = error instanceof Error ? error.message : String(error);
    throw new PeerFault(`the kernel contradicts itself: ${evidence}\n${why}`);
  }
  await endCapture();
}

/** netem's rules by name. */
const RULES = {
  loss: "loss 1%",
  reordering: "delay 2ms reorder 80% 50%",
  duplication: "duplicate 5%",
  everything: "delay 1ms 1ms loss 0.5% duplicate 1% reorder 90%",
} as const;

const DIRECTIONS: readonly (readonly [Direction, "in" | "out"])[] = [
  ["kernel to farpage", "in"],
  ["farpage to kernel", "out"],
];

const NETEM_CASES: readonly InteropCase[] = Object.entries(RULES).flatMap(([name, rule]) =>
  DIRECTIONS.map(([direction, suffix]) => ({
    id: `fault-${name}-${suffix}`,
    title: `ib_write_bw, ib_read_bw, ib_send_bw and rping under "${rule}" both ways`,
    direction,
    ips: [4, 6],
    smoke: name === "loss" && suffix === "in" ? [4] : [],
    needs: ["ib_write_bw", "rping", "tcpdump", "tshark"],
    run: (context: CaseContext) => survive(context, direction, rule),
  })),
);

/**
 * Pings without end while the guest's interface goes down for three seconds. A queue pair that is
 * quiet meanwhile must live on. One that is at work may live or die of it, and either side's death
 * is right: rxe 6.1 fails its queue pair when a packet can't leave (rxe_requester:
 * IB_WC_LOC_QP_OP_ERR), farpage's gives up after the 7 retries that rping's timeout makes 1.3 s of.
 * Then the next connection must work at once.
 */
async function linkDown(
  context: CaseContext,
  direction: Direction,
  isQuiet: boolean,
): Promise<string | undefined> {
  const { guest } = context;
  // The interface keeps its IPv6 addresses, as any configured by hand.
  await guest.run("echo 1 > /proc/sys/net/ipv6/conf/eth0/keep_addr_on_down");
  // Linux's RDMA address resolution can wait 20 s for a neighbour that the link's fall made it
  // forget: the next case shall not.
  const neighbours = [addressOf(1, 4), addressOf(1, 6)];
  const greet = neighbours.map((address) => `busybox ping -q -c 1 -W 5 ${address}`).join(" && ");
  const healed = `for _ in 1 2 3 4 5; do ${greet} && exit; sleep 0.5; done; exit 1`;
  context.finally(async () => void (await guest.run(healed)));
  const pair = rpingPair(context, direction, ["-C", "0", "-v"]);
  const { kernel, farpage } = await startPair(context, {
    ...pair,
    kernel: `echo $$ > /run/rping; exec stdbuf -oL ${pair.kernel}`,
  });
  const isClient = direction === "kernel to farpage";
  // The client tells each ping.
  const said = () => (isClient ? kernel.output : farpage.process.output);
  const count = () => Number([...said().matchAll(/rdma-ping-(\d+):/g)].at(-1)?.[1] ?? 0);
  const next = (pings: number) => {
    const line = new RegExp(`rdma-ping-${pings}:`);
    return isClient ? kernel.waitFor(line) : farpage.process.waitFor(line);
  };
  await next(3);
  if (isQuiet) await guest.run("kill -STOP $(cat /run/rping); sleep 2");
  const before = count();
  await guest.run("ip link set eth0 down; sleep 3; ip link set eth0 up");
  if (isQuiet) await guest.run("kill -CONT $(cat /run/rping)");
  try {
    await next(before + 10);
  } catch (error) {
    const death = [
      ["rxe failed its queue pair", /cq completion failed status 2\b/.test(kernel.output)],
      ["farpage's retries were used up", /RETRY_EXC_ERR/.test(farpage.process.output)],
    ].find(([, isIt]) => isIt);
    if (isQuiet || death === undefined) throw error;
    await farpage.process.stop();
    kernel.signal("KILL");
    await kernel.end();
    await guest.run(healed);
    await runRping(context, direction, 20, 64);
    return `${death[0]}; the next connection worked`;
  }
  await farpage.process.stop();
  kernel.signal("TERM");
  await kernel.end();
  return isQuiet ? undefined : "lived on";
}

const LINK_CASES: readonly InteropCase[] = DIRECTIONS.flatMap(([direction, suffix]) =>
  [true, false].map((isQuiet) => ({
    id: `fault-link-${isQuiet ? "quiet" : "busy"}-${suffix}`,
    title: `the guest's interface down for 3 s, rping ${isQuiet ? "paused" : "at work"}`,
    direction,
    ips: [4, 6] as const,
    needs: ["rping"] as const,
    // After traffic into an interface that is down, 6.1 at times takes no IPv6 connection any more.
    fresh: true,
    run: (context: CaseContext) => linkDown(context, direction, isQuiet),
  })),
);

export const FAULT_CASES: readonly InteropCase[] = [...NETEM_CASES, ...LINK_CASES];

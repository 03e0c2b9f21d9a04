// SPDX-License-Identifier: MIT
// Every path MTU: by the link's MTU on both sides, or, where the smallest link of IPv6 carries a
// larger one, by perftest's -m; rping can't be told then.

import { type CaseContext, check, type Direction, type InteropCase } from "../case.js";
import { addressOf, type IpVersion, LINKS } from "../network.js";
import { runPerf } from "./perftest.js";
import { runRping } from "./rping.js";

/** What RDMA CM keeps free for headers when it derives the path MTU from the link's; rxe: 80. */
const HEADERS = 96;
const IPV6_LINK_MTU_MIN = 1280;

/** Gives link 0 this MTU, on both sides, until the case ends. */
async function setLinkMtu(context: CaseContext, mtu: number): Promise<void> {
  const { guest, network } = context;
  const [link] = LINKS;
  const set = async (bytes: number) => {
    await network.ip("link", "set", network.tap(guest.host, link), "mtu", `${bytes}`);
    await network.ip("link", "set", network.bridge(link), "mtu", `${bytes}`);
    await guest.run(`ip link set eth0 mtu ${bytes}`);
  };
  context.finally(async () => {
    await set(9000);
    // A link below IPv6's least MTU loses its IPv6 addresses.
    await guest.run(`ip -6 addr replace ${guest.address(6)}/64 dev eth0 nodad`);
    const here = ["replace", `${addressOf(1, 6)}/64`, "dev", network.bridge(link), "nodad"];
    await network.ip("-6", "addr", ...here);
  });
  await set(mtu);
}

async function transfer(
  context: CaseContext,
  direction: Direction,
  mtu: number,
): Promise<string | undefined> {
  const linkMtu = Math.max(mtu + HEADERS, context.ip === 4 ? 0 : IPV6_LINK_MTU_MIN);
  const byLink = linkMtu < 2 * mtu + HEADERS;
  const flags = byLink ? [] : ["-m", `${mtu}`];
  if (byLink) await setLinkMtu(context, linkMtu);
  for (const verb of ["write", "read", "send"] as const) {
    const size = ["-s", "20001", "-n", "20"];
    const test = { verb, kind: "bw", direction, flags: [...size, ...flags] } as const;
    const { kernel } = await runPerf(context, test);
    const told = /Mtu\s*:\s*(\d+)/.exec(kernel.output)?.[1];
    check(told === `${mtu}`, `the path MTU is ${told}, not ${mtu}`, kernel.output);
  }
  if (!byLink) return "IPv6 without rping: its links carry more";
  await runRping(context, direction, 5, 20_001);
  return undefined;
}

export const MTU_CASES: readonly InteropCase[] = [256, 512, 1024, 2048, 4096].flatMap((mtu) =>
  (["kernel to farpage", "farpage to kernel"] as const).map((direction) => ({
    id: `mtu-${mtu}-${direction === "kernel to farpage" ? "in" : "out"}`,
    title: `ib_write_bw, ib_read_bw, ib_send_bw and rping with a path MTU of ${mtu}`,
    direction,
    ips: [4, 6] satisfies IpVersion[],
    needs: ["ib_write_bw", "rping"],
    run: (context: CaseContext) => transfer(context, direction, mtu),
  })),
);

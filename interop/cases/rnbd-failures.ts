// SPDX-License-Identifier: MIT
// The kernel's rnbd-client when its farpage server is killed, or one of two paths is cut.

import { type CaseContext, check, type InteropCase } from "../case.js";
import type { Farpage } from "../farpage.js";
import { mapVolume, unmapVolume } from "./rnbd-guest.js";
import { bandwidthOf, checkLog, fioCommand, fioInGuest, markLog, until } from "./rnbd-tools.js";

const DIRECTION = "kernel to farpage";
/** Longer than the kernel takes to try again: 31 s after each loss or refusal. */
const RECONNECT_SECONDS = 120;

function serve({ farpage, here, folder }: CaseContext): Farpage {
  const volume = `vol=${folder}/vol.img,size=96M`;
  const addresses = ["--address", here(), "--address", here(1)];
  return farpage("serve", ...addresses, "--volume", volume, "--allow", "any");
}

/**
 * `kill -9` of the server under load. The kernel fails requests while it has no path (its own
 * choice, facts page 13), so: what it had acknowledged is there afterwards, and the device works.
 */
async function restart(context: CaseContext): Promise<string> {
  const { guest, here, ip } = context;
  const mark = await markLog(guest);
  let server = serve(context);
  await server.event("ready");
  const mapped = await mapVolume(guest, `restart-${ip}`, [`ip:${here()}`], "vol");
  const { device } = mapped;
  const state = `/sys/block/${device.slice(5)}/rnbd/state`;
  const before = { target: `--filename=${device}`, mebibytes: 16 };
  await fioInGuest(guest, before);
  // Numbered blocks from 32 MiB on, one after the other, until one fails.
  const writer = guest.start(`i=0
    while yes "block $i of ${device}" | head -c 4096 |
      dd of=${device} bs=4096 seek=$((8192 + i)) oflag=direct iflag=fullblock status=none
    do i=$((i + 1)); echo "written $i"; done`);
  const loader = guest.start(
    fioCommand({
      target: `--filename=${device}`,
      mebibytes: 16,
      more: "--offset=64M --time_based --runtime=60 --do_verify=0 --verify=0",
    }),
  );
  await writer.waitFor(/written 20\n/, 240_000);
  check(loader.status === null, "the load is under way", loader.output);
  await server.kill();
  const killedMs = performance.now();
  await writer.end(120_000);
  await loader.end(120_000);
  check(loader.status !== 0, "the load noticed that the server died", loader.output);
  const count = Number([...writer.output.matchAll(/written (\d+)\n/g)].at(-1)?.[1] ?? 0);
  check(count >= 20, "blocks were written", writer.output);
  server = serve(context);
  await server.event("ready");
  await until("the kernel reconnects", RECONNECT_SECONDS, async () =>
    (await guest.run(`cat ${state}`)).includes("open"),
  );
  const away = Math.round((performance.now() - killedMs) / 1000);
  await guest.run(`set -e
    for ((i = 0; i < ${count}; i++)); do
      dd if=${device} bs=4096 skip=$((8192 + i)) count=1 iflag=direct status=none > /tmp/is
      yes "block $i of ${device}" | head -c 4096 | cmp - /tmp/is
    done`);
  await fioInGuest(guest, { ...before, more: "--verify_only" });
  const figures = await fioInGuest(guest, { ...before, more: "--offset=64M" });
  await unmapVolume(guest, mapped);
  await server.stop();
  await checkLog(guest, mark, true);
  return `${count} acknowledged blocks there, back after ${away} s; then ${figures}`;
}

/** What the kernel's sysfs says of each path, by its last link's number. */
interface PathStatus {
  readonly state: string;
  readonly requests: number;
  readonly failedOver: number;
  readonly reconnects: number;
}

async function pathStatus(context: CaseContext, session: string): Promise<PathStatus[]> {
  const { guest, here } = context;
  const text = await guest.run(`cd /sys/class/rtrs-client/${session}/paths
    for to in ${here(0)} ${here(1)}; do
      cd *@ip:$to && echo "$(cat state stats/rdma stats/reconnects | tr '\\n' ' ')" && cd ..
    done`);
  return text
    .trim()
    .split("\n")
    .map((line) => {
      const [state = "?", ...words] = line.trim().split(/\s+/);
      const [reads = 0, , writes = 0, , , failedOver = 0, reconnects = 0] = words.map(Number);
      return { state, requests: reads + writes, failedOver, reconnects };
    });
}

/** Two paths under load, one cut and healed: no error, and the cut one comes back. */
async function twoPaths(context: CaseContext): Promise<string> {
  const { guest, network, here, there, ip } = context;
  const mark = await markLog(guest);
  const server = serve(context);
  await server.event("ready");
  const session = `paths-${ip}`;
  const paths = ([0, 1] as const).map((link) => `ip:${there(link)}@ip:${here(link)}`);
  const mapped = await mapVolume(guest, session, paths, "vol");
  await guest.run(`echo rr > /sys/class/rtrs-client/${session}/mpath_policy`);
  const load = guest.start(
    fioCommand({
      target: `--filename=${mapped.device}`,
      mebibytes: 48,
      more: "--rw=randrw --verify_backlog=64 --time_based --runtime=150",
    }),
  );
  await until("both paths carry requests", 60, async () =>
    (await pathStatus(context, session)).every(({ requests }) => requests > 50),
  );
  const tap = network.tap(guest.host, 1);
  context.finally(async () => {
    await network.ip("link", "set", tap, "up");
  });
  await network.ip("link", "set", tap, "down");
  const cutMs = performance.now();
  const seconds = () => Math.round((performance.now() - cutMs) / 1000);
  // The kernel notices by its heartbeat, half a minute later: rxe repeats for ever.
  await until(
    "the kernel sees the cut",
    90,
    async () => (await pathStatus(context, session))[1]?.state !== "connected",
  );
  const noticed = seconds();
  const atCut = await pathStatus(context, session);
  await until("the other path carries on", 60, async () => {
    const [first] = await pathStatus(context, session);
    return first !== undefined && first.requests > (atCut[0]?.requests ?? 0) + 50;
  });
  await network.ip("link", "set", tap, "up");
  await until("the cut path comes back", 150, async () => {
    const [, second] = await pathStatus(context, session);
    return second?.state === "connected" && second.reconnects > 0;
  });
  const back = seconds();
  check((await load.end(280_000)) === 0, "fio is content", load.output);
  const [first, second] = await pathStatus(context, session);
  check((second?.failedOver ?? 0) + (first?.failedOver ?? 0) > 0, "requests failed over");
  await fioInGuest(guest, { target: `--filename=${mapped.device}`, mebibytes: 8 });
  await unmapVolume(guest, mapped);
  await server.stop();
  await checkLog(guest, mark);
  const failedOver = (first?.failedOver ?? 0) + (second?.failedOver ?? 0);
  const times = `noticed after ${noticed} s, back after ${back} s`;
  return `${failedOver} requests failed over, ${times}; ${bandwidthOf(load.output)}`;
}

export const RNBD_FAILURE_CASES: readonly InteropCase[] = [
  {
    id: "rnbd-client-restart",
    title: "farpage server killed with -9 under load and restarted",
    direction: DIRECTION,
    ips: [4, 6],
    needs: ["rnbd-modules", "fio"],
    timeoutSeconds: 500,
    run: restart,
  },
  {
    id: "rnbd-client-paths",
    title: "two paths, one cut and healed under fio --verify",
    direction: DIRECTION,
    ips: [4, 6],
    needs: ["rnbd-modules", "fio"],
    timeoutSeconds: 600,
    run: twoPaths,
  },
];

// SPDX-License-Identifier: MIT
// `farpage attach` on devices that the kernel's rnbd-server exports.

import { type CaseContext, check, type InteropCase } from "../case.js";
import type { Farpage } from "../farpage.js";
import type { Guest } from "../guest.js";
import { bandwidthOf, checkLog, fioCommand, fioInGuest, markLog, until } from "./rnbd-tools.js";

const DIRECTION = "farpage to kernel";
/** Name of the null_blk device that is made. */
const NULL_BLOCK = "nullb7";

/** Loads the kernel's server, anew if need be; exports /dev, in it ram0 of 64 MiB. */
async function exportDevices(guest: Guest, rotatesKeys = true): Promise<void> {
  await guest.run(`set -e
    modprobe -r rnbd-server rtrs-server
    modprobe brd rd_nr=1 rd_size=65536
    modprobe rtrs-server always_invalidate=${rotatesKeys ? "Y" : "N"}
    modprobe rnbd-server dev_search_path=/dev`);
}

/** An address as it stands in a URI. */
function inUri(address: string): string {
  return address.includes(":") ? `[${address}]` : address;
}

/** Attaches a device; NBD clients on this side find it at the returned URI. */
async function attach(
  { farpage, here, there, folder }: CaseContext,
  device: string,
  ...flags: readonly string[]
): Promise<{ client: Farpage; uri: string }> {
  const url = `rnbd://${inUri(there())}/${device}`;
  const socket = `${folder}/nbd`;
  const nbd = flags.includes("--nbd") ? [] : ["--nbd", `unix:${socket}`];
  const client = farpage("attach", url, "--address", here(), ...nbd, ...flags);
  await client.event("ready");
  return { client, uri: `nbd+unix:///${device}?socket=${socket}` };
}

/** Copies a file system to the kernel's device and back; the kernel checks and mounts it. */
async function copy(context: CaseContext): Promise<string> {
  const { guest, run, folder } = context;
  const mark = await markLog(guest);
  await exportDevices(guest);
  const { client, uri } = await attach(context, "ram0");
  const image = `${folder}/image`;
  await run(
    "sh",
    "-c",
    `set -e
    mkdir '${folder}/tree'
    cp -r /usr/share/perl5 /etc/services '${folder}/tree' 2>/dev/null || true
    head -c 8M /dev/urandom > '${folder}/tree/random'
    truncate -s 64M '${image}'; mkfs.ext4 -q -d '${folder}/tree' '${image}'`,
  );
  await run("nbdcopy", "--flush", image, uri);
  await run("nbdcopy", uri, `${folder}/back`);
  await run("cmp", image, `${folder}/back`);
  await client.stop();
  const sums = await guest.run(`set -e
    fsck.ext4 -fn /dev/ram0 2>&1
    mkdir -p /mnt/a; mount -o ro /dev/ram0 /mnt/a
    sha256sum < /mnt/a/random; umount /mnt/a`);
  const wanted = (await run("sh", "-c", `sha256sum < '${folder}/tree/random'`)).trim();
  check(sums.includes(wanted), "the kernel reads other bytes than were written", sums);
  await checkLog(guest, mark);
  return "64 MiB there and back";
}

/** ext4 made, filled, verified and checked by a stock kernel, by way of farpage, on ram0. */
async function ext4(context: CaseContext): Promise<string> {
  const { guest, here } = context;
  const mark = await markLog(guest);
  await exportDevices(guest);
  const port = 10_809;
  const { client } = await attach(context, "ram0", "--nbd", `tcp:${inUri(here())}:${port}`);
  await guest.run(`set -e
    modprobe nbd
    nbd-client -N ram0 ${here()} ${port} /dev/nbd0 -b 4096 -timeout 60
    mkfs.ext4 -q /dev/nbd0; mkdir -p /mnt/a; mount /dev/nbd0 /mnt/a
    head -c 16M /dev/urandom > /mnt/a/random; sha256sum < /mnt/a/random > /tmp/sum`);
  const figures = await fioInGuest(guest, { target: "--directory=/mnt/a", mebibytes: 32 });
  await guest.run(`set -e
    umount /mnt/a; fsck.ext4 -fn /dev/nbd0 2>&1
    nbd-client -d /dev/nbd0`);
  await client.stop();
  // The same disk, seen without farpage.
  await guest.run(`set -e
    fsck.ext4 -fn /dev/ram0 2>&1; mount -o ro /dev/ram0 /mnt/a
    sha256sum < /mnt/a/random | cmp - /tmp/sum; umount /mnt/a`);
  await checkLog(guest, mark);
  return figures;
}

function fioHere(uri: string, mebibytes: number, more = ""): string[] {
  // The engine's own options are known only behind its name.
  const target = `--ioengine=nbd '--uri=${uri}'`;
  const command = fioCommand({ target, mebibytes, more }).replace("--ioengine=libaio", "");
  return ["sh", "-c", `cd /tmp && ${command}`];
}

/** Each side with and without invalidation. */
async function keys(context: CaseContext): Promise<string> {
  const { guest, run } = context;
  const mark = await markLog(guest);
  const notes: string[] = [];
  for (const server of [true, false]) {
    await exportDevices(guest, server);
    for (const client of [true, false]) {
      const flag = ["--always-invalidate", `${client}`];
      const attached = await attach(context, "ram0", ...flag);
      const figures = bandwidthOf(await run(...fioHere(attached.uri, 16)));
      notes.push(`${server ? "on" : "off"}/${client ? "on" : "off"}: ${figures}`);
      await attached.client.stop();
    }
  }
  await checkLog(guest, mark);
  return `server/client ${notes.join("; ")}`;
}

/** Discard and zeroes reach a device that has them (null_blk), and refuse to where it has not. */
async function discard(context: CaseContext): Promise<undefined> {
  const { guest, run } = context;
  const mark = await markLog(guest);
  await exportDevices(guest);
  const device = `/sys/kernel/config/nullb/${NULL_BLOCK}`;
  await guest.run(`set -e
    modprobe null_blk nr_devices=0
    if ! test -d ${device}; then
      mkdir ${device}; cd ${device}; echo 64 > size; echo 1 > memory_backed; echo 1 > discard
      echo 4096 > blocksize; echo 1 > power
    fi
    test -b /dev/${NULL_BLOCK}`);
  const name = NULL_BLOCK;
  const { client, uri } = await attach(context, name);
  const io = ["qemu-io", "-f", "raw", uri];
  await run(...io, "-c", "write -P 0x5a 0 8M", "-c", "discard 1M 2M", "-c", "flush");
  await run(...io, "-c", "read -P 0x5a 0 1M", "-c", "read -P 0 1M 2M", "-c", "read -P 0x5a 3M 5M");
  await run(...io, "-c", "write -z 4M 1M", "-c", "read -P 0 4M 1M", "-c", "flush");
  await client.stop();
  await guest.run(`set -e
    dd if=/dev/${name} bs=1M skip=1 count=2 iflag=direct status=none | cmp -n 2097152 - /dev/zero
    dd if=/dev/${name} bs=1M skip=4 count=1 iflag=direct status=none | cmp -n 1048576 - /dev/zero
    test $(dd if=/dev/${name} bs=1M count=1 iflag=direct status=none | tr -d Z | wc -c) = 0`);
  await checkLog(guest, mark);
  return undefined;
}

/** The kernel's server goes under load and comes again: requests wait, none fails. */
async function restart(context: CaseContext): Promise<string> {
  const { guest, run } = context;
  await exportDevices(guest);
  const { client, uri } = await attach(context, "ram0");
  const load = run(
    ...fioHere(uri, 48, "--time_based --runtime=25 --rw=randrw --verify_backlog=64"),
  );
  const settled = load.then(
    () => null,
    (error: Error) => error,
  );
  await guest.run("sleep 4; modprobe -r rnbd-server rtrs-server && sleep 3", 60_000);
  await exportDevices(guest);
  const error = await settled;
  check(error === null, "fio is content", `${error?.message ?? ""}\n${client.evidence()}`);
  const events = client.events.map(({ event }) => event);
  const wasLost = events.indexOf("disconnected");
  check(wasLost > 0, "the session was lost", client.evidence());
  check(events.includes("connected", wasLost), "it came back", client.evidence());
  const figures = bandwidthOf(await load);
  await client.stop();
  return figures;
}

/** The link fails for a while, under load. */
async function outage(context: CaseContext): Promise<string> {
  const { guest, network, run } = context;
  await exportDevices(guest);
  const { client, uri } = await attach(context, "ram0");
  const load = run(
    ...fioHere(uri, 48, "--time_based --runtime=60 --rw=randrw --verify_backlog=64"),
  );
  const settled = load.then(
    () => null,
    (error: Error) => error,
  );
  const tap = network.tap(guest.host, 0);
  context.finally(async () => {
    await network.ip("link", "set", tap, "up");
  });
  await guest.run("sleep 4");
  await network.ip("link", "set", tap, "down");
  await guest.run("sleep 1");
  const received = await packetsOf(context, client);
  await guest.run("sleep 11");
  const later = await packetsOf(context, client);
  check(later === received, "nothing came while the link was down", `${received}, ${later}`);
  await network.ip("link", "set", tap, "up");
  const error = await settled;
  check((await packetsOf(context, client)) > later, "and something after", client.evidence());
  check(error === null, "fio is content", `${error?.message ?? ""}\n${client.evidence()}`);
  const figures = bandwidthOf(await load);
  await client.stop();
  return `12 s cut; ${figures}`;
}

/** Packets that a farpage process has received. */
async function packetsOf({ farpage }: CaseContext, of: Farpage): Promise<number> {
  const asking = farpage("stat", `${of.process.pid}`);
  const { device } = await asking.event("statistics");
  await asking.end();
  const { counters } = device as { readonly counters: { readonly packetsReceived: number } };
  return counters.packetsReceived;
}

/** A path of `farpage attach --status --json`, as far as it matters here. */
interface PathStatus {
  readonly state: string;
  readonly stats: {
    readonly rdma: {
      readonly reads: number;
      readonly writes: number;
      readonly failed_over: number;
    };
    readonly reconnects: { readonly ok: number };
  };
}

/** Two paths to the kernel's server under load; one is cut, and comes back. */
async function twoPaths(context: CaseContext): Promise<string> {
  const { guest, network, run, farpage, here, there, folder } = context;
  const mark = await markLog(guest);
  await exportDevices(guest);
  const url = `rnbd://${inUri(there(0))},${inUri(there(1))}/ram0`;
  const own = ["--address", here(0), "--address", here(1)];
  const socket = `${folder}/nbd`;
  const client = farpage("attach", url, ...own, "--policy", "rr", "--nbd", `unix:${socket}`);
  await client.event("ready");
  const status = async (): Promise<readonly PathStatus[]> => {
    const asking = farpage("attach", `${client.process.pid}`, "--status");
    const { paths } = await asking.event("session");
    await asking.end();
    return paths as readonly PathStatus[];
  };
  const carried = ({ stats }: PathStatus) => stats.rdma.reads + stats.rdma.writes;
  const uri = `nbd+unix:///ram0?socket=${socket}`;
  const more = "--rw=randrw --verify_backlog=64 --time_based --runtime=60";
  const load = run(...fioHere(uri, 48, more));
  const settled = load.then(
    () => null,
    (error: Error) => error,
  );
  await until("both paths carry requests", 60, async () =>
    (await status()).every((path) => carried(path) > 50),
  );
  const tap = network.tap(guest.host, 1);
  context.finally(async () => {
    await network.ip("link", "set", tap, "up");
  });
  const from = client.events.length;
  const cutMs = performance.now();
  await network.ip("link", "set", tap, "down");
  await client.event("path-down", from);
  const failoverMs = Math.round(performance.now() - cutMs);
  await network.ip("link", "set", tap, "up");
  await client.event("path-up", from, 120_000);
  const backSeconds = Math.round((performance.now() - cutMs) / 1000);
  const error = await settled;
  check(error === null, "fio is content", `${error?.message ?? ""}\n${client.evidence()}`);
  const lost = client.events.some(({ event }) => event === "disconnected");
  check(!lost, "the session was never lost", client.evidence());
  const [, second] = await status();
  check(second?.stats.reconnects.ok === 1, "the cut path came back", client.evidence());
  const movedCount = second?.stats.rdma.failed_over ?? 0;
  await client.stop();
  await checkLog(guest, mark);
  const times = `failover after ${failoverMs} ms, back after ${backSeconds} s`;
  return `${movedCount} requests moved, ${times}; ${bandwidthOf(await load)}`;
}

export const RNBD_SERVER_CASES: readonly InteropCase[] = [
  {
    id: "rnbd-server-copy",
    title: "an ext4 image copied to ram0 and back; the kernel checks and mounts it",
    direction: DIRECTION,
    ips: [4, 6],
    smoke: [4],
    needs: ["rnbd-modules", "mkfs.ext4", "nbdcopy"],
    run: copy,
  },
  {
    id: "rnbd-server-ext4",
    title: "ext4 made, filled, verified and checked by a kernel on farpage's NBD on ram0",
    direction: DIRECTION,
    ips: [4, 6],
    needs: ["rnbd-modules", "mkfs.ext4", "fio", "nbd-client"],
    run: ext4,
  },
  {
    id: "rnbd-server-keys",
    title: "fio --verify with invalidation on and off on either side",
    direction: DIRECTION,
    ips: [4, 6],
    needs: ["rnbd-modules", "fio"],
    run: keys,
  },
  {
    id: "rnbd-server-discard",
    title: "discard and zeroes on null_blk, seen by the kernel",
    direction: DIRECTION,
    ips: [4, 6],
    needs: ["rnbd-modules", "qemu-img"],
    run: discard,
  },
  {
    id: "rnbd-server-restart",
    title: "the kernel's server unloaded and loaded under fio --verify: requests wait",
    direction: DIRECTION,
    ips: [4, 6],
    needs: ["rnbd-modules", "fio"],
    run: restart,
  },
  {
    id: "rnbd-server-outage",
    title: "the link down for 12 s under fio --verify: requests wait",
    direction: DIRECTION,
    ips: [4, 6],
    needs: ["rnbd-modules", "fio"],
    run: outage,
  },
  {
    id: "rnbd-server-paths",
    title: "two paths, one cut and healed under fio --verify",
    direction: DIRECTION,
    ips: [4, 6],
    needs: ["rnbd-modules", "fio"],
    timeoutSeconds: 600,
    run: twoPaths,
  },
];

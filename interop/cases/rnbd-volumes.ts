// SPDX-License-Identifier: MIT
// The kernel's rnbd-client on farpage volumes while all is well: file systems, load, sizes, modes.

import { statSync, truncateSync } from "node:fs";
import { type CaseContext, check, type InteropCase } from "../case.js";
import type { Farpage } from "../farpage.js";
import { type Mapped, mapVolume, unmapVolume } from "./rnbd-guest.js";
import { checkLog, fioInGuest, makeTree, markLog, sizeOf } from "./rnbd-tools.js";

const DIRECTION = "kernel to farpage";
const MIB = 1 << 20;

/** Serves volumes named `NAME=SIZE` as files in the case's folder. */
async function serve(
  { farpage, here, folder }: CaseContext,
  volumes: readonly string[],
  ...flags: readonly string[]
): Promise<Farpage> {
  const args = volumes.flatMap((volume) => {
    const [name, size, ...more] = volume.split(/[=,]/);
    return ["--volume", [`${name}=${folder}/${name}.img`, `size=${size}`, ...more].join(",")];
  });
  const server = farpage("serve", "--address", here(), "--allow", "any", ...args, ...flags);
  await server.event("ready");
  return server;
}

function map({ guest, here, ip }: CaseContext, volume: string, options = ""): Promise<Mapped> {
  return mapVolume(guest, `volumes-${ip}`, [`ip:${here()}`], volume, options);
}

/** How a file system is made, mounted and checked. */
interface FileSystem {
  readonly make: string;
  readonly mount: string;
  readonly check: string;
}

const EXT4: FileSystem = { make: "mkfs.ext4 -q", mount: "mount", check: "fsck.ext4 -fn" };
const XFS: FileSystem = { make: "mkfs.xfs -q -f", mount: "mount", check: "xfs_repair -n" };

async function makeAndMount({ guest }: CaseContext, device: string, fs: FileSystem): Promise<void> {
  await guest.run(
    `set -e; ${fs.make} ${device}; mkdir -p /mnt/a; ${fs.mount} ${device} /mnt/a; df /mnt/a`,
  );
}

async function unmountAndCheck(
  { guest }: CaseContext,
  device: string,
  fs: FileSystem,
): Promise<void> {
  await guest.run(`set -e; umount /mnt/a; ${fs.check} ${device} 2>&1`);
}

/** fio on a mounted file system, which is checked afterwards. */
function load(fs: FileSystem, ...flags: readonly string[]) {
  return async (context: CaseContext): Promise<string> => {
    const { guest } = context;
    const mark = await markLog(guest);
    const server = await serve(context, ["vol=384M"], ...flags);
    const mapped = await map(context, "vol");
    await makeAndMount(context, mapped.device, fs);
    const figures = await fioInGuest(guest, { target: "--directory=/mnt/a", mebibytes: 48 });
    await unmountAndCheck(context, mapped.device, fs);
    await unmapVolume(guest, mapped);
    await server.stop();
    await checkLog(guest, mark);
    return figures;
  };
}

/** A large tree unpacked on ext4, compared file by file after a second mount. */
async function tree(context: CaseContext): Promise<string> {
  const { guest } = context;
  const mark = await markLog(guest);
  const packed = await makeTree(context);
  const server = await serve(context, ["vol=512M"]);
  const mapped = await map(context, "vol");
  await makeAndMount(context, mapped.device, EXT4);
  await guest.run(`tar -C /mnt/a -xf ${packed.path}`, 280_000);
  await unmountAndCheck(context, mapped.device, EXT4);
  await guest.run(
    `set -e
    echo 3 > /proc/sys/vm/drop_caches
    mount -o ro ${mapped.device} /mnt/a
    tar -C /mnt/a -df ${packed.path}
    umount /mnt/a`,
    280_000,
  );
  await unmapVolume(guest, mapped);
  await server.stop();
  await checkLog(guest, mark);
  return sizeOf(packed);
}

/** Several volumes in one session, at the same time; each keeps to itself. */
async function devices(context: CaseContext): Promise<string> {
  const { guest } = context;
  const mark = await markLog(guest);
  const names = ["one", "two", "three"];
  const server = await serve(
    context,
    names.map((name) => `${name}=32M`),
  );
  const mapped: Mapped[] = [];
  for (const name of names) mapped.push(await map(context, name));
  await Promise.all(
    mapped.map(({ device }, i) =>
      fioInGuest(guest, {
        target: `--filename=${device}`,
        mebibytes: 8,
        more: `--randseed=${10 + i}`,
      }),
    ),
  );
  // What another volume had been given would show now.
  const again = mapped.map(({ device }, i) =>
    fioInGuest(guest, {
      target: `--filename=${device}`,
      mebibytes: 8,
      more: `--randseed=${10 + i} --rw=randwrite --verify_only`,
    }),
  );
  await Promise.all(again);
  const sessions = await guest.run("ls /sys/class/rtrs-client | grep -c volumes");
  check(sessions.trim() === "1", "there is one session", sessions);
  for (const one of mapped) await unmapVolume(guest, one);
  await server.stop();
  await checkLog(guest, mark);
  return `${names.length} volumes`;
}

/** Read-only maps, read-only volumes, and who may write beside whom. */
async function modes(context: CaseContext): Promise<undefined> {
  const { guest, here, ip } = context;
  const server = await serve(context, ["vol=16M", "fixed=16M,readonly"]);
  const mapped = await map(context, "vol", "access_mode=ro");
  const { device } = mapped;
  await guest.run(`set -e
    test "$(blockdev --getro ${device})" = 1
    dd if=${device} of=/dev/null bs=64k count=8 iflag=direct status=none
    ! dd if=/dev/zero of=${device} bs=4k count=1 oflag=direct status=none`);
  const refusal = `! { echo "sessname=other-${ip} path=ip:${here()} device_path=`;
  const ctl = `" > /sys/class/rnbd-client/ctl/map_device; } 2>&1`;
  const fixed = await guest.run(`${refusal}fixed access_mode=rw${ctl}`);
  check(/Read-only/.test(fixed), "EROFS for writing a read-only volume", fixed);
  await unmapVolume(guest, mapped);
  const writer = await map(context, "vol", "access_mode=rw");
  const second = await guest.run(`${refusal}vol access_mode=rw${ctl}`);
  check(/not permitted/.test(second), "EPERM for the second writer", second);
  const missing = await guest.run(`${refusal}absent access_mode=ro${ctl}`);
  check(/No such/.test(missing), "ENOENT for a volume that is not there", missing);
  await unmapVolume(guest, writer);
  await server.stop();
  return undefined;
}

/** A volume's file grows: the kernel sees it when it opens the volume, or is told by hand. */
async function resize(context: CaseContext): Promise<string> {
  const { guest, folder } = context;
  const server = await serve(context, ["vol=64M"]);
  const sectors = async (device: string) =>
    Number(await guest.run(`cat /sys/block/${device.slice(5)}/size`));
  const first = await map(context, "vol");
  check((await sectors(first.device)) === (64 * MIB) / 512, "the size before");
  await guest.run(`set -e
    mkfs.ext4 -q ${first.device}; mkdir -p /mnt/a; mount ${first.device} /mnt/a
    head -c 8M /dev/urandom > /mnt/a/random`);
  truncateSync(`${folder}/vol.img`, 128 * MIB);
  // The kernel's administrator tells the size; the server must know it by itself.
  await guest.run(`set -e
    echo ${(128 * MIB) / 512} > /sys/block/${first.device.slice(5)}/rnbd/resize
    resize2fs ${first.device} 2>&1
    head -c 80M /dev/urandom > /mnt/a/more
    sync; umount /mnt/a; fsck.ext4 -fn ${first.device} 2>&1`);
  await unmapVolume(guest, first);
  truncateSync(`${folder}/vol.img`, 192 * MIB);
  const second = await map(context, "vol");
  check((await sectors(second.device)) === (192 * MIB) / 512, "the size at the next open");
  await unmapVolume(guest, second);
  await server.stop();
  return "64 MiB to 128 (mounted) to 192";
}

/** What a file system no longer needs goes from the volume's file, and reads as zeroes. */
async function discard(context: CaseContext): Promise<string> {
  const { guest, folder } = context;
  const mark = await markLog(guest);
  const server = await serve(context, ["vol=64M"]);
  const mapped = await map(context, "vol");
  const { device } = mapped;
  const held = () => statSync(`${folder}/vol.img`).blocks * 512;
  await guest.run(`set -e
    head -c 64M /dev/urandom > ${device}
    sync ${device}`);
  const full = held();
  check(full >= 64 * MIB, "the file holds all", `${full} bytes`);
  await guest.run(`set -e
    blkdiscard -o 16M -l 32M ${device}
    dd if=${device} bs=1M skip=16 count=32 iflag=direct status=none | cmp -n 33554432 - /dev/zero`);
  const less = held();
  check(less <= full - 32 * MIB, "the discarded half is given back", `${full} to ${less} bytes`);
  await guest.run(`set -e
    blkdiscard -z -o 0 -l 1M ${device}
    dd if=${device} bs=1M count=1 iflag=direct status=none | cmp -n 1048576 - /dev/zero
    mkfs.ext4 -q ${device}; mkdir -p /mnt/a; mount ${device} /mnt/a
    head -c 32M /dev/urandom > /mnt/a/random; sync; rm /mnt/a/random; sync`);
  const before = held();
  const said = await guest.run("fstrim -v /mnt/a; umount /mnt/a");
  await guest.run(`fsck.ext4 -fn ${device} 2>&1`);
  const after = held();
  check(after < before - 24 * MIB, "fstrim gives back", `${said}${before} to ${after} bytes`);
  await unmapVolume(guest, mapped);
  await server.stop();
  await checkLog(guest, mark);
  return `file: ${[full, less, before, after].map((n) => `${Math.round(n / MIB)} MiB`).join(", ")}`;
}

export const RNBD_VOLUME_CASES: readonly InteropCase[] = [
  {
    id: "rnbd-client-fio",
    title: "fio --verify on ext4, fsck",
    direction: DIRECTION,
    ips: [4, 6],
    needs: ["rnbd-modules", "mkfs.ext4", "fio"],
    mayHang: true,
    run: load(EXT4),
  },
  {
    id: "rnbd-client-fixed-keys",
    title: "the same, server without invalidation",
    direction: DIRECTION,
    ips: [4, 6],
    needs: ["rnbd-modules", "mkfs.ext4", "fio"],
    mayHang: true,
    run: load(EXT4, "--always-invalidate", "false"),
  },
  {
    id: "rnbd-client-xfs",
    title: "fio --verify on xfs, xfs_repair -n",
    direction: DIRECTION,
    ips: [4, 6],
    needs: ["rnbd-modules", "mkfs.xfs", "fio"],
    mayHang: true,
    run: load(XFS),
  },
  {
    id: "rnbd-client-tree",
    title: "a large tree unpacked on ext4, fsck, compared after a second mount",
    direction: DIRECTION,
    ips: [4, 6],
    needs: ["rnbd-modules", "mkfs.ext4"],
    timeoutSeconds: 600,
    mayHang: true,
    run: tree,
  },
  {
    id: "rnbd-client-devices",
    title: "three volumes in one session, fio --verify on all at once",
    direction: DIRECTION,
    ips: [4, 6],
    needs: ["rnbd-modules", "fio"],
    mayHang: true,
    run: devices,
  },
  {
    id: "rnbd-client-modes",
    title: "read-only maps and volumes, a second writer, no such volume: the right errors",
    direction: DIRECTION,
    ips: [4, 6],
    needs: ["rnbd-modules"],
    mayHang: true,
    run: modes,
  },
  {
    id: "rnbd-client-resize",
    title: "the volume's file grows, mounted and not",
    direction: DIRECTION,
    ips: [4, 6],
    needs: ["rnbd-modules", "mkfs.ext4"],
    mayHang: true,
    run: resize,
  },
  {
    id: "rnbd-client-discard",
    title: "blkdiscard, zeroes, fstrim: given back, and read as zeroes",
    direction: DIRECTION,
    ips: [4, 6],
    needs: ["rnbd-modules", "mkfs.ext4"],
    mayHang: true,
    run: discard,
  },
];

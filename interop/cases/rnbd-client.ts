// SPDX-License-Identifier: MIT
// The kernel's rnbd-client on a farpage volume.

import { type CaseContext, check, type InteropCase } from "../case.js";
import { mapVolume, unmapVolume } from "./rnbd-guest.js";

/** ext4 made, filled and checked by the kernel; what it wrote is there after a second mount. */
async function ext4(context: CaseContext): Promise<undefined> {
  const { guest, here, farpage, folder, ip } = context;
  const volume = `vol=${folder}/volume.img,size=256M`;
  const server = farpage("serve", "--address", here(), "--volume", volume, "--allow", "any");
  await server.event("ready");
  const mapped = await mapVolume(guest, `ext4-${ip}`, [`ip:${here()}`], "vol", "access_mode=rw");
  const written = await guest.run(`
    set -e
    mkfs.ext4 -q ${mapped.device}
    mkdir -p /mnt/a; mount ${mapped.device} /mnt/a
    head -c 8M /dev/urandom > /mnt/a/random
    cp -r /etc/default /etc/init.d /mnt/a/
    sha256sum < /mnt/a/random
    umount /mnt/a
    fsck.ext4 -fn ${mapped.device} > /tmp/fsck 2>&1 || { cat /tmp/fsck; exit 1; }
    echo 3 > /proc/sys/vm/drop_caches`);
  const again = await guest.run(`
    set -e
    mount -o ro ${mapped.device} /mnt/a; sha256sum < /mnt/a/random; umount /mnt/a`);
  check(written === again, "another content after the second mount", `${written}${again}`);
  await unmapVolume(guest, mapped);
  await server.stop();
  return undefined;
}

export const RNBD_CLIENT_CASES: readonly InteropCase[] = [
  {
    id: "rnbd-client-ext4",
    title: "mkfs, mount, fill, unmount, fsck, mount again",
    direction: "kernel to farpage",
    ips: [4, 6],
    smoke: [4],
    needs: ["rnbd-modules", "mkfs.ext4"],
    mayHang: true,
    run: ext4,
  },
];

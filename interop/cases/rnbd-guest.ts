// SPDX-License-Identifier: MIT
// The kernel's RNBD by its own administration: sysfs of rnbd-client and rtrs-client.

import { check } from "../case.js";
import type { Guest } from "../guest.js";

const CONTROL = "/sys/class/rnbd-client/ctl";

/** A volume that the kernel's rnbd-client has mapped. */
export interface Mapped {
  /** Such as /dev/rnbd0. */
  readonly device: string;
  readonly session: string;
}

/** Maps a volume of a server. `options` come before the path, as the kernel wants them. */
export async function mapVolume(
  guest: Guest,
  session: string,
  paths: readonly string[],
  volume: string,
  options = "",
): Promise<Mapped> {
  const path = paths.map((one) => `path=${one}`).join(" ");
  const words = `${options} sessname=${session} ${path} device_path=${volume}`.trim();
  // The link's name is the volume's and the session's; what it leads to is the block device.
  const link = `${CONTROL}/devices/${volume.replaceAll("/", "!")}@${session}`;
  const output = await guest.run(`
    modprobe rnbd-client || exit
    echo "${words}" > ${CONTROL}/map_device || { dmesg | tail -n 20; exit 1; }
    basename "$(readlink -f ${link})"`);
  const name = output.trim();
  check(/^rnbd\d+$/.test(name), "the volume was not mapped", output);
  return { device: `/dev/${name}`, session };
}

/** Unmaps it again; `force` also when the server is gone. */
export async function unmapVolume(
  guest: Guest,
  mapped: Mapped,
  how: "normal" | "force" = "normal",
): Promise<void> {
  const name = mapped.device.slice("/dev/".length);
  await guest.run(
    `echo ${how} > /sys/block/${name}/rnbd/unmap_device || { dmesg | tail; exit 1; }`,
  );
}

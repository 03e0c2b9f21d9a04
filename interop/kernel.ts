// SPDX-License-Identifier: MIT
// The guests' kernel, from Debian's packages: image, modules, a small initramfs, and (not in
// Debian's build) the kernel's own RTRS and RNBD, built from Debian's source of the same version.
// All of it is cached, keyed by the kernel's release and by what made it.

import { createHash } from "node:crypto";
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { install, updateLists } from "./packages.js";
import { run, succeeds } from "./processes.js";

const INIT = fileURLToPath(new URL("../../interop/init.sh", import.meta.url));
/** What must be loaded before the root file system is there. */
const BOOT_MODULES = ["virtio_pci", "virtio_net", "9pnet_virtio", "9p", "overlay", "rdma_rxe"];
const EARLY_MODULES = [...BOOT_MODULES, "rdma_ucm", "ib_uverbs"];
const BUILD_PACKAGES = ["gcc", "make", "libelf-dev", "binutils"];

/** A kernel that is ready to boot. */
export interface Kernel {
  /** As `uname -r` says, such as 6.1.0-56-amd64. */
  readonly release: string;
  /** Version of Debian's package, such as 6.1.192-2. */
  readonly version: string;
  readonly image: string;
  readonly initramfs: string;
  /** The folder that is /lib/modules/RELEASE in the guests. */
  readonly modules: string;
}

/**
 * Finds Debian's current kernel, or unpacks it into the cache.
 * @throws when there is none to be had.
 */
export async function prepareKernel(cache: string): Promise<Kernel> {
  const release = await currentRelease();
  const version = await versionOf(`linux-image-${release}`);
  const key = hashOf(readFileSync(INIT, "utf8"), version, EARLY_MODULES.join());
  const folder = join(cache, `kernel-${release}-${key}`);
  if (!existsSync(folder)) {
    await build(cache, folder, (partial) => unpackKernel(partial, release, version));
  }
  return {
    release,
    version,
    image: join(folder, "vmlinuz"),
    initramfs: join(folder, "initramfs.gz"),
    modules: join(folder, "lib/modules", release),
  };
}

/**
 * Builds the kernel's own RTRS and RNBD modules into its modules folder, if they are not there.
 * @throws when that can't be done.
 */
export async function prepareRnbd(cache: string, kernel: Kernel): Promise<void> {
  const key = hashOf(buildRnbd.toString(), kernel.version);
  const extra = join(kernel.modules, "extra");
  const folder = join(extra, `rnbd-${key}`);
  if (existsSync(folder) || (await isModule(kernel, "rnbd-client"))) return;
  const major = kernel.release.split(".").slice(0, 2).join(".");
  await install([...BUILD_PACKAGES, `linux-headers-${kernel.release}`]);
  process.stderr.write("building rtrs and rnbd for the guests\n");
  rmSync(extra, { recursive: true, force: true });
  mkdirSync(extra, { recursive: true });
  await build(cache, folder, (partial) => buildRnbd(partial, kernel, `linux-source-${major}`));
  await run(["depmod", "-b", join(kernel.modules, "../../.."), kernel.release]);
}

async function currentRelease(): Promise<string> {
  const find = async () => {
    const text = await run(["apt-cache", "depends", "linux-image-amd64"]).catch(() => "");
    return /linux-image-(\d\S*)/.exec(text)?.[1];
  };
  const found = (await find()) ?? (await updateLists().then(find));
  if (found === undefined) throw new Error("apt knows no linux-image-amd64");
  return found;
}

async function versionOf(name: string): Promise<string> {
  const text = await run(["apt-cache", "policy", name]);
  const version = /Candidate: (\S+)/.exec(text)?.[1];
  if (version === undefined || version === "(none)") throw new Error(`apt can't get ${name}`);
  return version;
}

async function isModule(kernel: Kernel, name: string): Promise<boolean> {
  const base = join(kernel.modules, "../../..");
  return succeeds(["modprobe", "-d", base, "-S", kernel.release, "--show-depends", name]);
}

/** Makes `folder` whole or not at all, also when several runs make it at once. */
async function build(
  cache: string,
  folder: string,
  make: (partial: string) => Promise<void>,
): Promise<void> {
  mkdirSync(cache, { recursive: true });
  const partial = mkdtempSync(join(cache, "partial-"));
  try {
    await make(partial);
    if (!existsSync(folder)) renameSync(partial, folder);
  } finally {
    rmSync(partial, { recursive: true, force: true });
  }
}

async function unpackKernel(partial: string, release: string, version: string): Promise<void> {
  process.stderr.write(`unpacking Debian's kernel ${release} (${version})\n`);
  const archive = await download(partial, `linux-image-${release}`, version);
  const unpack = `dpkg-deb --fsys-tarfile '${archive}' | tar -x -C '${partial}' ./boot ./lib`;
  await run(["sh", "-c", unpack]);
  rmSync(archive);
  renameSync(join(partial, "boot", `vmlinuz-${release}`), join(partial, "vmlinuz"));
  rmSync(join(partial, "boot"), { recursive: true });
  await run(["depmod", "-b", partial, release]);
  await makeInitramfs(partial, release);
}

async function makeInitramfs(partial: string, release: string): Promise<void> {
  const tree = join(partial, "initramfs");
  for (const folder of ["bin", "dev", "proc", "sys", "modules"]) {
    mkdirSync(join(tree, folder), { recursive: true });
  }
  const paths: string[] = [];
  for (const name of EARLY_MODULES) {
    const show = ["modprobe", "-d", partial, "-S", release, "--show-depends", name];
    for (const [, path] of (await run(show)).matchAll(/^insmod (\S+)/gm)) {
      if (path !== undefined && !paths.includes(path)) paths.push(path);
    }
  }
  for (const path of paths) copyFileSync(path, join(tree, "modules", basename(path)));
  writeFileSync(join(tree, "modules.list"), `${paths.map((path) => basename(path)).join("\n")}\n`);
  copyFileSync("/bin/busybox", join(tree, "bin/busybox"));
  copyFileSync(INIT, join(tree, "init"));
  const pack = "chmod 755 init bin/busybox && find . | cpio -o -H newc --quiet | gzip -1";
  await run(["sh", "-c", `${pack} > ../initramfs.gz`], { cwd: tree });
  rmSync(tree, { recursive: true });
}

/** @returns the path of the package's file in `folder`. */
async function download(folder: string, name: string, version: string): Promise<string> {
  const get = () => run(["apt-get", "download", "-qq", `${name}=${version}`], { cwd: folder });
  // Lists that are some days old name files that are gone.
  await get().catch(async () => {
    await updateLists();
    return get();
  });
  const file = readdirSync(folder).find((entry) => entry.startsWith(`${name}_`));
  if (file === undefined) throw new Error(`apt-get download left no ${name}`);
  return join(folder, file);
}

async function buildRnbd(partial: string, kernel: Kernel, source: string): Promise<void> {
  const work = join(partial, "source");
  mkdirSync(work);
  const tarball = join(partial, "source.tar.xz");
  const archive = await download(partial, source, kernel.version);
  const inner = `./usr/src/${source}.tar.xz`;
  await run(["sh", "-c", `dpkg-deb --fsys-tarfile '${archive}' | tar -xO ${inner} > ${tarball}`]);
  const parts = ["*/drivers/infiniband/ulp/rtrs", "*/drivers/block/rnbd"];
  const pick = ["tar", "-C", work, "-xf", tarball, "--strip-components=1", "--wildcards"];
  await run([...pick, ...parts]);
  writeFileSync(
    join(work, "Kbuild"),
    "obj-m += drivers/infiniband/ulp/rtrs/ drivers/block/rnbd/\n",
  );
  const config = [
    ...["CONFIG_INFINIBAND_RTRS=m", "CONFIG_INFINIBAND_RTRS_CLIENT=m"],
    ...["CONFIG_INFINIBAND_RTRS_SERVER=m", "CONFIG_BLK_DEV_RNBD=y"],
    ...["CONFIG_BLK_DEV_RNBD_CLIENT=m", "CONFIG_BLK_DEV_RNBD_SERVER=m"],
    `KCFLAGS=-I${work}/drivers/infiniband/ulp/rtrs`,
  ];
  const headers = `/lib/modules/${kernel.release}/build`;
  await run(["make", "-s", "-j2", "-C", headers, `M=${work}`, ...config, "modules"]);
  const find = await run(["find", work, "-name", "*.ko"]);
  for (const path of find.trim().split("\n")) {
    await run(["strip", "-g", path]);
    cpSync(path, join(partial, basename(path)));
  }
  for (const name of [work, tarball, archive]) rmSync(name, { recursive: true, force: true });
}

function hashOf(...parts: readonly string[]): string {
  return createHash("sha256").update(parts.join("\0")).digest("hex").slice(0, 12);
}

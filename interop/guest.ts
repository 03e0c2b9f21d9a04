// SPDX-License-Identifier: MIT
// A guest: a stock Debian kernel in QEMU whose root file system is this machine's (read-only, with
// an overlay), so that every program installed here runs there. Commands go in as files on a shared
// folder, told on a serial port, and so do their ends: nothing polls.

import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { basename, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Kernel } from "./kernel.js";
import { addressOf, type IpVersion, LINKS, type Link, type Network } from "./network.js";
import { Process, tail } from "./processes.js";

const SCRIPT = fileURLToPath(new URL("../../interop/guest.sh", import.meta.url));
const BOOT_MS = 240_000;
/** Emulated machines are slow, and so are machines that do other things as well. */
const COMMAND_MS = 180_000;
/** No offloads: every packet on the tap is as it would be on a wire. */
const NO_OFFLOADS = [
  ...["csum", "gso", "guest_csum", "guest_tso4", "guest_tso6", "guest_ufo"],
  ...["host_tso4", "host_tso6", "host_ufo"],
]
  .map((offload) => `${offload}=off`)
  .join(",");

/** Else the kernel looks whether its timer ticks, and panics where the machine is too busy. */
const NO_TIMER_CHECK = "no_timer_check";

/** The tap devices are there already. */
const NO_SCRIPTS = "script=no,downscript=no,vhost=off";

export interface GuestOptions {
  /** Last number of its addresses. */
  readonly host: number;
  readonly memoryMiB: number;
  /** Emulated by software, or on the machine's own virtualisation. */
  readonly accelerator: "tcg" | "kvm";
  /** Ends with this process even if that is killed; off for guests that are to be kept. */
  readonly isTied: boolean;
}

/** A command in the guest that has been started. */
export class GuestCommand {
  readonly text: string;
  /** Its exit status; 255 when the guest ended first. */
  readonly exited: Promise<number>;
  status: number | null = null;
  private settle: (status: number) => void = () => {};
  private readonly outputPath: string;
  private readonly send: (signal: string) => void;

  constructor(text: string, outputPath: string, send: (signal: string) => void) {
    this.text = text;
    this.outputPath = outputPath;
    this.send = send;
    this.exited = new Promise((resolve) => {
      this.settle = resolve;
    });
  }

  /** What it has said so far. */
  get output(): string {
    try {
      return readFileSync(this.outputPath, "utf8");
    } catch {
      return "";
    }
  }

  /** Signals its process group. */
  signal(name: "TERM" | "KILL" | "INT"): void {
    if (this.status === null) this.send(name);
  }

  /** Waits for its end. @throws when that takes too long. */
  async end(timeoutMs = COMMAND_MS): Promise<number> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        this.signal("KILL");
        reject(new Error(`guest: no end in ${timeoutMs} ms: ${this.evidence()}`));
      }, timeoutMs);
    });
    try {
      return await Promise.race([this.exited, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Waits until it says `pattern`. @throws when it ends or is late. */
  async waitFor(pattern: RegExp, timeoutMs = 60_000): Promise<RegExpExecArray> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const hasEnded = this.status !== null;
      const found = pattern.exec(this.output);
      if (found !== null) return found;
      if (hasEnded || Date.now() > deadline) {
        throw new Error(`guest: no ${pattern} in the output of ${this.evidence()}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** The command, its status and the end of its output, for an error. */
  evidence(): string {
    return `${this.text}\nstatus ${this.status ?? "none yet"}\n${tail(this.output)}`;
  }

  /** Called by the guest. */
  finish(status: number): void {
    if (this.status !== null) return;
    this.status = status;
    this.settle(status);
  }
}

export class Guest {
  readonly host: number;
  /** Where the guest's console and the output of its commands are. */
  readonly folder: string;
  private readonly qemu: Process;
  private readonly server: Server;
  private port: Socket | null = null;
  private readonly commands = new Map<string, GuestCommand>();
  private nextId = 0;
  private readonly ready: Promise<void>;
  private isGone = false;

  private constructor(network: Network, kernel: Kernel, folder: string, options: GuestOptions) {
    this.host = options.host;
    this.folder = folder;
    mkdirSync(join(folder, "share"), { recursive: true });
    copyFileSync(SCRIPT, join(folder, "share/guest.sh"));
    this.server = createServer();
    this.ready = new Promise((resolve) => {
      this.server.once("connection", (socket) => this.listen(socket, resolve));
    });
    this.server.listen(join(folder, "port"));
    const argv = qemuCommand(network, kernel, folder, options);
    this.qemu = new Process(network.inside(argv, options.isTied));
    void this.qemu.exited.then(() => this.close());
  }

  /** Boots one. @throws with the end of its console when it doesn't come up. */
  static async boot(
    network: Network,
    kernel: Kernel,
    folder: string,
    options: GuestOptions,
  ): Promise<Guest> {
    const guest = new Guest(network, kernel, folder, options);
    let timer: NodeJS.Timeout | undefined;
    const failed = new Promise<never>((_, reject) => {
      const say = (why: string) =>
        reject(new Error(`guest ${options.host} did not boot: ${why}\n${guest.console()}`));
      timer = setTimeout(() => say(`nothing in ${BOOT_MS} ms`), BOOT_MS);
      void guest.qemu.exited.then((status) => say(`status ${status}\n${guest.qemu.output}`));
    });
    try {
      await Promise.race([guest.ready, failed]);
      return guest;
    } catch (error) {
      await guest.stop();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  get isRunning(): boolean {
    return !this.isGone;
  }

  get pid(): number {
    return this.qemu.pid;
  }

  address(ip: IpVersion, link: Link = 0): string {
    return addressOf(this.host, ip, link);
  }

  /** Index of an address in the GID table of the link's rxe device. */
  async gidIndex(ip: IpVersion, link: Link = 0): Promise<number> {
    const wanted = ip === 4 ? "0000:ffff:0a" : `fd00:00${78 + link}`;
    const folder = `/sys/class/infiniband/rxe${link}/ports/1/gids`;
    // An address that is new gets its GID a moment later.
    const look = `for i in 0 1 2 3 4 5; do grep -qs ${wanted} $i && echo $i && exit; done`;
    const line = await this.run(
      `cd ${folder}; for _ in $(seq 100); do ${look}; sleep 0.1; done; exit 1`,
    );
    return Number(line);
  }

  /** Runs shell commands to their end. @returns their output. @throws unless their status is 0. */
  async run(text: string, timeoutMs?: number): Promise<string> {
    const command = this.start(text);
    const status = await command.end(timeoutMs);
    if (status !== 0) throw new Error(`guest: ${command.evidence()}`);
    return command.output;
  }

  /** Starts shell commands. */
  start(text: string): GuestCommand {
    const id = `c${this.nextId++}`;
    const share = join(this.folder, "share");
    const command = new GuestCommand(text, join(share, `${id}.out`), (signal) =>
      this.tell(`kill ${id} ${signal}`),
    );
    if (this.isGone) {
      command.finish(255);
      return command;
    }
    writeFileSync(join(share, `${id}.sh`), `${text}\n`);
    this.commands.set(id, command);
    this.tell(`run ${id}`);
    return command;
  }

  /** Copies a file of this machine to the guest. @returns its path there. */
  put(path: string): string {
    const name = basename(path);
    copyFileSync(path, join(this.folder, "share", name));
    return `/share/${name}`;
  }

  /** Kills the commands that still run. */
  killCommands(): void {
    for (const command of this.commands.values()) command.signal("KILL");
  }

  /** The end of what its kernel has said. */
  console(lines = 30): string {
    return tail(this.log() || "(no console)", lines);
  }

  /** All that its kernel has said, from character `from` on. */
  log(from = 0): string {
    try {
      const text = readFileSync(join(this.folder, "console"), "utf8");
      return text.replaceAll("\r", "").slice(from);
    } catch {
      return "";
    }
  }

  async stop(): Promise<void> {
    // There is nothing on its disks: it has none.
    this.qemu.signal("SIGKILL");
    await this.qemu.exited;
    this.close();
  }

  private listen(socket: Socket, onReady: () => void): void {
    this.port = socket;
    socket.on("error", () => this.close());
    const lines = createInterface({ input: socket });
    // It says again what the socket says: QEMU has ended.
    lines.on("error", () => this.close());
    lines.on("line", (line) => {
      const [verb, id = "", status = "255"] = line.trim().split(" ");
      if (verb === "ready") onReady();
      if (verb === "done") {
        this.commands.get(id)?.finish(Number(status));
        this.commands.delete(id);
      }
    });
  }

  private tell(line: string): void {
    this.port?.write(`${line}\n`);
  }

  private close(): void {
    if (this.isGone) return;
    this.isGone = true;
    this.server.close();
    this.port?.destroy();
    for (const command of this.commands.values()) command.finish(255);
    this.commands.clear();
  }
}

function qemuCommand(
  network: Network,
  kernel: Kernel,
  folder: string,
  options: GuestOptions,
): string[] {
  const { host } = options;
  const share = (tag: string, path: string, model: string) => [
    "-virtfs",
    `local,path=${path},mount_tag=${tag},id=${tag},multidevs=remap,security_model=${model}`,
  ];
  const nics = LINKS.flatMap((link) => {
    const mac = `52:54:00:78:0${link}:0${host}`;
    return [
      ...["-netdev", `tap,id=n${link},ifname=${network.tap(host, link)},${NO_SCRIPTS}`],
      ...["-device", `virtio-net-pci,netdev=n${link},mac=${mac},${NO_OFFLOADS}`],
    ];
  });
  return [
    ...["qemu-system-x86_64", "-accel", options.accelerator, "-cpu", "max", "-smp", "1"],
    ...["-m", `${options.memoryMiB}`, "-nodefaults", "-no-user-config", "-display", "none"],
    ...["-no-reboot", "-kernel", kernel.image, "-initrd", kernel.initramfs],
    ...["-append", `console=ttyS0 quiet panic=-1 ${NO_TIMER_CHECK} farpage.host=${host}`],
    ...["-serial", `file:${join(folder, "console")}`, "-serial", `unix:${join(folder, "port")}`],
    ...share("root", "/", "passthrough,readonly=on"),
    ...share("share", join(folder, "share"), "none"),
    ...share("modules", kernel.modules, "none,readonly=on"),
    ...nics,
  ];
}

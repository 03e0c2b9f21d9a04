// SPDX-License-Identifier: MIT
// Runs cases one after the other: each in a guest that works, each cleaned up after.

import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { type CaseContext, type InteropCase, PassingFault, PeerFault, Unfit } from "./case.js";
import { Farpage } from "./farpage.js";
import { Guest } from "./guest.js";
import { HangWatch } from "./hang-watch.js";
import type { Kernel } from "./kernel.js";
import type { Result, Verdict } from "./matrix.js";
import { addressOf, GUEST_HOST, type IpVersion, type Network } from "./network.js";
import type { Need } from "./packages.js";
import { Process, run } from "./processes.js";

const CASE_SECONDS = 300;
const GUEST_MEMORY_MIB = 1024;
/** Of a case that meets a fault of the kernel which comes now and then. */
const ATTEMPTS_MAX = 3;

type Outcome<V = Verdict> = [verdict: V, text: string];

/** One case in one IP version. */
export interface Job {
  readonly subject: InteropCase;
  readonly ip: IpVersion;
}

export interface RunnerOptions {
  readonly network: Network;
  readonly kernel: Kernel;
  /** Consoles, outputs and captures; made by the caller. */
  readonly folder: string;
  /** What can't be had, and why. */
  readonly lacking: ReadonlyMap<Need, string>;
  /** Capture every case's packets into the folder. */
  readonly capture: boolean;
  /** Leave the guest of a failed case running. */
  readonly keep: boolean;
  /** Use the machine's own virtualisation. */
  readonly kvm: boolean;
  /** How a guest is booted; other than `Guest.boot` in tests. */
  readonly boot?: typeof Guest.boot;
}

export class Runner {
  private readonly options: RunnerOptions;
  private guest: Guest | null = null;
  private guestCount = 0;
  private isStopped = false;
  /** A case could not undo what it did to the guest: no other case gets it. */
  private isSpoiled = false;
  /** Of the current case. */
  private farpages: Farpage[] = [];
  /** When the current case began: its guest's boot is not its own time. */
  private startMs = 0;

  constructor(options: RunnerOptions) {
    this.options = options;
  }

  /** Runs one. Never throws. */
  async run(job: Job): Promise<Result> {
    this.startMs = performance.now();
    const [verdict, text] = await this.judge(job);
    const seconds = (performance.now() - this.startMs) / 1000;
    const { id, title, direction } = job.subject;
    return { id, title, direction, ip: job.ip, verdict, text, seconds };
  }

  /** No further case is begun; the one that runs loses its guest. */
  async stop(): Promise<void> {
    this.isStopped = true;
    await this.guest?.stop();
    this.guest = null;
  }

  /** The guest that is there, for whoever keeps it. */
  get current(): Guest | null {
    return this.guest;
  }

  private async judge(job: Job): Promise<Outcome> {
    const { subject } = job;
    const needs: Need[] = this.options.capture ? [...subject.needs, "tcpdump"] : [...subject.needs];
    for (const need of needs) {
      const reason = this.options.lacking.get(need);
      if (reason !== undefined) return ["skipped", reason];
    }
    for (const faults: string[] = []; ; ) {
      const [verdict, text] = await this.tryOnce(job, subject.fresh === true || faults.length > 0);
      if (verdict === "passing") {
        faults.push(text);
        if (faults.length < ATTEMPTS_MAX) continue;
        // Once is bad luck; a kernel that does it each time is provoked by something.
        return ["failed", `${ATTEMPTS_MAX} times in a row: ${text}`];
      }
      if (verdict !== "passed" || faults.length === 0) return [verdict, text];
      const first = faults[0]?.split("\n", 1)[0] ?? "";
      const note = `attempt ${faults.length + 1}; before it ${first}`;
      return [verdict, text === "" ? note : `${text}; ${note}`];
    }
  }

  /** @returns `passing` with the evidence for what another attempt may not meet. */
  private async tryOnce(job: Job, fresh: boolean): Promise<Outcome<Verdict | "passing">> {
    const { subject } = job;
    let guest: Guest;
    try {
      guest = await this.provideGuest(fresh);
    } catch (error) {
      return ["failed", messageOf(error)];
    }
    this.startMs = performance.now();
    try {
      const note = await this.attempt(job, guest);
      if (subject.fresh === true || this.isSpoiled) await this.dropGuest();
      return ["passed", note ?? ""];
    } catch (error) {
      if (error instanceof Unfit) {
        if (this.isSpoiled) await this.dropGuest();
        return ["skipped", error.message];
      }
      const console = `guest's console:\n${guest.console(15)}`;
      const message = messageOf(error);
      // What our side said may be why the kernel's failed.
      const ours = this.farpages
        .map((farpage) => farpage.evidence())
        .filter((evidence) => !message.includes(evidence));
      const text = [message, ...ours, console].join("\n");
      // What it left behind in the kernel is unknown: the next case gets another guest.
      if (!this.options.keep) await this.dropGuest();
      if (error instanceof PassingFault) return ["passing", text];
      return [error instanceof PeerFault ? "peer" : "failed", text];
    }
  }

  private async attempt(job: Job, guest: Guest): Promise<string | undefined> {
    this.farpages = [];
    const undo: (() => Promise<void>)[] = [];
    const folder = join(this.options.folder, `${job.subject.id}-${job.ip}`);
    mkdirSync(folder, { recursive: true });
    if (this.options.capture) undo.push(await this.capture(`${folder}.pcap`));
    undo.push(async () => rmSync(folder, { recursive: true, force: true }));
    const context = this.contextOf(job, guest, folder, undo);
    const limitSeconds = job.subject.timeoutSeconds ?? CASE_SECONDS;
    let watch: HangWatch | null = null;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const say = () => reject(new Error(`no end in ${limitSeconds} s`));
      timer = setTimeout(say, limitSeconds * 1000);
    });
    try {
      if (job.subject.mayHang === true) watch = await HangWatch.begin(guest);
      const ends = [job.subject.run(context), late, ...(watch === null ? [] : [watch.hung])];
      return await Promise.race(ends);
    } catch (error) {
      throw watch === null ? error : await watch.explain(error);
    } finally {
      clearTimeout(timer);
      watch?.stop();
      guest.killCommands();
      for (const step of undo.reverse()) {
        await step().catch(() => {
          this.isSpoiled = true;
        });
      }
    }
  }

  private contextOf(
    job: Job,
    guest: Guest,
    folder: string,
    undo: (() => Promise<void>)[],
  ): CaseContext {
    const { network } = this.options;
    const { ip } = job;
    return {
      ip,
      guest,
      network,
      folder,
      here: (link = 0) => addressOf(1, ip, link),
      there: (link = 0) => guest.address(ip, link),
      farpage: (...args) => {
        const farpage = new Farpage(network, args);
        this.farpages.push(farpage);
        undo.push(() => farpage.process.stop(3000).then(() => {}));
        return farpage;
      },
      run: (...argv) => run(network.inside(argv), { timeoutMs: 180_000 }),
      capture: async () => {
        const path = join(folder, `packets-${undo.length}.pcap`);
        const end = await this.capture(path);
        undo.push(end);
        return async () => {
          await end();
          return path;
        };
      },
      finally: (step) => undo.push(step),
    };
  }

  private async provideGuest(fresh: boolean): Promise<Guest> {
    if (fresh || this.guest?.isRunning !== true) await this.dropGuest();
    if (this.isStopped) throw new Error("interrupted");
    if (this.guest === null) {
      const { network, kernel, folder, keep, kvm } = this.options;
      const home = join(folder, `guest-${this.guestCount++}`);
      const boot = this.options.boot ?? Guest.boot;
      this.guest = await boot(network, kernel, home, {
        host: GUEST_HOST,
        memoryMiB: GUEST_MEMORY_MIB,
        accelerator: kvm ? "kvm" : "tcg",
        isTied: !keep,
      });
    }
    return this.guest;
  }

  private async dropGuest(): Promise<void> {
    const guest = this.guest;
    this.guest = null;
    this.isSpoiled = false;
    await guest?.stop();
  }

  /** @returns what ends the capture. */
  private async capture(path: string): Promise<() => Promise<void>> {
    const { network } = this.options;
    const filter = ["udp", "port", "4791"];
    const argv = ["tcpdump", "-U", "-Z", "root", "-i", network.bridge(0), "-w", path, ...filter];
    const tcpdump = new Process(network.inside(argv));
    await tcpdump.waitFor(/listening on/);
    return async () => {
      await tcpdump.stop();
    };
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

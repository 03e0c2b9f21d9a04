// SPDX-License-Identifier: MIT
// The server whose week is played: a mix of what fills and fragments a real one, in proportion to
// its memory, minute by minute. All draws come from the seed and none depends on what the allocator
// answered, so that every policy is given the same week.

import type { Random } from "../../base/index.js";
import type { PhysicalMemory } from "../frames/index.js";
import { logNormal, uniform } from "./chance.js";
import { FileCache } from "./file-cache.js";
import { Ledger } from "./frame-set.js";
import {
  Arrivals,
  type Home,
  KernelObjects,
  PinnedBuffers,
  Processes,
  Residents,
} from "./residents.js";

/** Shares of all memory, rates per hour, times in minutes: the mix. */
export const MIX = {
  /** Kernel code and data at boot. */
  bootShare: 0.012,
  /** Services that run for the whole week. */
  serviceCount: 12,
  serviceShare: 0.022,
  /** Programs that come and go. */
  programsPerHour: 16,
  program: { median: 0.0015, sigma: 1.1 },
  programStay: { minutes: 35, longShare: 0.1, longMinutes: 600 },
  /** Registered buffers. */
  buffersPerHour: 8,
  buffer: { median: 0.0004, sigma: 1 },
  bufferStay: { minutes: 25, longShare: 0.25, longMinutes: 900 },
  /** Pages of the kernel's own, single and in small blocks. */
  kernelPagesPerHour: 60,
  kernelPageStay: { minutes: 15, longShare: 0.15, longMinutes: 1800 },
  sessionsPerHour: 120,
  sessionStay: { minutes: 120, longShare: 0.2, longMinutes: 1500 },
  /** Memory of packets at the busiest hour, and how many of them leave in a minute. */
  packetShare: 0.002,
  packetTurn: 0.3,
  /** File contents read in an hour by day, and in the hours of the nightly copies. */
  dayReadShare: 0.03,
  nightReadShare: 0.25,
  nightHours: [1, 2, 3, 4],
  fileFrames: { median: 12, sigma: 1.4 },
  /** Files of a copy are larger. */
  copyFrames: { median: 60, sigma: 1.5 },
  hotShare: 0.25,
  touchShare: 0.04,
  deletesPerHour: 40,
  /** The buffer of a nightly copy. */
  copyBufferShare: 1 / 64,
} as const;

const MINUTE_NS = 60e9;
const HOUR_MINUTES = 60;
/** Turns of background work in a minute at most. */
const TURNS_PER_MINUTE = 256;

export class Server {
  readonly memory: PhysicalMemory;
  readonly ledger = new Ledger();
  readonly cache: FileCache;
  readonly buffers: PinnedBuffers;
  /** Minutes since boot. */
  minute = 0;
  private readonly home: Home;
  private readonly processes: Processes;
  private readonly kernel: KernelObjects;
  private readonly arrivals: Readonly<
    Record<"programs" | "buffers" | "kernel" | "sessions", Arrivals>
  >;
  private readonly fileRandom: Random;
  private readonly touchRandom: Random;
  private readonly frameCount: number;

  constructor(memory: PhysicalMemory, random: Random) {
    this.memory = memory;
    this.frameCount = memory.normalFrames;
    const residents = new Residents();
    this.home = { memory, ledger: this.ledger, residents, random: random.fork("packets") };
    this.processes = new Processes(this.home);
    this.kernel = new KernelObjects(this.home);
    this.buffers = new PinnedBuffers(this.home);
    this.cache = new FileCache(memory, this.ledger);
    this.fileRandom = random.fork("files");
    this.touchRandom = random.fork("touches");
    this.arrivals = {
      programs: new Arrivals(random.fork("programs")),
      buffers: new Arrivals(random.fork("buffers")),
      kernel: new Arrivals(random.fork("kernel")),
      sessions: new Arrivals(random.fork("sessions")),
    };
    this.kernel.boot(Math.floor(MIX.bootShare * this.frameCount));
  }

  /** Lets one minute pass. */
  playMinute(): void {
    const hour = Math.floor(this.minute / HOUR_MINUTES) % 24;
    if (this.minute < MIX.serviceCount) this.startService();
    this.home.residents.leaveAt(this.minute);
    this.arrive();
    this.turnPackets(hour);
    this.readFiles(hour);
    if (hour === MIX.nightHours[0] && this.minute % HOUR_MINUTES === 0) this.startCopy();
    this.memory.balance();
    this.compact();
    this.minute++;
  }

  private compact(): void {
    const { compactor } = this.memory;
    const endNs = (this.minute + 1) * MINUTE_NS;
    for (let turn = 0; turn < TURNS_PER_MINUTE; turn++) {
      const deadlineNs = Math.max(compactor.deadlineNs(), this.minute * MINUTE_NS);
      if (deadlineNs >= endNs) return;
      compactor.pump(deadlineNs);
    }
  }

  private startService(): void {
    this.processes.start(Math.floor(MIX.serviceShare * this.frameCount), Number.POSITIVE_INFINITY);
  }

  /** The copy's buffer is pinned until the night's copies are over. */
  private startCopy(): void {
    const frames = Math.floor(MIX.copyBufferShare * this.frameCount);
    this.buffers.register(frames, this.minute + MIX.nightHours.length * HOUR_MINUTES - 1);
  }

  private arrive(): void {
    const { arrivals, frameCount, minute } = this;
    const scaled = ({ median, sigma }: { readonly median: number; readonly sigma: number }) => ({
      median: median * frameCount,
      sigma,
    });
    arrivals.programs.draw(
      MIX.programsPerHour,
      scaled(MIX.program),
      MIX.programStay,
      (size, stay) => this.processes.start(Math.min(size, frameCount / 16), minute + 1 + stay),
    );
    arrivals.buffers.draw(MIX.buffersPerHour, scaled(MIX.buffer), MIX.bufferStay, (size, stay) =>
      this.buffers.register(Math.min(size, Math.floor(frameCount / 64)), minute + 1 + stay),
    );
    // Larger memory serves more of what has a size of its own.
    const many = frameCount / 2 ** 18;
    const single = { median: 1, sigma: 1 };
    const { kernelPagesPerHour, kernelPageStay, sessionsPerHour, sessionStay } = MIX;
    arrivals.kernel.draw(kernelPagesPerHour * many, single, kernelPageStay, (size, stay) =>
      this.kernel.holdPages(Math.min(3, Math.floor(Math.log2(size))), minute + 1 + stay),
    );
    arrivals.sessions.draw(sessionsPerHour * many, single, sessionStay, (_size, stay) =>
      this.kernel.openSession(minute + 1 + stay),
    );
  }

  private turnPackets(hour: number): void {
    // Busiest in the afternoon, quietest before dawn, and never even.
    const day = 0.5 - 0.5 * Math.cos(((hour + 21) / 24) * 2 * Math.PI);
    const level = (0.2 + 0.8 * day) * (0.7 + 0.6 * uniform(this.home.random));
    const target = Math.floor((MIX.packetShare * level * this.frameCount * 4096) / 2048);
    this.kernel.turnPackets(target, MIX.packetTurn);
  }

  private readFiles(hour: number): void {
    const isNight = (MIX.nightHours as readonly number[]).includes(hour);
    const share = isNight ? MIX.nightReadShare : MIX.dayReadShare;
    const { median, sigma } = isNight ? MIX.copyFrames : MIX.fileFrames;
    let left = (share * this.frameCount) / HOUR_MINUTES;
    while (left > 0) {
      const frames = Math.min(
        Math.max(1, Math.round(logNormal(this.fileRandom, median, sigma))),
        4096,
      );
      const isHot = !isNight && uniform(this.fileRandom) < MIX.hotShare;
      this.cache.read(frames, isHot);
      left -= frames;
    }
    const touches = (MIX.touchShare * this.frameCount) / HOUR_MINUTES;
    this.cache.touch(this.touchRandom, Math.ceil(touches));
    if (uniform(this.fileRandom) < MIX.deletesPerHour / HOUR_MINUTES) {
      this.cache.deleteSome(this.touchRandom);
    }
  }
}

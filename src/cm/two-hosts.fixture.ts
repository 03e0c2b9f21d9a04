// SPDX-License-Identifier: MIT
// Two hosts for the convergence tests: two connection managers and a pipe that loses, repeats,
// reorders and delays their MADs, by seed. What must hold: both applications always learn how it
// ended, both agree, and nothing is left.
import { expect } from "vitest";
import { IpAddress, type Random, randomBelow, SeededRandom } from "../base/index.js";
import { QP_STATE } from "../verbs/index.js";
import type { CmId } from "./cm-id.js";
import { CmHost, MS } from "./script.fixture.js";

const ADDRESSES = [IpAddress.parse("192.0.2.1"), IpAddress.parse("192.0.2.2")];
const PORT = 4000;

export interface Faults {
  readonly lossRate: number;
  readonly duplicateRate: number;
  /** Each copy takes 0 .. this long: more than a repetition interval reorders and delivers late. */
  readonly delayNsMax: number;
}

/** Goodbyes last until the weather is good again: a peer that heard none of them knows nothing. */
const TUNING = { disconnectTimeoutNs: 60_000 * MS };

/** What an application has seen of one id. */
interface Life {
  readonly id: CmId;
  readonly events: string[];
  /** What the application will do with it: steps with their times. */
  readonly steps: { readonly atNs: number; readonly run: () => void }[];
}

class World {
  readonly hosts: CmHost[];
  readonly lives: Life[][] = [[], []];
  nowNs = 0;
  private readonly random: Random;
  private faults: Faults;
  private flights: { atNs: number; to: number; bytes: Uint8Array }[] = [];

  constructor(seed: number, faults: Faults) {
    this.random = new SeededRandom(seed);
    this.faults = faults;
    this.hosts = ADDRESSES.map((address, i) => new CmHost([address], seed * 2 + i, TUNING));
    for (const host of this.hosts) host.channel.listen({ address: null, port: PORT });
  }

  connect(from: number): void {
    const host = this.hosts[from] as CmHost;
    const id = host.channel.createId();
    const [source, destination] = [ADDRESSES[from], ADDRESSES[1 - from]] as [IpAddress, IpAddress];
    id.resolve({ source, destination, port: PORT });
    id.bindQp(host.createQp());
    id.connect();
    this.live(from, id);
  }

  /** From now on the pipe is perfect. */
  heal(): void {
    this.faults = { lossRate: 0, duplicateRate: 0, delayNsMax: MS };
  }

  run(untilNs: number): void {
    while (this.nowNs < untilNs) {
      this.turn();
      const next = Math.min(
        ...this.flights.map((flight) => flight.atNs),
        ...this.hosts.map((host) => host.cm.deadlineNs()),
        ...this.lives.flat().flatMap((life) => life.steps.map((step) => step.atNs)),
        untilNs,
      );
      this.nowNs = Math.max(this.nowNs + 1, next);
    }
    this.turn();
  }

  private turn(): void {
    const due = this.flights.filter((flight) => flight.atNs <= this.nowNs);
    this.flights = this.flights.filter((flight) => flight.atNs > this.nowNs);
    for (const { to, bytes } of due) {
      const [source, destination] = [ADDRESSES[1 - to], ADDRESSES[to]] as [IpAddress, IpAddress];
      const view = new DataView(bytes.buffer);
      const mad = { bytes, view, offset: 0, devicePort: 0, source, destination };
      (this.hosts[to] as CmHost).port.inbox.push(mad);
    }
    for (const [i, host] of this.hosts.entries()) {
      host.cm.pump(this.nowNs);
      this.poll(i, host);
      this.step(i);
      host.cm.checkInvariants();
      for (const { bytes } of host.port.sent.splice(0)) this.fly(1 - i, bytes);
    }
  }

  private fly(to: number, bytes: Uint8Array): void {
    const { lossRate, duplicateRate, delayNsMax } = this.faults;
    const copies = this.happens(duplicateRate) ? 2 : 1;
    for (let copy = 0; copy < copies; copy++) {
      if (this.happens(lossRate)) continue;
      const atNs = this.nowNs + 1 + randomBelow(this.random, delayNsMax);
      this.flights.push({ atNs, to, bytes });
    }
  }

  private poll(i: number, host: CmHost): void {
    for (let event = host.channel.poll(); event !== null; event = host.channel.poll()) {
      const { id, type } = event;
      if (type === "CONNECT_REQUEST") {
        const life = this.live(i, id);
        // Some applications take longer than the peer's patience.
        this.later(life, 3_000 * MS, () => {
          if (id.state !== "REQ_RCVD") return;
          if (this.happens(0.15)) {
            life.events.push("REFUSED");
            id.reject();
            return;
          }
          id.bindQp(host.createQp());
          id.accept();
        });
        continue;
      }
      const life = this.lives[i]?.find((other) => other.id === id) as Life;
      life.events.push(type);
      if (type === "DISCONNECTED") this.later(life, 50 * MS, () => id.disconnect());
    }
  }

  private live(i: number, id: CmId): Life {
    const life: Life = { id, events: [], steps: [] };
    this.lives[i]?.push(life);
    // One in three loses patience by itself, at any time.
    if (this.happens(0.3)) this.later(life, 8_000 * MS, () => id.disconnect());
    return life;
  }

  private later(life: Life, delayNsMax: number, run: () => void): void {
    life.steps.push({ atNs: this.nowNs + 1 + randomBelow(this.random, delayNsMax), run });
  }

  private step(i: number): void {
    for (const life of this.lives[i] ?? []) {
      const due = life.steps.filter((step) => step.atNs <= this.nowNs);
      life.steps.splice(0, life.steps.length, ...life.steps.filter((s) => s.atNs > this.nowNs));
      for (const { run } of due) run();
    }
  }

  private happens(rate: number): boolean {
    return randomBelow(this.random, 1_000_000) < rate * 1_000_000;
  }
}

/** REFUSED is not an event: the application itself has said no. */
const ENDS = ["REFUSED", "REJECTED", "UNREACHABLE", "CONNECT_ERROR", "DISCONNECTED"];

/** Runs six connections of one seed through bad weather, then good, and checks how they ended. */
export function checkConvergence(seed: number, faults: Faults): void {
  const world = new World(seed, faults);
  for (let i = 0; i < 6; i++) world.connect(i % 2);
  world.run(20_000 * MS);
  world.heal();
  world.run(150_000 * MS);
  for (const { id, events } of world.lives.flat()) {
    // Each exchange is up on this side, or has ended exactly once.
    const ends = events.filter((event) => ENDS.includes(event)).length;
    expect(ends, events.join()).toBe(id.state === "ESTABLISHED" ? 0 : 1);
    expect(events.filter((event) => event === "ESTABLISHED").length).toBeLessThanOrEqual(1);
    expect(events.slice(1)).not.toContain("CONNECT_REQUEST");
  }
  const up = world.lives.map((lives) =>
    lives
      .filter(({ id }) => id.state === "ESTABLISHED")
      .map(({ id }) => {
        expect(id.qp?.state).toBe(QP_STATE.RTS);
        const own = id.qp?.qpn ?? 0;
        return [own, id.qp?.queryQp().destinationQpn ?? 0];
      }),
  );
  // What one side believes to be up, the other does too: nobody is connected to nobody.
  const [left, right] = up as [number[][], number[][]];
  const mirrored = right.map(([own, peer]) => `${peer},${own}`).sort();
  expect(left.map((pair) => pair.join()).sort()).toEqual(mirrored);
  for (const host of world.hosts) host.channel.close();
  world.run(200_000 * MS);
  for (const host of world.hosts) expect(host.cm.liveCount).toBe(0);
}

// SPDX-License-Identifier: MIT
// The loop against a poller and a link that do nothing, so that each wait is seen.

import { afterEach, describe, expect, it } from "vitest";
import { IpAddress, type Machine, SeededRandom } from "../base/index.js";
import type { OsLink, Poller } from "../os/index.js";
import { Device } from "../transport/index.js";
import { Lane } from "./lane.js";

/** Waits of both kinds are noted; a brief one takes no time. */
class NotingPoller {
  eventLoopIsReady = false;
  onBriefWait: () => void = () => {};
  briefWaits = 0;
  private end: (() => void) | null = null;

  poll(): number {
    return 0;
  }

  waitBriefly(): number {
    this.briefWaits++;
    this.onBriefWait();
    return 0;
  }

  wait(): Promise<void> {
    return new Promise((resolve) => {
      this.end = resolve;
    });
  }

  wake(): void {
    this.end?.();
    this.end = null;
  }
}

const QUIET_LINK = {
  readable: false,
  bursts: [],
  receive: () => 0,
  send: () => 0,
  setWantsWrite: () => {},
} as unknown as OsLink;

let lane: Lane;
let poller: NotingPoller;
let failure: unknown;

function startLane(machine: Pick<Machine, "pump"> & Partial<Machine>): void {
  poller = new NotingPoller();
  failure = null;
  lane = new Lane({
    poller: poller as unknown as Poller,
    link: QUIET_LINK,
    device: new Device({
      addresses: [IpAddress.parse("192.0.2.1")],
      linkMtus: [1500],
      random: new SeededRandom(1),
    }),
    txBytes: new Uint8Array(1 << 16),
    onFailure: (error) => {
      failure = error;
    },
  });
  lane.add({ deadlineNs: () => Number.POSITIVE_INFINITY, checkInvariants: () => {}, ...machine });
  lane.start();
}

afterEach(() => lane.stop());

describe("a lane", () => {
  it("a promise is settled in a turn: who awaits it runs before the loop waits", async () => {
    let settle: () => void = () => {};
    const settled = new Promise<void>((resolve) => {
      settle = resolve;
    });
    let isSettled = false;
    let waitsWhenHeard = -1;
    startLane({
      pump: () => {
        if (isSettled) return;
        isSettled = true;
        settle();
        lane.yieldToNode();
      },
    });
    await settled.then(() => {
      waitsWhenHeard = poller.briefWaits;
    });
    expect(waitsWhenHeard).toBe(0);
  });

  it("nothing was settled: the loop waits without giving Node a turn", async () => {
    // A test that loses the processor for long finds the loop asleep, or at the end of its time: it
    // is kept awake and asked again until two waits follow each other.
    startLane({ pump: () => lane.wake() });
    poller.wait = () => new Promise((resolve) => setImmediate(resolve));
    const waits = await new Promise<number>((resolve) => {
      let before = 0;
      let isAsked = false;
      poller.onBriefWait = () => {
        if (isAsked) return;
        isAsked = true;
        before = poller.briefWaits;
        queueMicrotask(() => {
          isAsked = false;
          if (poller.briefWaits > before) resolve(poller.briefWaits - before);
        });
      };
    });
    expect(waits).toBeGreaterThan(0);
  });

  it("a machine throws: the lane has stopped, says so, and stop does not wait for it", async () => {
    const bug = new Error("bug");
    startLane({
      pump: () => {
        throw bug;
      },
    });
    expect(lane.isRunning).toBe(true);
    await new Promise((resolve) => setImmediate(resolve));
    expect(failure).toBe(bug);
    expect(lane.isRunning).toBe(false);
    await lane.stop();
  });

  it("stop: the machines get one more turn", async () => {
    let turns = 0;
    startLane({ pump: () => turns++ });
    await new Promise((resolve) => setImmediate(resolve));
    const before = turns;
    await lane.stop();
    expect(turns).toBeGreaterThan(before);
    expect(lane.isRunning).toBe(false);
  });
});

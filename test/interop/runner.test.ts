// SPDX-License-Identifier: MIT
// When a case is tried again, and when it is not.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { type InteropCase, PeerFault } from "../../interop/case.js";
import { ownDoing, registeredTwiceIn } from "../../interop/evidence.js";
import type { Guest } from "../../interop/guest.js";
import type { Kernel } from "../../interop/kernel.js";
import type { Network } from "../../interop/network.js";
import { Runner } from "../../interop/runner.js";

const LINE = "[   59.3] rdma_rxe: rxe_reg_fast_mr: mr->lkey = 0x3213 not free";

/** What a runner needs of a guest; its kernel says what the test puts into `text`. */
class FakeGuest {
  text = "";
  retries = 0;
  naks = 0;
  isRunning = true;
  log = (from = 0): string => this.text.slice(from);
  console = (): string => this.text;
  run = async (): Promise<string> => `${this.retries}\n${this.naks}\n`;
  killCommands = (): void => {};
  stop = async (): Promise<void> => {
    this.isRunning = false;
  };

  /** Runs a registration twice. */
  fail(naks = 0): void {
    this.retries++;
    this.naks += naks;
    this.text += `${LINE}\n`;
  }
}

describe("runner", () => {
  const folder = mkdtempSync(join(tmpdir(), "farpage-runner-"));
  let guests: FakeGuest[] = [];
  /** What guests' kernels said before the case. */
  let bootText = "";

  beforeEach(() => {
    vi.useFakeTimers();
    guests = [];
    bootText = "[    1.0] booted\n";
  });
  afterEach(() => {
    vi.useRealTimers();
    rmSync(folder, { recursive: true, force: true });
  });

  /** Runs a case of which attempt `n`, 1 upward, does `act(n, guest)`. */
  async function verdictOf(
    act: (attempt: number, guest: FakeGuest) => Promise<string | undefined>,
    change: Partial<InteropCase> = {},
  ) {
    let attempt = 0;
    const runner = new Runner({
      network: {} as Network,
      kernel: {} as Kernel,
      ...{ folder, lacking: new Map(), capture: false, keep: false, kvm: false },
      boot: async () => {
        const guest = new FakeGuest();
        guest.text = bootText;
        guests.push(guest);
        return guest as unknown as Guest;
      },
    });
    const subject: InteropCase = {
      ...{ id: "a", title: "t", direction: "kernel to farpage", ips: [4], needs: [] },
      mayHang: true,
      run: ({ guest }) => act(++attempt, guest as unknown as FakeGuest),
      ...change,
    };
    const done = runner.run({ subject, ip: 4 });
    await vi.runAllTimersAsync();
    const { verdict, text } = await done;
    return { verdict, text, attempts: attempt };
  }

  const forever = () => new Promise<undefined>(() => {});

  it("a registration run twice, the case hangs → ended early, again in a fresh guest", async () => {
    const startMs = Date.now();
    const result = await verdictOf(async (attempt, guest) => {
      if (attempt === 2) return "fine";
      guest.fail();
      return forever();
    });
    expect(result).toMatchObject({ verdict: "passed", attempts: 2 });
    expect(result.text).toContain("fine; attempt 2; before it the kernel sent again");
    expect(result.text).toContain(LINE);
    expect(guests.map(({ isRunning }) => isRunning)).toEqual([false, true]);
    expect(Date.now() - startMs).toBeLessThan(15_000);
  });

  it("the same, and the case fails by itself → again as well", async () => {
    const result = await verdictOf(async (attempt, guest) => {
      if (attempt === 3) return undefined;
      guest.fail();
      throw new Error("I/O error");
    });
    expect(result).toMatchObject({ verdict: "passed", attempts: 3 });
  });

  it("three times in a row → failed, with the evidence", async () => {
    const result = await verdictOf(async (_, guest) => {
      guest.fail();
      return forever();
    });
    expect(result).toMatchObject({ verdict: "failed", attempts: 3 });
    expect(result.text).toContain("3 times in a row");
  });

  it("after a NAK for a missing packet → failed at once: it may be our fault", async () => {
    const result = await verdictOf(async (_, guest) => {
      guest.fail(1);
      return forever();
    });
    expect(result).toMatchObject({ verdict: "failed", attempts: 1 });
    expect(result.text).toContain("no end 10000 ms after the kernel's fault");
  });

  it("a fault before the case, none, another kind of case, another fault → once", async () => {
    bootText = `${LINE}\n`;
    const wrong = async (_: number, guest: FakeGuest) => {
      guest.retries++;
      throw new Error("another content");
    };
    expect(await verdictOf(wrong)).toMatchObject({ verdict: "failed", attempts: 1 });
    const faulty = async (_: number, guest: FakeGuest) => {
      guest.fail();
      throw new Error("why");
    };
    const tough = await verdictOf(faulty, { mayHang: false });
    expect(tough).toMatchObject({ verdict: "failed", attempts: 1 });
    const peer = await verdictOf(async () => Promise.reject(new PeerFault("its fault")));
    expect(peer).toMatchObject({ verdict: "peer", attempts: 1 });
  });

  it("a case that ends well in spite of it → passed, once", async () => {
    const result = await verdictOf(async (_, guest) => {
      guest.fail();
      return "lived on";
    });
    expect(result).toEqual({ verdict: "passed", text: "lived on", attempts: 1 });
  });

  it("evidence: the line as the kernel writes it, and the counters", () => {
    expect(registeredTwiceIn(`a\n${LINE}\nb`)).toBe(LINE);
    expect(registeredTwiceIn("rdma_rxe: retransmit_timer: fired for qp#17")).toBeNull();
    const before = { all: 3, naks: 1 };
    expect(ownDoing(LINE, before, { all: 5, naks: 1 })).toContain("(2 times, 0 NAKs)");
    expect(ownDoing(LINE, before, { all: 5, naks: 2 })).toBeNull();
    expect(ownDoing(LINE, before, { all: Number.NaN, naks: Number.NaN })).toBeNull();
  });
});

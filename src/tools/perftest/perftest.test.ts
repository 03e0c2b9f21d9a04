// SPDX-License-Identifier: MIT
// farpage as both sides of every test, over loopback.

import { describe, expect, it, onTestFinished, vi } from "vitest";
import { loopback, Stage } from "../tools.fixture.js";
import type { BandwidthFigures } from "./figures.js";
import { PERF_KINDS, PERF_VERBS } from "./index.js";
import { optionsOf, runBoth } from "./perftest.fixture.js";
import { Session } from "./session.js";

const EXCHANGES = [
  ["TCP", false],
  ["RDMA CM", true],
] as const;

for (const [exchange, cm] of EXCHANGES) {
  describe(`perftest by ${exchange}`, () => {
    for (const verb of PERF_VERBS) {
      for (const kind of PERF_KINDS) {
        it(`ib_${verb}_${kind}: figures of 20 messages`, async () => {
          const { server, client, there, here } = await runBoth({ verb, kind, cm });
          const figures = [{ messageBytes: verb === "atomic" ? 8 : 3000, iterations: 20 }];
          expect(client).toMatchObject(figures);
          const isClientsAlone = kind === "lat" && (verb === "read" || verb === "atomic");
          expect(server).toMatchObject(isClientsAlone ? [] : figures);
          expect(here.told.map(({ event }) => event)).toEqual(["connected", "result"]);
          expect((await there.heard("connected"))["gid"]).toBe(loopback(3));
        });
      }
    }

    for (const verb of ["write", "read", "send", "atomic"] as const) {
      it(`ib_${verb}_bw -b: both sides' figures are the sum of both`, async () => {
        const { server, client } = await runBoth({ verb, kind: "bw", cm, bidirectional: true });
        expect(client).toHaveLength(1);
        expect(server).toEqual([
          {
            ...client[0],
            mibPerSecond: expect.closeTo((client[0] as { mibPerSecond: number }).mibPerSecond),
            messagesPerSecond: expect.any(Number),
          },
        ]);
      });
    }

    for (const kind of PERF_KINDS) {
      it(`ib_send_${kind} -c UD: 10 datagrams`, async () => {
        const datagrams = { connection: "UD", size: 1000, iterations: 10 } as const;
        const { server, client } = await runBoth({ verb: "send", kind, cm, ...datagrams });
        expect([server, client]).toMatchObject([[{ iterations: 10 }], [{ iterations: 10 }]]);
      });
    }
  });
}

describe("perftest: sizes", () => {
  it("ib_write_lat -a: 2 bytes to 8 MiB, one after the other", async () => {
    const all = { size: "all", iterations: 5 } as const;
    const { server, client } = await runBoth({ verb: "write", kind: "lat", ...all });
    const sizes = Array.from({ length: 23 }, (_, index) => 2 ** (index + 1));
    expect(client.map(({ messageBytes }) => messageBytes)).toEqual(sizes);
    expect(server.map(({ messageBytes }) => messageBytes)).toEqual(sizes);
  });

  it("ib_send_bw -a -c UD: 2 bytes to the MTU", async () => {
    const all = { connection: "UD", size: "all", iterations: 5 } as const;
    const { server, client } = await runBoth({ verb: "send", kind: "bw", ...all }, { mtu: 512 });
    const sizes = [2, 4, 8, 16, 32, 64, 128, 256, 512];
    expect(client.map(({ messageBytes }) => messageBytes)).toEqual(sizes);
    expect(server.map(({ messageBytes }) => messageBytes)).toEqual(sizes);
  });

  it("how often both meet, as counted between stock programs: -a differs by test", async () => {
    const meetings = vi.spyOn(Session.prototype, "meet");
    onTestFinished(() => meetings.mockRestore());
    const all = { verb: "send", connection: "UD", size: "all", iterations: 5 } as const;
    const count = async (kind: "bw" | "lat") => {
      meetings.mockClear();
      await runBoth({ ...all, kind }, { mtu: 256 });
      return meetings.mock.calls.length / 2;
    };
    // 8 sizes; two meetings once the queue pairs are known, one at the end.
    expect(await count("bw")).toBe(2 + 2 * 8 + 1);
    expect(await count("lat")).toBe(2 + 8 + 1);
  });

  it("a server of a one-sided test takes other sizes and counts than its own", async () => {
    const { server } = await runBoth(
      { verb: "write", kind: "bw", size: 2, iterations: 5 },
      { size: 70_000, iterations: 9 },
    );
    expect(server).toMatchObject([{ messageBytes: 70_000, iterations: 9 }]);
  });

  it("ib_read_bw -D: for a time, and the server hears how many there were", async () => {
    const { client, server } = await runBoth({ verb: "read", kind: "bw" }, { durationMs: 50 });
    expect(server).toMatchObject([{ iterations: client[0]?.iterations }]);
    expect(client[0]?.iterations).toBeGreaterThan(0);
    const { iterations, messagesPerSecond } = client[0] as BandwidthFigures;
    expect(iterations / messagesPerSecond).toBeGreaterThanOrEqual(0.05);
  });

  it("one byte; a path MTU of 256 on one side", async () => {
    const { client, there } = await runBoth({ verb: "write", kind: "lat", size: 1 }, { mtu: 256 });
    expect(client).toMatchObject([{ messageBytes: 1, iterations: 20 }]);
    expect(await there.heard("connected")).toMatchObject({ mtu: 256 });
  });

  it("256 messages and more: the byte that tells them apart goes round", async () => {
    const { client } = await runBoth({ verb: "write", kind: "lat", size: 8, iterations: 300 });
    expect(client).toMatchObject([{ iterations: 300 }]);
  });
});

describe("perftest: the end", () => {
  for (const [exchange, cm] of EXCHANGES) {
    it(`by ${exchange}: both sides are through → no timer keeps their processes`, async () => {
      using timers = new LiveTimers();
      await runBoth({ verb: "send", kind: "bw", cm });
      // What the peers' goodbyes have settled runs now.
      await new Promise((resolve) => setImmediate(resolve));
      expect(timers.delaysMs()).toEqual([]);
    });
  }
});

/** Timers set since that keep the process: neither fired, nor cleared, nor unreferenced. */
class LiveTimers implements Disposable {
  private readonly live = new Map<NodeJS.Timeout, number>();
  private readonly set = globalThis.setTimeout;
  private readonly clear = globalThis.clearTimeout;

  constructor() {
    const arm = (run: () => void, delayMs = 0): NodeJS.Timeout => {
      const timer = this.set(() => {
        this.live.delete(timer);
        run();
      }, delayMs);
      this.live.set(timer, delayMs);
      return timer;
    };
    globalThis.setTimeout = arm as typeof setTimeout;
    globalThis.clearTimeout = ((timer: NodeJS.Timeout) => {
      this.live.delete(timer);
      this.clear(timer);
    }) as typeof clearTimeout;
  }

  delaysMs(): number[] {
    return [...this.live].filter(([timer]) => timer.hasRef()).map(([, delayMs]) => delayMs);
  }

  [Symbol.dispose](): void {
    globalThis.setTimeout = this.set;
    globalThis.clearTimeout = this.clear;
  }
}

describe("perftest: queue pairs", () => {
  for (const cm of [false, true]) {
    it(`${cm ? "RDMA CM" : "TCP"}: both sides wait a second, or as long as told`, async () => {
      await using there = await Stage.open(loopback(2));
      await using here = await Stage.open(loopback(3));
      const some = { verb: "read", kind: "lat", cm } as const;
      const opening = Session.open(there.environment, optionsOf(some));
      const port = Number((await there.heard("listening"))["port"]);
      const own = { ...optionsOf(some), port, server: loopback(2), ackTimeout: 16 };
      const [server, client] = await Promise.all([opening, Session.open(here.environment, own)]);
      const timeouts = [server, client].map((session) => session.qp.queryQp().timeout);
      expect(timeouts).toEqual([18, 16]);
      for (const session of [client, server]) session.close();
    });
  }
});

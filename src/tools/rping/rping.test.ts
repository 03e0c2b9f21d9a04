// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import type { FarpageError } from "../../runtime/index.js";
import { Area, CmDesk, Queues, runRpingClient, runRpingServer } from "../index.js";
import { type Both, both, type Stage } from "../tools.fixture.js";
import { decodeRpingBuffer, encodeRpingBuffer, fillPing, pingText } from "./protocol.js";

const SERVER = { persistent: false, validate: true, showPings: false, timeoutMs: 5_000 };
const CLIENT = { count: 3, size: 64, validate: true, showPings: false, timeoutMs: 5_000 };

const code = (error: unknown) => (error as FarpageError).code;

/** A server that is listening, and how it will end: null, or the error. */
async function serving(stage: Stage, options: Partial<Parameters<typeof runRpingServer>[1]> = {}) {
  const ended = runRpingServer(stage.environment, { ...SERVER, ...options }).then(
    () => null,
    (error: unknown) => error,
  );
  await Promise.race([stage.heard("ready"), ended]);
  // In an object: a promise that is returned would be awaited.
  return { ended };
}

describe("the text of a ping", () => {
  it("is the stock client's", () => {
    const bytes = new Uint8Array(64);
    fillPing(bytes, 0);
    expect(pingText(bytes)).toBe(
      "rdma-ping-0: ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqr",
    );
    expect(bytes[63]).toBe(0);
    fillPing(bytes, 57);
    expect(pingText(bytes).slice(0, 20)).toBe("rdma-ping-57: zABCDE");
    fillPing(bytes, 58);
    expect(pingText(bytes).slice(0, 20)).toBe("rdma-ping-58: ABCDEF");
  });
});

describe("a client's message", () => {
  it("written and read → the same place, all 64 bits of the address", () => {
    const view = new DataView(new ArrayBuffer(20));
    encodeRpingBuffer(view, 4, { address: 0x1234_5678_9abc, rkey: 0xfedc_ba98, length: 65_535 });
    expect(decodeRpingBuffer(view, 4, 16)).toEqual({
      addressHigh: 0x1234,
      addressLow: 0x5678_9abc,
      rkey: 0xfedc_ba98,
      length: 65_535,
    });
  });

  it("of another length, or with a ping that is too long → refused", () => {
    const view = new DataView(new ArrayBuffer(16));
    expect(() => decodeRpingBuffer(view, 0, 15)).toThrow(/15 bytes where rping sends 16/);
    view.setUint32(12, 65_536);
    expect(() => decodeRpingBuffer(view, 0, 16)).toThrow(/65536 bytes/);
  });
});

for (const family of [4, 6] as const) {
  describe(`rping over IPv${family}`, () => {
    for (const size of [1, 2, 23, 64, 1025, 4097, 65_535]) {
      it(`pings of ${size} bytes → there and back, byte for byte, counted`, async () => {
        await using pair = await both(family, 11);
        const { ended } = await serving(pair.server);
        const client = { ...CLIENT, server: pair.address, size };
        const result = await runRpingClient(pair.client.environment, client);
        expect(await ended).toBe(null);
        expect([result.pings, result.bytes]).toEqual([3, 6 * size]);
        const served = await pair.server.heard("done");
        expect(served).toMatchObject({ pings: 3, bytes: 6 * size, verified: true });
      });
    }

    it("a persistent server: eight clients at once and two after → all served", async () => {
      await using pair = await both(family, 11);
      const { ended } = await serving(pair.server, { persistent: true });
      const client = { ...CLIENT, server: pair.address };
      const run = () => runRpingClient(pair.client.environment, client);
      await Promise.all(Array.from({ length: 8 }, run));
      await run();
      await run();
      await pair.server.heard("done", 10);
      pair.server.interrupt();
      expect(code(await ended)).toBe("EINTR");
    });
  });
}

/** What a client of ours says when the server does not play by the rules, and the other way. */
describe("rping with a peer that is none", () => {
  it("nobody listens → ECONNREFUSED", async () => {
    await using pair = await both(4, 11);
    const client = { ...CLIENT, server: pair.address };
    const refused = runRpingClient(pair.client.environment, client);
    await expect(refused).rejects.toMatchObject({ code: "ECONNREFUSED" });
  });

  it("nobody answers → ETIMEDOUT after the time given", async () => {
    await using pair = await both(4, 11);
    await pair.server.host.close();
    const client = { ...CLIENT, server: pair.address, timeoutMs: 50 };
    const refused = runRpingClient(pair.client.environment, client);
    await expect(refused).rejects.toMatchObject({ code: "ETIMEDOUT" });
  });

  it("the server leaves in the middle → ENOTCONN, with its address", async () => {
    await using pair = await both(4, 11);
    const { ended } = await serving(pair.server);
    const client = { ...CLIENT, server: pair.address, count: 0, showPings: true };
    const running = expect(runRpingClient(pair.client.environment, client)).rejects.toMatchObject({
      code: "ENOTCONN",
      message: expect.stringContaining(String(pair.address)),
    });
    await pair.client.heard("ping");
    pair.server.interrupt();
    await running;
    expect(code(await ended)).toBe("EINTR");
  });

  it("the user stops the client → what was done is told, the server ends well", async () => {
    await using pair = await both(4, 11);
    const { ended } = await serving(pair.server);
    const client = { ...CLIENT, server: pair.address, count: 0, showPings: true };
    const running = runRpingClient(pair.client.environment, client);
    const stopped = expect(running).rejects.toMatchObject({ code: "EINTR" });
    await pair.client.heard("ping");
    pair.client.interrupt();
    await stopped;
    expect(await pair.client.heard("done")).toMatchObject({ interrupted: true, verified: true });
    expect(await ended).toBe(null);
  });

  /** Connects to the server and sends it one message of `length` bytes. */
  async function say(pair: Both, length: number, fill: (view: DataView) => void = () => {}) {
    const { environment } = pair.client;
    const desk = new CmDesk(environment);
    const pd = environment.host.openDevice().allocPd();
    const area = new Area(environment, pd, 64);
    fill(area.view);
    const describe = () => "it";
    const sizes = { sendDepth: 1, receiveDepth: 1, describe };
    const link = desk.open({
      destination: pair.address,
      port: 7174,
      makeQueues: () => new Queues(environment, pd, { type: "RC", ...sizes }),
    });
    await link.connect({});
    link.queues.poster.send({ area, length, wrId: 1 });
    await link.gone();
    desk.close();
  }

  it("a client that sends something else → EPROTO, and it is disconnected", async () => {
    await using pair = await both(4, 11);
    const { ended } = await serving(pair.server);
    await say(pair, 7);
    expect(await ended).toMatchObject({ code: "EPROTO" });
  });

  it("a ping that is too long → EMSGSIZE; a wrong key → REM_ACCESS_ERR", async () => {
    for (const [length, expected] of [
      [0x7fff_ffff, "EMSGSIZE"],
      [64, "REM_ACCESS_ERR"],
    ] as const) {
      await using pair = await both(4, 11);
      const { ended } = await serving(pair.server);
      await say(pair, 16, (view) => {
        encodeRpingBuffer(view, 0, { address: 4096, rkey: 0x1234, length });
      });
      expect(await ended).toMatchObject({ code: expected });
    }
  });

  it("a client that says nothing → ETIMEDOUT; a persistent server goes on", async () => {
    await using pair = await both(4, 11);
    const { ended } = await serving(pair.server, { persistent: true, timeoutMs: 2_000 });
    const { environment } = pair.client;
    using desk = new CmDesk(environment);
    const pd = environment.host.openDevice().allocPd();
    const sizes = { sendDepth: 1, receiveDepth: 1, describe: () => "it" };
    const link = desk.open({
      destination: pair.address,
      port: 7174,
      makeQueues: () => new Queues(environment, pd, { type: "RC", ...sizes }),
    });
    await link.connect({});
    await link.gone();
    expect(await pair.server.heard("failed")).toMatchObject({ code: "ETIMEDOUT" });
    await runRpingClient(environment, { ...CLIENT, server: pair.address });
    await pair.server.heard("done");
    pair.server.interrupt();
    await ended;
  });

  it("no memory region for a client → refused at once; the next one is served", async () => {
    await using pair = await both(4, 11);
    const { ended } = await serving(pair.server, { persistent: true });
    const pd = pair.server.host.openDevice().allocPd();
    const { device } = pair.server.host.stack;
    const qpCount = device.qpCount;
    const regions = [];
    const { maxMr } = pd.context.queryDevice();
    for (let free = maxMr; free > 0; free--) {
      try {
        regions.push(pd.allocMr());
      } catch {
        break;
      }
    }
    const client = { ...CLIENT, server: pair.address };
    const run = () => runRpingClient(pair.client.environment, client);
    await expect(run()).rejects.toMatchObject({ code: "ECONNREFUSED" });
    expect(await pair.server.heard("failed")).toMatchObject({ code: "ENOMEM" });
    expect(device.qpCount).toBe(qpCount);
    for (const region of regions) region.deregister();
    await run();
    pair.server.interrupt();
    expect(code(await ended)).toBe("EINTR");
  });

  it("a text that no stock client writes → EILSEQ where the server compares", async () => {
    await using pair = await both(4, 11);
    const { ended } = await serving(pair.server);
    const { environment } = pair.client;
    using desk = new CmDesk(environment);
    const pd = environment.host.openDevice().allocPd();
    const area = new Area(environment, pd, 128, 7);
    fillPing(area.bytes.subarray(64), 0);
    area.bytes[100] = 1;
    encodeRpingBuffer(area.view, 0, {
      address: area.mr.address + 64,
      rkey: area.mr.rkey,
      length: 64,
    });
    const sizes = { sendDepth: 1, receiveDepth: 1, describe: () => "it" };
    const link = desk.open({
      destination: pair.address,
      port: 7174,
      makeQueues: () => new Queues(environment, pd, { type: "RC", ...sizes }),
    });
    await link.connect({});
    link.queues.poster.send({ area, length: 16, wrId: 1 });
    await link.gone();
    expect(await ended).toMatchObject({
      code: "EILSEQ",
      message: expect.stringContaining("byte 36 is 1"),
    });
  });

  it("a size that can't be → EINVAL", async () => {
    await using pair = await both(4, 11);
    for (const size of [0, 65_536]) {
      const client = { ...CLIENT, size, server: pair.address };
      await expect(runRpingClient(pair.client.environment, client)).rejects.toMatchObject({
        code: "EINVAL",
      });
    }
  });
});

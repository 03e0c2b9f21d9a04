// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { runUdaddy, type UdaddyOptions } from "../index.js";
import { type Both, both, type Stage } from "../tools.fixture.js";

const OPTIONS: UdaddyOptions = {
  server: null,
  port: 7174,
  connections: 1,
  count: 10,
  size: 100,
  validate: true,
  timeoutMs: 10_000,
};

async function serving(stage: Stage, options: Partial<UdaddyOptions> = {}) {
  const ended = runUdaddy(stage.environment, { ...OPTIONS, ...options }).then(
    () => null,
    (error: unknown) => error,
  );
  await Promise.race([stage.heard("ready"), ended]);
  return { ended };
}

function asking(pair: Both, options: Partial<UdaddyOptions> = {}) {
  return runUdaddy(pair.client.environment, { ...OPTIONS, ...options, server: pair.address });
}

for (const family of [4, 6] as const) {
  describe(`udaddy over IPv${family}`, () => {
    for (const [connections, count, size] of [
      [1, 10, 100],
      [3, 3, 1],
      [2, 3, 4096],
      [1, 3, 41],
      [2, 0, 100],
      [2, 4, 0],
      [16, 2, 33],
    ] as const) {
      it(`${connections} queue pairs, ${count} of ${size} bytes → all right`, async () => {
        await using pair = await both(family, 41);
        const options = { connections, count, size };
        const { ended } = await serving(pair.server, options);
        const result = await asking(pair, options);
        expect(await ended).toBe(null);
        const messages = size === 0 ? 0 : 2 * connections * count;
        expect(result).toMatchObject({ connections, messages, bytes: messages * size });
        const served = await pair.server.heard("done");
        expect(served).toMatchObject({ messages, bytes: messages * size, verified: true });
      });
    }
  });
}

describe("udaddy with a peer that does something else", () => {
  it("nobody listens → ECONNREFUSED; nobody is there → ETIMEDOUT", async () => {
    await using pair = await both(4, 41);
    await expect(asking(pair)).rejects.toMatchObject({
      code: "ECONNREFUSED",
      message: expect.stringContaining("nobody listens"),
    });
    await pair.server.host.close();
    await expect(asking(pair, { timeoutMs: 50 })).rejects.toMatchObject({ code: "ETIMEDOUT" });
  });

  it("fewer queue pairs than agreed → ETIMEDOUT with how many came", async () => {
    await using pair = await both(4, 41);
    const { ended } = await serving(pair.server, { connections: 3, timeoutMs: 300 });
    const stopped = expect(asking(pair, { connections: 2 })).rejects.toMatchObject({
      code: "EINTR",
    });
    expect(await ended).toMatchObject({
      code: "ETIMEDOUT",
      message: "2 of 3 connections came, then none for 0.3 s",
    });
    pair.client.interrupt();
    await stopped;
  });

  it("fewer datagrams than agreed → ETIMEDOUT with how many came", async () => {
    await using pair = await both(4, 41);
    const { ended } = await serving(pair.server, { timeoutMs: 2_000 });
    const stopped = expect(asking(pair, { count: 7 })).rejects.toMatchObject({ code: "EINTR" });
    expect(await ended).toMatchObject({
      code: "ETIMEDOUT",
      message: expect.stringContaining("7 of 10 datagrams came"),
    });
    pair.client.interrupt();
    await stopped;
  });

  it("another size → EMSGSIZE", async () => {
    await using pair = await both(4, 41);
    const { ended } = await serving(pair.server);
    const stopped = expect(asking(pair, { size: 99 })).rejects.toMatchObject({ code: "EINTR" });
    expect(await ended).toMatchObject({ code: "EMSGSIZE" });
    pair.client.interrupt();
    await stopped;
  });

  it("a datagram that does not fit, no queue pairs → EINVAL", async () => {
    await using pair = await both(4, 41);
    for (const wrong of [{ connections: 0 }, { size: 4097 }]) {
      await expect(asking(pair, wrong)).rejects.toMatchObject({ code: "EINVAL" });
    }
  });
});

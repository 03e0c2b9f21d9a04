// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { runUcmatose, type UcmatoseOptions } from "../index.js";
import { type Both, both, type Stage } from "../tools.fixture.js";

const OPTIONS: UcmatoseOptions = {
  server: null,
  port: 7471,
  connections: 1,
  count: 10,
  size: 100,
  validate: true,
  timeoutMs: 10_000,
};

async function serving(stage: Stage, options: Partial<UcmatoseOptions> = {}) {
  const ended = runUcmatose(stage.environment, { ...OPTIONS, ...options }).then(
    () => null,
    (error: unknown) => error,
  );
  await Promise.race([stage.heard("ready"), ended]);
  return { ended };
}

function connecting(pair: Both, options: Partial<UcmatoseOptions> = {}) {
  const client = { ...OPTIONS, ...options, server: pair.address };
  return runUcmatose(pair.client.environment, client);
}

for (const family of [4, 6] as const) {
  describe(`ucmatose over IPv${family}`, () => {
    for (const [connections, count, size] of [
      [1, 10, 100],
      [5, 3, 1],
      [2, 3, 4097],
      [1, 2, 70_001],
      [3, 0, 100],
      [3, 4, 0],
      [64, 2, 33],
    ] as const) {
      it(`${connections} connections, ${count} of ${size} bytes → all right`, async () => {
        await using pair = await both(family, 31);
        const options = { connections, count, size };
        const { ended } = await serving(pair.server, options);
        const result = await connecting(pair, options);
        expect(await ended).toBe(null);
        const messages = size === 0 ? 0 : 2 * connections * count;
        expect(result).toMatchObject({ connections, messages, bytes: messages * size });
        const served = await pair.server.heard("done");
        expect(served).toMatchObject({ messages, bytes: messages * size, verified: true });
      });
    }
  });
}

describe("ucmatose with a peer that does something else", () => {
  it("nobody listens → ECONNREFUSED", async () => {
    await using pair = await both(4, 31);
    await expect(connecting(pair)).rejects.toMatchObject({ code: "ECONNREFUSED" });
  });

  it("other sizes → EMSGSIZE or LOC_LEN_ERR at the client, ENOTCONN at the server", async () => {
    for (const [size, code] of [
      [101, "EMSGSIZE"],
      [99, "LOC_LEN_ERR"],
    ] as const) {
      await using pair = await both(4, 31);
      const { ended } = await serving(pair.server);
      await expect(connecting(pair, { size })).rejects.toMatchObject({ code });
      expect(await ended).toMatchObject({
        code: expect.stringMatching(/^(ENOTCONN|REM_INV_REQ_ERR|WR_FLUSH_ERR)$/),
      });
    }
  });

  it("fewer messages than agreed → ETIMEDOUT at the server", async () => {
    await using pair = await both(4, 31);
    const { ended } = await serving(pair.server, { timeoutMs: 300 });
    // The client gets its two, answers twice, and waits for the goodbye.
    const running = connecting(pair, { count: 2 });
    expect(await ended).toMatchObject({ code: "ETIMEDOUT" });
    expect(await running).toMatchObject({ messages: 4 });
  });

  it("fewer connections than agreed → ETIMEDOUT at the server, with how many came", async () => {
    await using pair = await both(4, 31);
    const { ended } = await serving(pair.server, { connections: 3, timeoutMs: 300 });
    const running = connecting(pair, { connections: 2 });
    running.catch(() => {});
    expect(await ended).toMatchObject({
      code: "ETIMEDOUT",
      message: "2 of 3 connections came, then none for 0.3 s",
    });
    await expect(running).rejects.toMatchObject({ code: "ENOTCONN" });
  });

  it("more connections than the server takes → ECONNREFUSED for the client", async () => {
    await using pair = await both(4, 31);
    const { ended } = await serving(pair.server, { connections: 1 });
    await expect(connecting(pair, { connections: 2 })).rejects.toMatchObject({
      code: "ECONNREFUSED",
    });
    expect(await ended).toMatchObject({
      code: expect.stringMatching(
        /^(ENOTCONN|ECONNRESET|ECONNREFUSED|WR_FLUSH_ERR|ETIMEDOUT|EIO)$/,
      ),
    });
  });

  it("the user stops the server that waits → EINTR, the client hears of it", async () => {
    await using pair = await both(4, 31);
    const { ended } = await serving(pair.server, { connections: 2 });
    const running = connecting(pair, { connections: 1, timeoutMs: 20_000 });
    const lost = expect(running).rejects.toMatchObject({ code: "ENOTCONN" });
    await pair.client.heard("connected");
    pair.server.interrupt();
    expect(await ended).toMatchObject({ code: "EINTR" });
    await lost;
  });

  it("what can't be → EINVAL", async () => {
    await using pair = await both(4, 31);
    for (const wrong of [{ connections: 0 }, { connections: 4097 }, { count: 99, size: 3 << 20 }]) {
      await expect(connecting(pair, wrong)).rejects.toMatchObject({ code: "EINVAL" });
    }
  });
});

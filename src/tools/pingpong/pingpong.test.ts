// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { IpAddress } from "../../runtime/index.js";
import { type PingpongOptions, runPingpong, SideChannel } from "../index.js";
import { type Both, both, Stage } from "../tools.fixture.js";
import { Ball } from "./ball.js";
import { decodePingpongLine, encodePingpongLine } from "./protocol.js";

const OPTIONS: PingpongOptions = {
  kind: "rc",
  server: null,
  port: 0,
  size: 64,
  iterations: 4,
  mtu: 1024,
  receiveDepth: 4,
  validate: true,
  timeoutMs: 10_000,
  lingerMs: 1,
};

/** A server that listens on `port`, and how it will end: null, or the error. */
async function serving(stage: Stage, options: Partial<PingpongOptions> = {}) {
  const ended = runPingpong(stage.environment, { ...OPTIONS, ...options }).then(
    () => null,
    (error: unknown) => error,
  );
  const ready = await stage.heard("ready");
  return { ended, port: Number(ready["port"]) };
}

async function play(pair: Both, options: Partial<PingpongOptions>) {
  const { ended, port } = await serving(pair.server, options);
  const client = { ...OPTIONS, ...options, server: String(pair.address), port };
  const result = await runPingpong(pair.client.environment, client);
  expect(await ended).toBe(null);
  return result;
}

const bytesOf = (text: string) => new Uint8Array(Buffer.from(text, "latin1"));

describe("the line", () => {
  const v4 = { qpn: 0x1a, psn: 0xabcdef, gid: IpAddress.parse("192.0.2.1") };
  const text = "0000:00001a:abcdef:00000000000000000000ffffc0000201\0";

  it("is the stock programs', of IPv4 and IPv6", () => {
    expect(encodePingpongLine(v4)).toBe(text);
    expect(decodePingpongLine(bytesOf(text))).toEqual(v4);
    const v6 = { ...v4, gid: IpAddress.parse("2001:db8::12:3456") };
    expect(encodePingpongLine(v6)).toBe("0000:00001a:abcdef:20010db8000000000000000000123456\0");
    expect(decodePingpongLine(bytesOf(encodePingpongLine(v6)))).toEqual(v6);
  });

  it("cut, or not hexadecimal, or without its zero → EPROTO", () => {
    for (const bad of [text.slice(1), text.replace("1a", "1g"), text.replace("\0", "0")]) {
      expect(() => decodePingpongLine(bytesOf(bad))).toThrow(/can't be read/);
    }
  });

  it("no GID, or a group's → EPROTO, and what to do", () => {
    const withGid = (gid: string) => bytesOf(`0000:00001a:abcdef:${gid}\0`);
    expect(() => decodePingpongLine(withGid("0".repeat(32)))).toThrow(/start it with -g/);
    expect(() => decodePingpongLine(withGid(`ff${"0".repeat(29)}1`))).toThrow(/group/);
    expect(() => decodePingpongLine(withGid("00000000000000000000ffffe0000001"))).toThrow(/group/);
  });
});

describe("Ball", () => {
  it("a server: takes our pattern, or what it gave last, or a stock client's first", () => {
    const arrived = new Uint8Array(5000);
    const server = new Ball(false, arrived, new Uint8Array(5000));
    arrived.fill(0x7b);
    arrived[4096] = 0;
    server.check(0);
    server.arrive();
    server.check(1);
    arrived[77] = 1;
    expect(() => server.check(1)).toThrow(/message 1 is wrong: byte 77 is 1, was 123/);
    const leaving = new Uint8Array(5000);
    new Ball(true, new Uint8Array(5000), leaving).leave(2);
    arrived.set(leaving);
    server.check(2);
    expect(() => server.check(3)).toThrow(/message 3 is wrong/);
  });
});

for (const family of [4, 6] as const) {
  describe(`pingpong over IPv${family}`, () => {
    for (const [size, mtu] of [
      [0, 256],
      [1, 1024],
      [1024, 1024],
      [1025, 512],
      [10_001, 4096],
    ] as const) {
      it(`rc, ${size} bytes, path MTU ${mtu} → every byte right, on both sides`, async () => {
        await using pair = await both(family, 21);
        const result = await play(pair, { size, mtu });
        expect([result.iterations, result.bytes]).toEqual([4, 8 * size]);
        expect(await pair.server.heard("done")).toMatchObject({ bytes: 8 * size, verified: true });
      });
    }

    for (const size of [0, 1, 1023, 4096]) {
      it(`ud, ${size} bytes → every byte right, on both sides`, async () => {
        await using pair = await both(family, 21);
        const result = await play(pair, { kind: "ud", size });
        expect([result.iterations, result.bytes]).toEqual([4, 8 * size]);
        expect(await pair.server.heard("done")).toMatchObject({ bytes: 8 * size, verified: true });
      });
    }
  });
}

describe("pingpong with a peer that is none", () => {
  it("a GID of the other family → EPROTO, with the way out", async () => {
    await using server = await Stage.open("::1");
    await using pair = await both(4, 21);
    const { ended, port } = await serving(server);
    const client = { ...OPTIONS, server: "127.0.0.1", port };
    await expect(runPingpong(pair.client.environment, client)).rejects.toMatchObject({
      code: "ECONNRESET",
    });
    expect(await ended).toMatchObject({
      code: "EPROTO",
      message: expect.stringContaining("start the peer with -g"),
    });
  });

  it("another size → EMSGSIZE with both sizes", async () => {
    await using pair = await both(4, 21);
    const { ended, port } = await serving(pair.server, { size: 100 });
    const client = { ...OPTIONS, server: String(pair.address), port, size: 99 };
    const lost = expect(runPingpong(pair.client.environment, client)).rejects.toMatchObject({
      code: "EINTR",
    });
    expect(await ended).toMatchObject({
      code: "EMSGSIZE",
      message: expect.stringContaining("99 bytes, this side 100"),
    });
    pair.client.interrupt();
    await lost;
  });

  it("a size or path MTU that does not fit the port → EINVAL, nothing is connected", async () => {
    await using pair = await both(4, 21);
    for (const wrong of [
      { kind: "ud", size: 4097 },
      { size: -1 },
      { iterations: 0 },
      { receiveDepth: 0 },
    ] as const) {
      const client = { ...OPTIONS, ...wrong, server: String(pair.address), port: 1 };
      await expect(runPingpong(pair.client.environment, client)).rejects.toMatchObject({
        code: "EINVAL",
      });
    }
  });

  it("TCP that speaks something else → EPROTO; that says nothing → ETIMEDOUT", async () => {
    await using pair = await both(4, 21);
    const { signal } = pair.client.environment;
    for (const [text, code] of [
      ["GET / HTTP/1.1\r\nHost: a-name-that-is-long-enough.example\r\n", "EPROTO"],
      ["", "ETIMEDOUT"],
    ] as const) {
      const stage = Stage.beside(pair.server);
      const { ended, port } = await serving(stage, { timeoutMs: 1_000 });
      const channel = await SideChannel.connect({ address: "127.0.0.1", port, signal });
      channel.write(text);
      expect(await ended).toMatchObject({ code });
      channel.close();
    }
  });

  it("the client goes away in the middle → ETIMEDOUT", async () => {
    await using pair = await both(4, 21);
    const { ended, port } = await serving(pair.server, { iterations: 9, timeoutMs: 1_000 });
    const client = { ...OPTIONS, server: String(pair.address), port, iterations: 1 };
    await runPingpong(pair.client.environment, { ...client, validate: false });
    await pair.client.host.close();
    expect(await ended).toMatchObject({ code: "ETIMEDOUT" });
  });
});

// SPDX-License-Identifier: MIT
// Peers that are no perftest, or stop being one.

import { describe, expect, it } from "vitest";
import { FarpageError } from "../../runtime/index.js";
import { SideChannel, SideListener } from "../side-channel.js";
import { loopback, Stage } from "../tools.fixture.js";
import { runPerftest } from "./index.js";
import { encodeMtu, encodeU32, encodeVersion } from "./messages.js";
import { optionsOf, serve } from "./perftest.fixture.js";

const bytesOf = (text: string) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const { signal } = new AbortController();

/** What a client says until it tells its place. */
const PRELUDE = [encodeVersion(), encodeU32(4096), encodeU32(64), encodeMtu(1024)];
const place = (gid: string, qpn = "000014") =>
  bytesOf(`0000:0001:${qpn}:0f7bc8:0000053d:000055a8fb489000:${gid}:00000000:\0`);
const V4 = "00:00:00:00:00:00:00:00:00:00:ff:ff:0a:4e:00:02";
const V6 = "fd:00:00:78:00:00:00:00:00:00:00:00:00:00:00:02";

/** A client that says these messages, hears an answer of the same length to each, and leaves. */
async function sayTo(port: number, messages: readonly Uint8Array[]): Promise<void> {
  using channel = await SideChannel.connect({ address: loopback(2), port, signal });
  for (const message of messages) {
    channel.write(message);
    await channel.read(message.length, { orEnd: true, timeoutMs: 20_000 });
  }
}

async function outcomeOfServer(messages: readonly Uint8Array[]): Promise<FarpageError> {
  await using there = await Stage.open(loopback(2));
  const { served, port } = await serve(there, { verb: "write", kind: "bw" });
  await sayTo(port, messages);
  return served.then(
    () => new FarpageError("OK", "the server was content"),
    (error) => error,
  );
}

describe("a perftest server", () => {
  it.each([
    ["no perftest", [bytesOf("GET / HTTP/1.1\r\n")], "EPROTO", /"GET/],
    ["too old", [bytesOf("5.33".padEnd(16, "\0"))], "EPROTONOSUPPORT", /5\.33/],
    ["a page of 3 bytes", [encodeVersion(), encodeU32(3)], "EPROTO", /page size/],
    ["MTU 9", [...PRELUDE.slice(0, 3), bytesOf("9\0")], "EPROTO", /MTU/],
    ["a place that is none", [...PRELUDE, new Uint8Array(108)], "EPROTO", /no line/],
    ["queue pair 0", [...PRELUDE, place(V4, "000000")], "EPROTO", /queue pair/],
    ["an IPv6 GID, and this side has none", [...PRELUDE, place(V6)], "EAFNOSUPPORT", /--address/],
    ["leaves half-way", PRELUDE, "ECONNRESET", /closed/],
    ["leaves in the test", [...PRELUDE, place(V4), place(V4), place(V4)], "ECONNRESET", /closed/],
  ])("a client: %s → an error that says so", async (_, messages, code, text) => {
    const error = await outcomeOfServer(messages);
    expect(error).toMatchObject({ code, message: expect.stringMatching(text) });
  });

  it("Ctrl-C while it waits → EINTR", async () => {
    await using there = await Stage.open(loopback(2));
    const { served } = await serve(there, { verb: "send", kind: "lat" });
    there.interrupt();
    await expect(served).rejects.toMatchObject({ code: "EINTR" });
  });

  it.each(["write", "send"] as const)(
    "the client of ib_%s_lat leaves in the test → ECONNRESET",
    async (verb) => {
      await using there = await Stage.open(loopback(2));
      await using here = await Stage.open(loopback(3));
      const { served, port } = await serve(there, { verb, kind: "lat", iterations: 1_000_000 });
      const own = { ...optionsOf({ verb, kind: "lat", iterations: 1_000_000 }), port };
      const client = runPerftest(here.environment, { ...own, server: loopback(2) });
      client.catch(() => {});
      await there.heard("connected");
      here.interrupt();
      await expect(client).rejects.toMatchObject({ code: "EINTR" });
      await expect(served).rejects.toMatchObject({
        code: expect.stringMatching(/^(ECONNRESET|RETRY_EXC_ERR)$/),
      });
    },
  );
});

describe("a perftest server by RDMA CM", () => {
  it.each([
    ["ib_write_bw, which only waits", "write", "bw"],
    ["ib_send_bw, which receives", "send", "bw"],
    ["ib_write_lat, which takes turns", "write", "lat"],
  ] as const)(
    "%s: its client leaves in the test → an error that says so",
    async (_, verb, kind) => {
      await using there = await Stage.open(loopback(2));
      await using here = await Stage.open(loopback(3));
      const long = { verb, kind, cm: true, iterations: 1_000_000 } as const;
      const { served, port } = await serve(there, long);
      const client = runPerftest(here.environment, {
        ...optionsOf(long),
        port,
        server: loopback(2),
      });
      client.catch(() => {});
      await there.heard("connected");
      here.interrupt();
      await expect(client).rejects.toMatchObject({ code: "EINTR" });
      await expect(served).rejects.toMatchObject({
        code: expect.stringMatching(/^(ECONNRESET|RETRY_EXC_ERR)$/),
      });
    },
  );
});

describe("what a run leaves on its host", () => {
  it.each([
    ["by TCP", false, "write"],
    ["by RDMA CM", true, "send"],
  ] as const)(
    "%s: when it is through, and when its peer stops half-way: nothing",
    async (_, cm, verb) => {
      await using there = await Stage.open(loopback(2));
      await using here = await Stage.open(loopback(3));
      const used = () =>
        [there, here].flatMap(({ host }) => [
          host.stack.memory.allocatedBytes,
          host.stack.device.queuePairs().length,
        ]);
      const before = used();
      for (const iterations of [20, 1_000_000]) {
        const some = { verb, kind: "lat", cm, iterations } as const;
        const { served, port } = await serve(Stage.beside(there), some);
        const own = { ...optionsOf(some), server: loopback(2), port };
        const client = Stage.beside(here);
        const running = runPerftest(client.environment, own);
        if (iterations > 20) {
          running.catch(() => {});
          await client.heard("connected");
          client.interrupt();
          await expect(running).rejects.toMatchObject({ code: "EINTR" });
          await expect(served).rejects.toThrow();
        } else {
          await Promise.all([served, running]);
        }
        expect(used()).toEqual(before);
      }
      const nobody = { ...optionsOf({ verb, kind: "bw", cm }), server: loopback(2), port: 1 };
      await expect(runPerftest(here.environment, nobody)).rejects.toMatchObject({
        code: "ECONNREFUSED",
      });
      expect(used()).toEqual(before);
    },
  );
});

describe("a perftest client", () => {
  it("nobody there → ECONNREFUSED, by TCP and by RDMA CM", async () => {
    await using there = await Stage.open(loopback(2));
    await using here = await Stage.open(loopback(3));
    expect(there.told).toEqual([]);
    for (const cm of [false, true]) {
      const own = { ...optionsOf({ verb: "read", kind: "bw", cm }), server: loopback(2) };
      await expect(runPerftest(here.environment, { ...own, port: 1 })).rejects.toMatchObject({
        code: "ECONNREFUSED",
      });
    }
  });

  it("the server answers with nonsense → EPROTO", async () => {
    await using here = await Stage.open(loopback(3));
    using listener = await SideListener.listen({ port: 0, address: loopback(2), signal });
    const own = { ...optionsOf({ verb: "read", kind: "bw" }), server: loopback(2) };
    const client = runPerftest(here.environment, { ...own, port: listener.port });
    using channel = await listener.accept();
    channel.write("SSH-2.0-OpenSSH_");
    await expect(client).rejects.toMatchObject({ code: "EPROTO" });
  });
});

describe("options that don't go together → EINVAL", () => {
  it.each([
    ["UD and WRITE", { verb: "write", kind: "bw", connection: "UD" }, /UD/],
    ["atomics of 16 bytes", { verb: "atomic", kind: "lat", size: 16 }, /atomics/],
    ["a bidirectional latency", { verb: "send", kind: "lat", bidirectional: true }, /bandwidth/],
    ["4 iterations", { verb: "send", kind: "lat", iterations: 4 }, /iterations/],
    ["SENDs for a time", { verb: "send", kind: "bw", durationMs: 10 }, /--duration/],
    ["no bytes", { verb: "send", kind: "bw", size: 0 }, /bytes/],
    ["half a byte", { verb: "send", kind: "bw", size: 0.5 }, /bytes/],
  ] as const)("%s", async (_, some, message) => {
    await using here = await Stage.open(loopback(3));
    await expect(runPerftest(here.environment, optionsOf(some))).rejects.toMatchObject({
      code: "EINVAL",
      message: expect.stringMatching(message),
    });
  });

  it("a datagram beyond the MTU", async () => {
    await using there = await Stage.open(loopback(2));
    const some = { verb: "send", kind: "bw", connection: "UD", size: 2000 } as const;
    const { served, port } = await serve(there, some);
    await sayTo(port, PRELUDE);
    await expect(served).rejects.toMatchObject({
      code: "EINVAL",
      message: expect.stringContaining("1024"),
    });
  });
});

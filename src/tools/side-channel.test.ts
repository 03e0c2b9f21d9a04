// SPDX-License-Identifier: MIT
import { connect } from "node:net";
import { describe, expect, it } from "vitest";
import { SideChannel, SideListener } from "./index.js";

const { signal } = new AbortController();

async function pair(abort = signal) {
  using listener = await SideListener.listen({ port: 0, address: "127.0.0.1", signal: abort });
  const [there, here] = await Promise.all([
    listener.accept(),
    SideChannel.connect({ address: "127.0.0.1", port: listener.port, signal: abort }),
  ]);
  return { there, here };
}

const text = (bytes: Uint8Array) => Buffer.from(bytes).toString();

describe("SideChannel", () => {
  it("bytes in any pieces → exactly as many as are asked for, in order", async () => {
    const { there, here } = await pair();
    here.write("abc");
    here.write("defg");
    expect(text(await there.read(2))).toBe("ab");
    expect(text(await there.read(4))).toBe("cdef");
    there.write("back");
    expect(text(await here.read(4))).toBe("back");
    expect(there.remoteAddress).toBe("127.0.0.1");
    here.close();
    await expect(there.read(2)).rejects.toMatchObject({ code: "ECONNRESET" });
    expect(text(await there.read(2, { orEnd: true }))).toBe("g");
    there.close();
  });

  it("nothing comes → ETIMEDOUT; Ctrl-C → EINTR", async () => {
    const controller = new AbortController();
    const { there, here } = await pair(controller.signal);
    await expect(here.read(1, { timeoutMs: 5 })).rejects.toMatchObject({ code: "ETIMEDOUT" });
    const waiting = here.read(1);
    controller.abort();
    await expect(waiting).rejects.toMatchObject({ code: "EINTR" });
    here.close();
    there.close();
  });

  it("nobody listens → ECONNREFUSED, with address and port", async () => {
    const listener = await SideListener.listen({ port: 0, address: "127.0.0.1", signal });
    const { port } = listener;
    listener.close();
    await expect(SideChannel.connect({ address: "127.0.0.1", port, signal })).rejects.toMatchObject(
      {
        code: "ECONNREFUSED",
        message: expect.stringContaining(String(port)),
      },
    );
  });

  it("a port that is taken → EADDRINUSE", async () => {
    using listener = await SideListener.listen({ port: 0, address: "127.0.0.1", signal });
    const again = SideListener.listen({ port: listener.port, address: "127.0.0.1", signal });
    await expect(again).rejects.toMatchObject({ code: "EADDRINUSE" });
  });

  it("a client that resets its connection before it is taken → ECONNRESET", async () => {
    using listener = await SideListener.listen({ port: 0, address: "127.0.0.1", signal });
    const closed = new Promise<void>((resolve) => {
      listener["server"].once("connection", (socket) => socket.once("close", () => resolve()));
    });
    const socket = connect(listener.port, "127.0.0.1", () => socket.resetAndDestroy());
    await closed;
    const there = await listener.accept();
    await expect(there.read(1)).rejects.toMatchObject({ code: "ECONNRESET" });
  });

  it("more than any protocol sends → EPROTO, not memory without end", async () => {
    using listener = await SideListener.listen({ port: 0, address: "127.0.0.1", signal });
    const socket = connect(listener.port, "127.0.0.1");
    socket.on("error", () => {});
    const there = await listener.accept();
    socket.write(Buffer.alloc(4 << 20));
    await expect(there.read(3 << 20)).rejects.toMatchObject({ code: "EPROTO" });
    socket.destroy();
  });
});

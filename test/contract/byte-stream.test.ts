// SPDX-License-Identifier: MIT
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  type Backend,
  connectStream,
  foreignCallsUnavailable,
  listenStream,
  openMemorySource,
  openPoller,
  type StreamAddress,
} from "../../src/os/index.js";
import { byteStreamContract, type StreamPair } from "./byte-stream.contract.js";

async function openPair(backend: Backend, kind: "unix" | "tcp"): Promise<StreamPair> {
  const directory = mkdtempSync(join(tmpdir(), "farpage-stream-"));
  const poller = openPoller(backend);
  const memory = openMemorySource({ backend });
  const where: StreamAddress =
    kind === "unix"
      ? { kind, path: join(directory, "socket") }
      : { kind, host: "127.0.0.1", port: 0 };
  const listener = await listenStream(where, { poller, backend });
  const left = await connectStream(listener.address, { poller, backend });
  let right = listener.accept();
  for (let i = 0; i < 100 && right === null; i++) {
    await poller.wait(20_000_000);
    right = listener.accept();
  }
  if (right === null) throw new Error("the connection did not arrive");
  const accepted = right;
  listener.close();
  return {
    left,
    right,
    source: memory.allocate(1 << 20),
    target: memory.allocate(1 << 20),
    settle: () => poller.wait(5_000_000),
    close: () => {
      left.close();
      accepted.close();
      poller.close();
      memory.close();
      rmSync(directory, { recursive: true });
    },
  };
}

if (foreignCallsUnavailable() === null) {
  byteStreamContract("native, Unix", () => openPair("native", "unix"));
  byteStreamContract("native, TCP", () => openPair("native", "tcp"));
}
byteStreamContract("node:net, Unix", () => openPair("node", "unix"));
byteStreamContract("node:net, TCP", () => openPair("node", "tcp"));

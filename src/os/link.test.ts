// SPDX-License-Identifier: MIT

import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { IpAddress } from "../base/index.js";
import { TxBatch } from "../transport/index.js";
import type { Backend, LinkOptions, OsLink, Poller } from "./index.js";
import { foreignCallsUnavailable, openLink, openPoller } from "./index.js";

const hasNative = foreignCallsUnavailable() === null;
const BACKENDS: readonly Backend[] = hasNative ? ["native", "node"] : ["node"];

const MS = 1_000_000;

async function packetsOf(link: OsLink, poller: Poller, count: number) {
  const segments: number[] = [];
  let burstCount = 0;
  for (let i = 0; i < 100 && segments.length < count; i++) {
    await poller.wait(10 * MS);
    const received = link.receive();
    burstCount += received;
    for (const burst of link.bursts.slice(0, received)) {
      for (let at = 0; at < burst.length; at += burst.segmentLength) {
        segments.push(Math.min(burst.segmentLength, burst.length - at));
      }
    }
    poller.poll();
  }
  return { segments, burstCount };
}

describe.each(BACKENDS)("openLink, %s", (backend) => {
  let poller: Poller;
  const links: OsLink[] = [];
  beforeEach(() => {
    poller = openPoller(backend);
  });
  afterEach(() => {
    for (const link of links.splice(0)) link.close();
    poller.close();
  });
  async function open(options: Partial<LinkOptions> & { addresses: string[] }): Promise<OsLink> {
    const link = await openLink({ poller, backend, port: 0, ...options });
    links.push(link);
    return link;
  }

  it("loopback → its MTU, its port, a receive buffer that was read back", async () => {
    const link = await open({ addresses: ["127.0.0.21"], receiveBufferBytes: 100_000 });
    expect(link.backend).toBe(backend);
    expect(link.linkMtus).toEqual([65_536]);
    expect(link.port).toBeGreaterThan(0);
    expect(link.receiveBufferBytes).toBeGreaterThan(50_000);
    expect(link.receiveBufferBytes).toBeLessThan(200_000);
    expect(link.addresses.map(String)).toEqual(["127.0.0.21"]);
    expect(link.limitation === null).toBe(backend === "native");
  });

  it("several addresses → one port on all, bursts say which was hit", async () => {
    const left = await open({ addresses: ["127.0.0.21"] });
    const right = await open({ addresses: ["127.0.0.22", "::1", "127.0.0.23"] });
    for (const [port, text] of [
      [0, "127.0.0.22"],
      [2, "127.0.0.23"],
    ] as const) {
      const batch = new TxBatch(new Uint8Array(4096));
      const destination = IpAddress.parse(text);
      batch.reserve({ port: 0, destination, destinationPort: right.port, trafficClass: 0 }, 40);
      batch.commit();
      left.send(batch);
      await packetsOf(right, poller, 1);
      expect(right.bursts[0]?.port).toBe(port);
      expect(right.bursts[0]?.sourcePort).toBe(left.port);
    }
  });

  it("no address, one twice, all addresses, nonsense → EINVAL", async () => {
    for (const addresses of [[], ["127.0.0.1", "127.0.0.1"], ["0.0.0.0"], ["::"], ["localhost"]]) {
      await expect(open({ addresses })).rejects.toMatchObject({ code: "EINVAL" });
    }
    await expect(open({ addresses: ["127.0.0.1"], port: 70_000 })).rejects.toThrow("UDP port");
    await expect(open({ addresses: ["127.0.0.1"], burstCount: 0 })).rejects.toThrow("burstCount");
  });

  it("an address of another machine → EADDRNOTAVAIL, with the addresses there are", async () => {
    const opening = open({ addresses: ["192.0.2.77"] });
    await expect(opening).rejects.toMatchObject({ code: "EADDRNOTAVAIL" });
    await expect(opening).rejects.toThrow("127.0.0.1 (lo)");
  });

  it("a second address that fails → the first one's port is free again", async () => {
    const probe = await open({ addresses: ["127.0.0.24"] });
    const { port } = probe;
    probe.close();
    const addresses = ["127.0.0.24", "192.0.2.77"];
    await expect(open({ addresses, port })).rejects.toMatchObject({ code: "EADDRNOTAVAIL" });
    await open({ addresses: ["127.0.0.24"], port });
  });

  it("port taken in this process → EADDRINUSE, naming it", async () => {
    const first = await open({ addresses: ["127.0.0.21"] });
    const opening = open({ addresses: ["127.0.0.21"], port: first.port });
    await expect(opening).rejects.toMatchObject({ code: "EADDRINUSE" });
    await expect(opening).rejects.toThrow(`process ${process.pid}`);
  });

  it("port taken on every address by another process → EADDRINUSE, naming it", async () => {
    const script =
      "const s = require('dgram').createSocket('udp4');" +
      "s.bind(0, () => console.log(s.address().port));";
    const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
    try {
      const port = await new Promise<number>((resolve) => {
        child.stdout.once("data", (text) => resolve(Number(text)));
      });
      const opening = open({ addresses: ["127.0.0.21"], port });
      await expect(opening).rejects.toMatchObject({ code: "EADDRINUSE" });
      await expect(opening).rejects.toThrow(`(process ${child.pid}) holds it`);
    } finally {
      child.kill();
    }
  });

  it("an ordinary socket's datagrams → arrive, empty ones do not", async () => {
    const link = await open({ addresses: ["127.0.0.21"] });
    const socket = createSocket("udp4");
    for (const bytes of [Buffer.alloc(0), Buffer.alloc(3, 9), Buffer.alloc(60_000, 8)]) {
      await new Promise((resolve) => socket.send(bytes, link.port, "127.0.0.21", resolve));
    }
    const { segments } = await packetsOf(link, poller, 2);
    socket.close();
    expect(segments).toEqual([3, 60_000]);
    expect(link.counters.receiveDrops).toBe(1);
    expect(link.counters.receivedBytes).toBe(60_003);
  });
});

describe.skipIf(!hasNative)("openLink, native only", () => {
  let poller: Poller;
  let left: OsLink;
  let right: OsLink;
  beforeEach(async () => {
    poller = openPoller("native");
    left = await openLink({ poller, port: 0, addresses: ["127.0.0.21", "::1"] });
    right = await openLink({ poller, port: 0, addresses: ["127.0.0.22", "::1"] });
  });
  afterEach(() => {
    left.close();
    right.close();
    poller.close();
  });

  function batchOf(count: number, length: number, port: 0 | 1, trafficClass = 0): TxBatch {
    const batch = new TxBatch(new Uint8Array(1 << 20));
    const destination = IpAddress.parse(port === 0 ? "127.0.0.22" : "::1");
    const flow = { port, destination, destinationPort: right.port, trafficClass };
    for (let i = 0; i < count; i++) {
      batch.reserve(flow, length);
      batch.commit();
    }
    return batch;
  }

  it.each([0, 1] as const)("port %i: fifteen packets → one send, one burst", async (port) => {
    left.send(batchOf(15, 4116, port));
    expect(left.counters.sendCalls).toBe(1);
    expect(left.counters.sentMessages).toBe(1);
    const { segments, burstCount } = await packetsOf(right, poller, 15);
    expect(segments).toEqual(new Array(15).fill(4116));
    expect(burstCount).toBe(1);
  });

  it.each([0, 1] as const)("port %i: a traffic class → arrives with the burst", async (port) => {
    left.send(batchOf(3, 100, port, 0xb8));
    await packetsOf(right, poller, 3);
    expect(right.bursts[0]?.trafficClass).toBe(0xb8);
    left.send(batchOf(3, 100, port, 0));
    await packetsOf(right, poller, 3);
    expect(right.bursts[0]?.trafficClass).toBe(0);
  });

  it("segmentation turned off → a send per packet, and batches are told", async () => {
    const plain = await openLink({
      poller,
      port: 0,
      addresses: ["127.0.0.27"],
      segmentation: false,
    });
    const batch = batchOf(5, 1040, 0);
    expect(batch.messageCount).toBe(1);
    expect(plain.send(batch)).toBe(1);
    expect(plain.counters.sendCalls).toBe(5);
    expect(batch.segmentsMax).toBe(1);
    expect((await packetsOf(right, poller, 5)).segments).toEqual(new Array(5).fill(1040));
    plain.close();
  });

  it("a full receive buffer → holds what was promised, losses are counted", async () => {
    const small = await openLink({
      poller,
      port: 0,
      addresses: ["127.0.0.25"],
      receiveBufferBytes: 200_000,
    });
    const destination = IpAddress.parse("127.0.0.25");
    const flow = { port: 0, destination, destinationPort: small.port, trafficClass: 0 };
    const batch = new TxBatch(new Uint8Array(1 << 20));
    let sent = 0;
    while (sent < 4 * small.receiveBufferBytes) {
      batch.reset();
      batch.reserve(flow, 4116);
      batch.commit();
      left.send(batch);
      sent += 4116;
    }
    let received = 0;
    for (let count = small.receive(); count > 0; count = small.receive()) {
      for (const burst of small.bursts.slice(0, count)) received += burst.length;
    }
    expect(received).toBeGreaterThanOrEqual(small.receiveBufferBytes);
    expect(received).toBeLessThan(sent);
    // The count comes with the next datagram that fits.
    batch.reset();
    batch.reserve(flow, 100);
    batch.commit();
    left.send(batch);
    await packetsOf(small, poller, 1);
    expect(small.counters.receiveDrops).toBe((sent - received) / 4116);
    small.close();
  });

  it("a packet longer than the path takes → a failure, said once; others go on", async () => {
    const notices: string[] = [];
    const noisy = await openLink({
      poller,
      port: 0,
      addresses: ["127.0.0.26"],
      onNotice: (message) => notices.push(message),
    });
    const destination = IpAddress.parse("127.0.0.22");
    const flow = { port: 0, destination, destinationPort: right.port, trafficClass: 0 };
    const batch = new TxBatch(new Uint8Array(1 << 20));
    // Longer than UDP can carry, whatever the MTU.
    for (const length of [65_530, 50, 65_530, 60]) {
      batch.reserve(flow, length);
      batch.commit();
    }
    expect(noisy.send(batch)).toBe(batch.messageCount);
    expect(noisy.counters.sendFailures).toBe(2);
    expect(notices).toEqual(["packets to 127.0.0.22 can't be sent: EMSGSIZE"]);
    expect((await packetsOf(right, poller, 2)).segments).toEqual([50, 60]);
    noisy.close();
  });

  it("readable → after poll only, and only while something waits", async () => {
    poller.poll();
    expect(right.readable).toBe(false);
    left.send(batchOf(1, 50, 0));
    poller.waitBriefly(1 * MS);
    expect(right.readable).toBe(true);
    right.receive();
    poller.poll();
    expect(right.readable).toBe(false);
    left.setWantsWrite(true);
    poller.poll();
    expect(left.writable).toBe(true);
    left.setWantsWrite(false);
    poller.poll();
    expect(left.writable).toBe(false);
  });
});

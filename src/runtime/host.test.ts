// SPDX-License-Identifier: MIT
// The library as its users meet it: two hosts on loopback addresses, real sockets.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  ACCESS,
  type ProtectionDomain,
  QP_STATE,
  type QueuePair,
  RecvWorkRequest,
  SEND_FLAG,
  SendWorkRequest,
  WC_STATUS,
  WR_OPCODE,
} from "../verbs/index.js";
import { type Connection, type Host, IpAddress, openHost } from "./index.js";
import { loopback } from "./loopback.fixture.js";

const PORT = 7471;
const SERVER = loopback(81);
const CLIENT = loopback(82);
let server: Host;
let client: Host;

beforeEach(async () => {
  server = await openHost({ addresses: [SERVER] });
  client = await openHost({ addresses: [CLIENT] });
});

afterEach(async () => {
  await Promise.all([client.close(), server.close()]);
});

/** Memory of a host, registered for everything, in a protection domain of its own. */
function registered(host: Host, length: number) {
  const memory = host.map({ length });
  const pd = host.openDevice().allocPd();
  const access =
    ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE | ACCESS.REMOTE_READ | ACCESS.REMOTE_ATOMIC;
  return { memory, pd, mr: pd.registerMr(memory, { access }) };
}

/** `toEqual` takes seconds for so many bytes. */
function expectSame(a: Uint8Array, b: Uint8Array): void {
  expect(a.length).toBe(b.length);
  expect(Buffer.compare(a, b)).toBe(0);
}

/** RESET to RTS by hand, as a program without a connection manager does it. */
function raise(qp: QueuePair, pd: ProtectionDomain, peer: string, peerQpn: number): void {
  qp.modifyQp({ state: QP_STATE.INIT, pkeyIndex: 0, port: 0, accessFlags: 0 });
  qp.modifyQp({
    state: QP_STATE.RTR,
    addressVector: pd.createAh({ port: 0, destination: IpAddress.parse(peer) }),
    pathMtu: 1024,
    destinationQpn: peerQpn,
    rqPsn: 5,
    maxDestRdAtomic: 1,
    minRnrTimer: 12,
  });
  qp.modifyQp({
    state: QP_STATE.RTS,
    timeout: 14,
    retryCount: 7,
    rnrRetry: 7,
    sqPsn: 5,
    maxRdAtomic: 1,
  });
}

async function connected(
  there: ReturnType<typeof registered>,
  here: ReturnType<typeof registered>,
): Promise<{ peer: Connection; own: Connection }> {
  const incoming = server.listen({ port: PORT });
  const accepted = (async () => {
    for await (const request of incoming) {
      expect(request.remoteAddress).toBe(CLIENT);
      expect([...request.privateData.subarray(0, 3)]).toEqual([1, 2, 3]);
      return request.accept({ pd: there.pd, privateData: Uint8Array.of(9) });
    }
    throw new Error("no request");
  })();
  const own = await client.connect({
    address: SERVER,
    port: PORT,
    pd: here.pd,
    privateData: Uint8Array.of(1, 2, 3),
  });
  expect(own.privateData[0]).toBe(9);
  return { peer: await accepted, own };
}

describe("two hosts", () => {
  it("write, read, atomics, sends, with promises", async () => {
    const there = registered(server, 1 << 20);
    const here = registered(client, 1 << 20);
    const { own, peer } = await connected(there, here);
    const { address, rkey } = there.mr;

    for (let i = 0; i < 100_000; i++) here.memory.bytes[i] = i * 7;
    await own.write({ from: { mr: here.mr, length: 100_000 }, to: { address, rkey } });
    expectSame(there.memory.bytes.subarray(0, 100_000), here.memory.bytes.subarray(0, 100_000));

    there.memory.bytes.fill(0x5a, 200_000, 300_000);
    await own.read({
      into: { mr: here.mr, offset: 500_000, length: 100_000 },
      from: { address: BigInt(address) + 200_000n, rkey },
    });
    expect(here.memory.bytes.subarray(500_000, 600_000).every((byte) => byte === 0x5a)).toBe(true);

    there.memory.view.setBigUint64(8, 41n, true);
    const at = { address: address + 8, rkey };
    const before = { mr: here.mr, offset: 64, length: 8 };
    await own.fetchAndAdd({ at, add: 1n, before });
    await own.compareAndSwap({ at, compare: 42n, swap: 2n ** 63n, before });
    expect(here.memory.view.getBigUint64(64, true)).toBe(42n);
    expect(there.memory.view.getBigUint64(8, true)).toBe(2n ** 63n);

    const received = peer.receive({ mr: there.mr, offset: 400_000, length: 5000 });
    await own.send({ mr: here.mr, length: 5000 }, { immediate: 0xfeedface });
    expect(await received).toEqual({ length: 5000, immediate: 0xfeedface, isWrite: false });
    expectSame(there.memory.bytes.subarray(400_000, 405_000), here.memory.bytes.subarray(0, 5000));
  });

  it("a wrong key: the error has the status as its code, and the connection is over", async () => {
    const there = registered(server, 4096);
    const here = registered(client, 4096);
    const { own, peer } = await connected(there, here);
    const to = { address: there.mr.address, rkey: there.mr.rkey ^ 1 };
    await expect(own.write({ from: here.mr, to })).rejects.toMatchObject({
      code: "REM_ACCESS_ERR",
    });
    await Promise.all([own.closed, peer.closed]);
    await expect(own.write({ from: here.mr, to })).rejects.toMatchObject({ code: "ENOTCONN" });
    expect(there.memory.bytes.every((byte) => byte === 0)).toBe(true);
  });

  it("close: what waits fails, both ends hear of it", async () => {
    const there = registered(server, 4096);
    const here = registered(client, 4096);
    const { own, peer } = await connected(there, here);
    const never = expect(peer.receive(there.mr)).rejects.toMatchObject({ code: "WR_FLUSH_ERR" });
    await own.close();
    await never;
    await peer.closed;
  });

  it("verbs by hand, completions as an async iterable", async () => {
    const there = registered(server, 4096);
    const here = registered(client, 4096);
    const queues = [there, here].map(({ pd }) => {
      const cq = pd.context.createCq({ depth: 16 });
      const qp = pd.createQp({
        type: "RC",
        sendCq: cq,
        recvCq: cq,
        maxSendWr: 8,
        maxRecvWr: 8,
      });
      return { cq, qp };
    });
    const [a, b] = queues as [(typeof queues)[0], (typeof queues)[0]];
    raise(a.qp, there.pd, CLIENT, b.qp.qpn);
    raise(b.qp, here.pd, SERVER, a.qp.qpn);

    const receive = new RecvWorkRequest();
    receive.sgeCount = 1;
    receive.sges[0] = { address: there.mr.address, length: 16, lkey: there.mr.lkey };
    for (receive.wrId = 1; receive.wrId <= 3; receive.wrId++) a.qp.postRecv(receive);
    const send = new SendWorkRequest();
    send.opcode = WR_OPCODE.SEND;
    send.sendFlags = SEND_FLAG.SIGNALED;
    send.sgeCount = 1;
    send.sges[0] = { address: here.mr.address, length: 16, lkey: here.mr.lkey };
    for (send.wrId = 1; send.wrId <= 3; send.wrId++) b.qp.postSend(send);
    client.wake();

    const seen: number[] = [];
    for await (const completion of server.completions(a.cq)) {
      expect(completion.status).toBe(WC_STATUS.SUCCESS);
      expect(completion.byteLength).toBe(16);
      seen.push(completion.wrId);
      if (seen.length === 3) break;
    }
    expect(seen).toEqual([1, 2, 3]);
  });

  it("options of the wrong kind → EINVAL naming the field; all goes on", async () => {
    const there = registered(server, 4096);
    const here = registered(client, 4096);
    const wrong = <T>(value: unknown) => value as T;
    const refused = (field: string) => ({
      code: "EINVAL",
      message: expect.stringMatching(new RegExp(`^${field}: `)),
    });
    const incoming = server.listen({ port: PORT });
    const accepted = (async () => {
      for await (const request of incoming) {
        await expect(request.accept(wrong({}))).rejects.toMatchObject(refused("pd"));
        await expect(request.accept(wrong(undefined))).rejects.toMatchObject(refused("options"));
        const short = { pd: there.pd, sendDepth: 0.5 };
        await expect(request.accept(short)).rejects.toMatchObject(refused("sendDepth"));
        return request.accept({ pd: there.pd });
      }
      throw new Error("no request");
    })();
    const to = { address: SERVER, port: PORT, pd: here.pd };
    for (const [field, value] of [
      ["address", 5],
      ["port", "7471"],
      ["pd", {}],
      ["privateData", "abc"],
      ["timeoutMs", Number.NaN],
    ] as const) {
      const attempt = client.connect(wrong({ ...to, [field]: value }));
      await expect(attempt).rejects.toMatchObject(refused(field));
    }
    const own = await client.connect(to);
    await accepted;
    const place = { address: there.mr.address, rkey: there.mr.rkey };
    for (const [field, options] of [
      ["options", undefined],
      ["remote", { from: here.mr }],
      ["remote.address", { from: here.mr, to: { ...place, address: -1 } }],
      ["remote.rkey", { from: here.mr, to: { address: 0 } }],
      ["local", { to: place }],
      ["local.mr", { from: {}, to: place }],
      ["local.offset", { from: { mr: here.mr, offset: 0.5 }, to: place }],
      ["local.length", { from: { mr: here.mr, length: Number.NaN }, to: place }],
      ["immediate", { from: here.mr, to: place, immediate: 2 ** 32 }],
    ] as const) {
      await expect(own.write(wrong(options))).rejects.toMatchObject(refused(field));
    }
    const atomic = { at: place, add: 1, before: here.mr };
    await expect(own.fetchAndAdd(wrong(atomic))).rejects.toMatchObject(refused("add"));
    await expect(openHost(wrong({}))).rejects.toMatchObject(refused("addresses"));
    expect(() => client.map(wrong({}))).toThrow(/^length: /);
    expect(() => client.listen(wrong({ port: 70_000 }))).toThrow(/^port: /);
    await own.write({ from: here.mr, to: place });
  });

  it("completions: the iteration ends with the host", async () => {
    const cq = client.openDevice().createCq({ depth: 4 });
    const seen: number[] = [];
    const reading = (async () => {
      for await (const completion of client.completions(cq)) seen.push(completion.wrId);
    })();
    await new Promise((resolve) => setImmediate(resolve));
    await client.close();
    await reading;
    expect(seen).toEqual([]);
  });

  it("the peer falls silent: a write fails when its retries are used up", async () => {
    const there = registered(server, 4096);
    const here = registered(client, 4096);
    const { own } = await connected(there, here);
    await server.stack.lane.stop();
    const { address, rkey } = there.mr;
    await expect(own.write({ from: here.mr, to: { address, rkey } })).rejects.toMatchObject({
      code: "RETRY_EXC_ERR",
    });
    // Else its goodbye would wait for an answer for seconds.
    await client.stack.lane.stop();
  });

  it("the lane fails: what waits is told, and the host closes", async () => {
    const there = registered(server, 4096);
    const here = registered(client, 4096);
    const { own } = await connected(there, here);
    const received = expect(own.receive(here.mr)).rejects.toMatchObject({ code: "WR_FLUSH_ERR" });
    client.stack.lane.add({
      pump: () => {
        throw new Error("a bug");
      },
      deadlineNs: () => 0,
      checkInvariants: () => {},
    });
    await received;
    await own.closed;
    await expect(own.receive(here.mr)).rejects.toMatchObject({ code: "ENOTCONN" });
    await client.close();
    // The client is gone without a word: the server's goodbye would wait for seconds.
    await server.stack.lane.stop();
  });

  it("nobody listens; nobody answers; no address of that family", async () => {
    const { pd } = registered(client, 4096);
    await expect(client.connect({ address: SERVER, port: PORT, pd })).rejects.toMatchObject({
      code: "ECONNREFUSED",
    });
    await expect(
      client.connect({ address: loopback(89), port: PORT, pd, timeoutMs: 300 }),
    ).rejects.toMatchObject({ code: "ETIMEDOUT" });
    await expect(client.connect({ address: "::1", port: PORT, pd })).rejects.toMatchObject({
      code: "EADDRNOTAVAIL",
    });
  });
});

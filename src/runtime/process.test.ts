// SPDX-License-Identifier: MIT
// Processes of a host over real sockets: a peer reads and writes what they have mapped, pinned and
// on demand, while it is unmapped, forked and reclaimed.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { HeapFileStore } from "../mm/index.js";
import { ACCESS, ADVICE, type MemoryRegion, type ProtectionDomain } from "../verbs/index.js";
import { type Connection, type Host, openHost } from "./index.js";
import { loopback } from "./loopback.fixture.js";
import { ControlClient, listInstances, MEMORY_STATISTICS } from "./observe/index.js";

const PORT = 7471;
const SERVER = loopback(71);
const CLIENT = loopback(72);
/** Of hosts that one test has for itself. */
const OTHER = loopback(73);
const PAGE = 4096;
const MEMORY_BYTES = 2 << 20;
const ALL = ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE | ACCESS.REMOTE_READ | ACCESS.REMOTE_ATOMIC;

let folder: string;
let server: Host;
let client: Host;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "farpage-process-"));
  const control = { name: "processes", folder };
  server = await openHost({ addresses: [SERVER], processMemoryBytes: 4 << 20, control });
  client = await openHost({ addresses: [CLIENT] });
});

afterAll(async () => {
  await Promise.all([client.close(), server.close()]);
  rmSync(folder, { recursive: true });
});

/** The client's end of a connection to a process's protection domain, and memory to use with it. */
async function connected(pd: ProtectionDomain, length = PAGE, host = server) {
  const memory = client.map({ length });
  const own = client.openDevice().allocPd();
  const mr = own.registerMr(memory, { access: ALL });
  await using requests = host.listen({ port: PORT });
  const [address] = host.addresses as [string];
  const accepted = requests[Symbol.asyncIterator]()
    .next()
    .then(({ value }) => value?.accept({ pd }));
  const peer = await client.connect({ address, port: PORT, pd: own });
  await accepted;
  return { memory, mr, peer };
}

async function peerWrites(
  { memory, mr, peer }: { memory: { bytes: Uint8Array }; mr: MemoryRegion; peer: Connection },
  far: MemoryRegion,
  offset: number,
  value: number,
): Promise<void> {
  memory.bytes.fill(value, 0, PAGE);
  await peer.write({
    from: { mr, length: PAGE },
    to: { address: far.address + offset, rkey: far.rkey },
  });
}

function byteAt(range: { read(offset: number, target: Uint8Array): void }, offset: number): number {
  const found = new Uint8Array(1);
  range.read(offset, found);
  return found[0] as number;
}

test("a process's memory, pinned and on demand: what a peer writes is what it reads", async () => {
  const app = server.spawn("app", { lockedBytesMax: 16 * PAGE });
  const pd = app.openDevice().allocPd();
  const range = app.map({ length: 16 * PAGE });
  const pinned = pd.registerMr(range, { access: ALL });
  const onDemand = pd.registerMr(range, { access: ALL, onDemand: true });
  const far = await connected(pd);
  await peerWrites(far, pinned, 3 * PAGE, 7);
  await peerWrites(far, onDemand, 5 * PAGE, 9);
  expect([byteAt(range, 3 * PAGE), byteAt(range, 5 * PAGE)]).toEqual([7, 9]);
  // No more than the limit, and with the reason.
  const more = app.map({ length: PAGE });
  expect(() => pd.registerMr(more)).toThrow(expect.objectContaining({ reason: "limit" }));
  pinned.deregister();
  // Unmapped and mapped anew under the region: the next access finds the new memory.
  range.unmap();
  const again = app.map({ length: 16 * PAGE, address: range.address, fixed: "no-replace" });
  await peerWrites(far, onDemand, 5 * PAGE, 11);
  expect([byteAt(again, 5 * PAGE), byteAt(again, 3 * PAGE)]).toEqual([11, 0]);
});

test("a fork: the peer goes on writing to the parent's memory alone", async () => {
  const app = server.spawn("app");
  const pd = app.openDevice().allocPd();
  const range = app.map({ length: 4 * PAGE });
  const mr = pd.registerMr(range, { access: ALL });
  const far = await connected(pd);
  await peerWrites(far, mr, 0, 1);
  using child = app.fork("child");
  await peerWrites(far, mr, 0, 2);
  const found = new Uint8Array(1);
  child.space.read(range.address, found);
  expect([byteAt(range, 0), found[0]]).toEqual([2, 1]);
});

test("a file bigger than memory: read and written by a peer, reclaimed by the host", async () => {
  await using host = await openHost({ addresses: [OTHER], processMemoryBytes: MEMORY_BYTES });
  const app = host.spawn("app");
  const { manager } = app.space;
  const store = new HeapFileStore();
  const bytes = MEMORY_BYTES + (1 << 18);
  const file = manager.openFile({ name: "/big", size: bytes, store });
  const range = app.map({ length: bytes, shared: true, file: { file, offset: 0 } });
  const pd = app.openDevice().allocPd();
  const mr = pd.registerMr(range, { access: ALL, onDemand: true });
  const far = await connected(pd, bytes, host);
  for (let i = 0; i < bytes; i += 64) far.memory.bytes[i] = (i * 7) >> 8;
  const place = { address: mr.address, rkey: mr.rkey };
  await far.peer.write({ from: { mr: far.mr, length: bytes }, to: place });
  const sent = far.memory.bytes.slice();
  far.memory.bytes.fill(0);
  await far.peer.read({ from: place, into: { mr: far.mr, length: bytes } });
  expect(Buffer.compare(sent, far.memory.bytes)).toBe(0);
  expect(manager.counters.pagesReclaimed).toBeGreaterThan((bytes - MEMORY_BYTES) / PAGE);
  mr.deregister();
  file.close();
  app.exit();
  manager.checkInvariants();
  expect(store.writeCount).toBeGreaterThanOrEqual(bytes / PAGE);
});

test("caches are reclaimed in the background, up to the high watermark", async () => {
  await using host = await openHost({ addresses: [OTHER], processMemoryBytes: 16 << 20 });
  const app = host.spawn("app");
  const { manager } = app.space;
  const { memory } = manager;
  const [zone] = memory.zones;
  const { low, high, min } = zone?.watermarks ?? { low: 0, high: 0, min: 0 };
  const file = manager.openFile({ name: "/read", size: 32 << 20, store: new HeapFileStore() });
  const page = new Uint8Array(1);
  for (let index = 0; memory.freeFrames >= low; index++) file.read(index * PAGE, page);
  expect(low).toBeGreaterThan(min);
  host.wake();
  for (let i = 0; i < 500 && memory.freeFrames < high; i++) {
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  expect(memory.freeFrames).toBeGreaterThanOrEqual(high);
  file.close();
});

test("advice for a whole address space; a process that ends takes its regions along", async () => {
  const app = server.spawn("app");
  const other = server.openDevice().allocPd();
  const range = app.map({ length: 3 * PAGE });
  range.write(PAGE, Uint8Array.of(5));
  const all = other.registerMr({ space: app.regions }, { access: ALL, onDemand: true });
  all.advise(ADVICE.PREFETCH_NO_FAULT, 0, 2 ** 48);
  expect(() => all.advise(ADVICE.PREFETCH, 0, 2 ** 48, true)).toThrow("can be had");
  const own = app.openDevice();
  own.allocPd().registerMr(range);
  app.exit();
  app.exit();
  expect(app.space.hasExited).toBe(true);
  const far = await connected(other);
  const from = { address: range.address, rkey: all.rkey };
  await expect(far.peer.read({ from, into: { mr: far.mr, length: 8 } })).rejects.toThrow();
});

test("a process that ends under its connection: the peer is told, the host closes", async () => {
  await using host = await openHost({ addresses: [OTHER] });
  const app = host.spawn("app");
  const pd = app.openDevice().allocPd();
  const range = app.map({ length: PAGE });
  const mr = pd.registerMr(range, { access: ALL });
  const far = await connected(pd, PAGE, host);
  await peerWrites(far, mr, 0, 3);
  app.exit();
  await far.peer.closed;
});

test("`farpage mem` sees the memory of processes, and who has pinned it", async () => {
  const names = ({ zones }: { zones: { name: string }[] }) => zones.map(({ name }) => name);
  const [instance] = await listInstances(folder);
  const control = await ControlClient.connect(instance?.path ?? "none");
  const ask = async () => {
    const { memory } = await control.ask({ request: "memory" });
    return MEMORY_STATISTICS.parse(memory);
  };
  try {
    const app = server.spawn("registers");
    const range = app.map({ length: 4 * PAGE });
    app.openDevice().allocPd().registerMr(range);
    const all = await ask();
    expect(all.laneCount).toBe(1);
    expect(names(all)).toEqual(["arena 0", "processes"]);
    const own = all.pins.find(({ owner }) => owner === "anonymous memory of registers");
    expect(own?.bytes).toBe(4 * PAGE);
  } finally {
    control.close();
  }
});

test("wrong options: EINVAL names them", async () => {
  expect(() => server.spawn("")).toThrow("name: a string is wanted");
  const wrong = { lockedBytesMax: -1 };
  expect(() => server.spawn("app", wrong)).toThrow("lockedBytesMax: a whole number");
  await expect(openHost({ addresses: [OTHER], processMemoryBytes: 0.5 })).rejects.toThrow(
    "processMemoryBytes",
  );
});

test("after its end a process says so, and a closed host has none", async () => {
  const host = await openHost({ addresses: [OTHER] });
  const app = host.spawn("app");
  const range = app.map({ length: PAGE });
  app.exit();
  app.exit();
  const gone = expect.objectContaining({ code: "ESRCH" });
  expect(() => app.map({ length: PAGE })).toThrow(gone);
  expect(() => app.openDevice()).toThrow(gone);
  expect(() => app.fork("child")).toThrow(gone);
  expect(() => range.read(0, new Uint8Array(1))).toThrow(gone);
  expect(() => range.write(0, new Uint8Array(1))).toThrow(gone);
  expect(() => range.unmap()).toThrow(gone);
  await host.close();
  const closed = expect.objectContaining({ code: "ESHUTDOWN" });
  expect(() => host.spawn("late")).toThrow(closed);
});

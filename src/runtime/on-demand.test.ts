// SPDX-License-Identifier: MIT
// On-demand regions over real sockets: a peer reads and writes memory that is bigger than what
// there is, while it is evicted and moved.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { memoryOf, TestSpace } from "../../test/support/process-space.js";
import { FaultQueue, FRAME_BYTES, ProcessRegions } from "../mm/index.js";
import { ACCESS } from "../verbs/index.js";
import { type Host, openHost } from "./index.js";
import { loopback } from "./loopback.fixture.js";

const PORT = 7471;
const SERVER = loopback(83);
const CLIENT = loopback(84);
const VPN = 0x6000_0000;
const ADDRESS = VPN * FRAME_BYTES;
const PAGES = 128;
const BYTES = PAGES * FRAME_BYTES;
const ALL = ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE | ACCESS.REMOTE_READ | ACCESS.REMOTE_ATOMIC;

let server: Host;
let client: Host;

beforeEach(async () => {
  server = await openHost({ addresses: [SERVER] });
  client = await openHost({ addresses: [CLIENT] });
});

afterEach(async () => {
  await Promise.all([client.close(), server.close()]);
});

/** A process of 128 pages on a host, with 48 frames of memory, all of it one on-demand region. */
function bigProcess(host: Host) {
  const memory = memoryOf(48);
  const process = new TestSpace(memory);
  process.evictsWhenShort = true;
  process.mapAbsent(VPN, PAGES);
  const queue = new FaultQueue();
  host.stack.lane.add(queue);
  const space = new ProcessRegions(memory, process, process, queue);
  const pd = host.openDevice().allocPd();
  const range = { space, address: ADDRESS, length: BYTES };
  return { memory, process, queue, pd, mr: pd.registerMr(range, { access: ALL, onDemand: true }) };
}

describe("on-demand memory over real sockets", () => {
  it("a peer writes and reads a region bigger than memory, evicted and moved", async () => {
    const far = bigProcess(server);
    const memory = client.map({ length: 2 * BYTES });
    const pd = client.openDevice().allocPd();
    const mr = pd.registerMr(memory, { access: ALL });
    for (let i = 0; i < BYTES; i++) memory.bytes[i] = (i * 7) >> 3;
    const requests = server.listen({ port: PORT })[Symbol.asyncIterator]();
    const accepted = requests.next().then(({ value }) => value?.accept({ pd: far.pd }));
    await using peer = await client.connect({ address: SERVER, port: PORT, pd });
    await using _other = await accepted;
    const place = { address: far.mr.address, rkey: far.mr.rkey };
    await peer.write({ from: { mr, length: BYTES }, to: place });
    for (let page = 0; page < PAGES; page += 5) far.process.move(VPN + page);
    await peer.read({ from: place, into: { mr, offset: BYTES, length: BYTES } });
    const [sent, back] = [memory.bytes.subarray(0, BYTES), memory.bytes.subarray(BYTES)];
    expect(Buffer.compare(sent, back)).toBe(0);
    expect(far.process.evictedCount).toBeGreaterThan(PAGES);
    // Pages that drive each other out would be brought in again and again.
    expect(far.queue.counters.served).toBeLessThan(16 * PAGES);
    expect(far.queue.counters.failed).toBe(0);
    far.memory.checkInvariants();
  });
});

// SPDX-License-Identifier: MIT

import { expect, test } from "vitest";
import { bytes, checkAll, PAGE } from "../pin/pin.fixture.js";
import { ACCESS, type AddressSpace, PROT } from "../space/index.js";
import { deviceHost, FAR, GPU, NEAR } from "./device.fixture.js";
import { type DeviceMemory, DMA_FAULT } from "./device-memory.js";
import { RANGE_REQUEST, RANGE_RESULT, RANGE_STATE, RangeFault } from "./range-fault.js";

const RW = PROT.READ | PROT.WRITE;
const { VALID, WRITABLE, FORBIDDEN, PEER, OWN } = RANGE_STATE;

function rangeOf(
  space: AddressSpace,
  devices: DeviceMemory,
  address: number,
  count: number,
  client = NEAR,
  invalidate: () => void = () => {},
) {
  const notifier = { start: address, end: address + count * PAGE, invalidate };
  space.notifiers.add(notifier);
  return new RangeFault(space, devices, notifier, address / PAGE, count, client);
}

test("snapshot: says what is there, and faults nothing in", () => {
  const host = deviceHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: 3 * PAGE, prot: RW });
  space.write(address, bytes(1));
  space.fault(address / PAGE + 1, ACCESS.READ);
  const range = rangeOf(space, host.devices, address, 3);
  const faults = host.manager.counters.faults;
  expect(range.run()).toBe(RANGE_RESULT.DONE);
  expect([...range.states]).toEqual([VALID | WRITABLE, VALID, 0]);
  expect(range.frames[0]).toBe(space.lookup(address / PAGE));
  expect(host.manager.counters.faults).toBe(faults);
  space.protect(address, PAGE, PROT.NONE);
  expect(range.isStale()).toBe(true);
  range.run();
  expect(range.states[0]).toBe(FORBIDDEN);
  checkAll(host);
});

test("faults: to be read for all, to be written for one", () => {
  const host = deviceHost();
  const space = host.manager.createSpace({ hugePages: false });
  const address = space.map({ length: 3 * PAGE, prot: RW });
  const range = rangeOf(space, host.devices, address, 3);
  range.defaults = RANGE_REQUEST.READ;
  range.requests[1] = RANGE_REQUEST.WRITE;
  expect(range.run()).toBe(RANGE_RESULT.DONE);
  expect([...range.states]).toEqual([VALID, VALID | WRITABLE, VALID]);
  expect(range.frames[0]).toBe(host.manager.zeroFrame);
  expect(range.isStale()).toBe(false);
  expect(host.memory.isPinned(space.lookup(address / PAGE + 1))).toBe(false);
});

test("faults: a page that can't be had fails the range, and it is said which", () => {
  const host = deviceHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: 2 * PAGE, prot: RW });
  space.protect(address + PAGE, PAGE, PROT.READ);
  const range = rangeOf(space, host.devices, address, 2);
  range.defaults = RANGE_REQUEST.WRITE;
  expect(range.run()).toBe(RANGE_RESULT.FAILED);
  expect(range.failedPage).toBe(address / PAGE + 1);
  expect(range.failure).toBe(DMA_FAULT.WRONG);
});

test("sequence: a change after the lookup makes it stale; one under way makes it wait", () => {
  const host = deviceHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: 2 * PAGE, prot: RW });
  const found: number[] = [];
  const range: RangeFault = rangeOf(space, host.devices, address, 2, NEAR, () => {
    found.push(range.run());
  });
  range.defaults = RANGE_REQUEST.WRITE;
  expect(range.run()).toBe(RANGE_RESULT.DONE);
  expect(range.isStale()).toBe(false);
  space.unmap(address, PAGE);
  expect(found).toEqual([RANGE_RESULT.BUSY]);
  expect(range.isStale()).toBe(true);
  expect(range.run()).toBe(RANGE_RESULT.FAILED);
});

test("sequence: a fault of the walk that changes earlier pages has it looked at again", () => {
  const host = deviceHost();
  const space = host.manager.createSpace({ hugePages: false });
  const address = space.map({ length: 2 * PAGE, prot: RW });
  space.write(address, bytes(1));
  space.write(address + PAGE, bytes(2));
  const child = space.fork();
  const range = rangeOf(space, host.devices, address, 2);
  range.defaults = RANGE_REQUEST.WRITE;
  expect(range.run()).toBe(RANGE_RESULT.DONE);
  expect(range.isStale()).toBe(false);
  for (let i = 0; i < 2; i++) {
    expect(range.frames[i]).toBe(space.lookup(address / PAGE + i));
    expect(range.frames[i]).not.toBe(child.lookup(address / PAGE + i));
  }
});

test("devices: own pages where they are, other's in their BAR, else in system memory", () => {
  const host = deviceHost();
  const space = host.manager.createSpace({ hugePages: false });
  const address = space.map({ length: 2 * PAGE, prot: RW });
  space.write(address, bytes(1));
  host.gpu.migrateIn(space, address, PAGE);
  const statesFor = (client: typeof GPU) => {
    const range = rangeOf(space, host.devices, address, 1, client);
    range.defaults = RANGE_REQUEST.WRITE;
    expect(range.run()).toBe(RANGE_RESULT.DONE);
    expect(range.isStale()).toBe(false);
    return range.states[0];
  };
  expect(statesFor(GPU)).toBe(VALID | WRITABLE | OWN);
  expect(statesFor(NEAR)).toBe(VALID | WRITABLE | PEER);
  expect(host.gpu.pagesOut).toBe(0);
  expect(statesFor(FAR)).toBe(VALID | WRITABLE);
  expect(host.gpu.pagesOut).toBe(1);
  checkAll(host);
});

test("orders: pages that are one block say so", () => {
  const host = deviceHost(16);
  const space = host.manager.createSpace();
  const base = space.map({ length: 4 * 2 ** 20, prot: RW });
  const huge = Math.ceil(base / 2 ** 21) * 2 ** 21;
  const range = rangeOf(space, host.devices, huge, 512);
  range.defaults = RANGE_REQUEST.WRITE;
  range.run();
  expect(range.orders[0]).toBe(9);
  expect(range.orders[511]).toBe(9);
});

test("the process is gone: no range can be had, a snapshot neither", () => {
  const host = deviceHost();
  const space = host.manager.createSpace();
  const address = space.map({ length: 2 * PAGE, prot: RW });
  const range = rangeOf(space, host.devices, address, 2);
  expect(range.run()).toBe(RANGE_RESULT.DONE);
  space.exit();
  expect(range.isStale()).toBe(true);
  expect(range.run()).toBe(RANGE_RESULT.FAILED);
  expect([range.failedPage, range.failure]).toEqual([address / PAGE, DMA_FAULT.WRONG]);
});

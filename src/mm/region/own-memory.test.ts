// SPDX-License-Identifier: MIT
// An on-demand region of the very device in whose memory the pages are.

import { expect, test } from "vitest";
import { deviceHost, GPU } from "../device/device.fixture.js";
import { checkAll, PAGE } from "../pin/pin.fixture.js";
import { PROT } from "../space/index.js";
import { FaultQueue } from "./fault-queue.js";
import { ProcessDemand } from "./process-demand.js";
import { ProcessRegions } from "./process-regions.js";

test("a page in the device's own memory is used there, until the CPU's touch takes it back", () => {
  const host = deviceHost();
  const space = host.manager.createSpace({ hugePages: false });
  const address = space.map({ length: 3 * PAGE, prot: PROT.READ | PROT.WRITE });
  for (let i = 0; i < 3; i++) space.write(address + i * PAGE, Uint8Array.of(i + 1));
  host.gpu.migrateIn(space, address, 3 * PAGE);
  const queue = new FaultQueue();
  const demand = new ProcessDemand(space, host.devices, GPU);
  const pinner = host.pinner.regionPinner(space, { device: GPU });
  const regions = new ProcessRegions(host.memory, demand, pinner, queue);
  const pages = regions.registerPages(address, 3 * PAGE, true, true);
  pages.fault(0, 3, true);
  queue.pump(0);
  expect([0, 1, 2].map((page) => pages.locate(page, true))).toEqual([true, true, true]);
  expect(pages.bytes).toBe(host.vram.bytes);
  expect([pages.bytes[pages.offset], pages.view.getUint8(pages.offset)]).toEqual([3, 3]);
  pages.bytes[pages.offset] = 77;
  expect(host.devices.counters).toMatchObject({ ownFaults: 3, cpuFaults: 0, peerFaults: 0 });
  const seen = new Uint8Array(1);
  space.read(address + 2 * PAGE, seen);
  expect(seen[0]).toBe(77);
  expect([1, 2].map((page) => pages.locate(page, false))).toEqual([true, false]);
  pages.release();
  checkAll(host);
});

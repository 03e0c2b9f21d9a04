// SPDX-License-Identifier: MIT
// Pins that are refused late, or of what is there but not the process's own.

import { expect, test } from "vitest";
import { ACCESS, PROT } from "../space/index.js";
import { bytes, checkAll, PAGE, reasonOf, smallHost } from "./pin.fixture.js";

const RW = PROT.READ | PROT.WRITE;

test("a lease that refuses when it is told of the pin: nothing stays held or charged", () => {
  const host = smallHost();
  const space = host.manager.createSpace();
  const file = host.manager.openFile({ name: "data", size: 4 * PAGE });
  const mapped = { file, offset: 0, writable: true };
  const prot = PROT.READ | PROT.WRITE;
  const address = space.map({ length: 4 * PAGE, prot, shared: true, file: mapped });
  const lease = {
    name: "broken just now",
    covers: () => true,
    pinned: () => {
      throw new Error("broken");
    },
    unpinned: () => {},
  };
  const pin = () => host.pinner.pinForLongTermDma(space, address, PAGE, ACCESS.WRITE, { lease });
  expect(pin).toThrow("broken");
  expect(host.pinner.list()).toEqual([]);
  expect(host.pinner.chargedBytes(space)).toBe(0);
  checkAll(host);
});

test("nothing faulted in: what others have too is there to be copied, not to be pinned", () => {
  const host = smallHost();
  const space = host.manager.createSpace({ hugePages: false });
  const address = space.map({ length: 2 * PAGE, prot: RW });
  space.write(address, bytes(1));
  const child = space.fork();
  // Behind it is the one page of zeroes.
  space.fault(address / PAGE + 1, ACCESS.READ);
  const options = { presentOnly: true };
  for (const at of [address, address + PAGE]) {
    const pin = () => host.pinner.pinForShortDma(space, at, PAGE, ACCESS.READ, options);
    expect(reasonOf(pin)).toBe("not-present");
    host.pinner.borrowForCpuCopy(space, at, PAGE, ACCESS.READ, options).release();
    space.write(at, bytes(2));
    pin().release();
  }
  child.exit();
  checkAll(host);
});

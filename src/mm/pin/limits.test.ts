// SPDX-License-Identifier: MIT

import { expect, test } from "vitest";
import { UNDIVIDED_POLICY } from "../alloc/index.js";
import { ACCESS, PROT } from "../space/index.js";
import { checkAll, errorOf, PAGE, reasonOf, smallHost } from "./pin.fixture.js";

const RW = PROT.READ | PROT.WRITE;

test("the limit: each frame is charged once, until its last unpin", () => {
  const host = smallHost();
  const space = host.manager.createSpace({ limits: { lockedBytesMax: 3 * PAGE } });
  const address = space.map({ length: 4 * PAGE, prot: RW });
  const { pinner } = host;
  const first = pinner.pinForLongTermDma(space, address, 2 * PAGE, ACCESS.WRITE);
  const second = pinner.pinForLongTermDma(space, address + PAGE, 2 * PAGE, ACCESS.READ);
  expect(pinner.chargedBytes(space)).toBe(3 * PAGE);
  const error = errorOf(() => pinner.pinForLongTermDma(space, address, 4 * PAGE, ACCESS.READ));
  expect(error).toMatchObject({ reason: "limit", code: "ENOMEM", address: address + 3 * PAGE });
  first.release(false);
  expect(pinner.chargedBytes(space)).toBe(2 * PAGE);
  checkAll(host);
  pinner.pinForLongTermDma(space, address + 3 * PAGE, PAGE, ACCESS.READ).release();
  second.release();
  expect(pinner.chargedBytes(space)).toBe(0);
  checkAll(host);
});

test("the limit under 64 KiB base pages: what a pin keeps is charged, once", () => {
  const base = 16 * PAGE;
  const host = smallHost(8, { ...UNDIVIDED_POLICY, baseShift: 16 });
  const { pinner } = host;
  const space = host.manager.createSpace({
    limits: { lockedBytesMax: 2 * base },
    hugePages: false,
  });
  const address = space.map({ length: 4 * PAGE, prot: RW });
  const pin = (page: number, pages: number) =>
    pinner.pinForLongTermDma(space, address + page * PAGE, pages * PAGE, ACCESS.WRITE);
  const two = pin(0, 2);
  const again = pin(1, 1);
  expect(pinner.chargedBytes(space)).toBe(2 * base);
  expect(errorOf(() => pin(2, 1))).toMatchObject({ reason: "limit", address: address + 2 * PAGE });
  checkAll(host);
  two.release(true);
  expect(pinner.chargedBytes(space)).toBe(base);
  again.release(false);
  expect(pinner.chargedBytes(space)).toBe(0);
  checkAll(host);
});

test("the limit under 64 KiB base pages: a block of 2 MiB is 32 of them", () => {
  const host = smallHost(8, { ...UNDIVIDED_POLICY, baseShift: 16 });
  const space = host.manager.createSpace({ limits: { lockedBytesMax: 2 ** 21 } });
  const prot = RW;
  const address = space.map({ address: 2 ** 30, length: 2 ** 21, prot, fixed: "no-replace" });
  const all = host.pinner.pinForLongTermDma(space, address, 2 ** 21, ACCESS.WRITE);
  const part = host.pinner.pinForLongTermDma(space, address + 3 * PAGE, PAGE, ACCESS.WRITE);
  expect(host.memory.orderOf(space.lookup(address / PAGE))).toBe(9);
  expect(host.pinner.chargedBytes(space)).toBe(2 ** 21);
  all.release(true);
  expect(host.pinner.chargedBytes(space)).toBe(16 * PAGE);
  checkAll(host);
  part.release(false);
  checkAll(host);
});

test("the limit is lowered (setrlimit): what is pinned stays, nothing more is", () => {
  const host = smallHost();
  const space = host.manager.createSpace({ limits: { lockedBytesMax: 2 * PAGE } });
  const address = space.map({ length: 3 * PAGE, prot: RW });
  const pin = host.pinner.pinForLongTermDma(space, address, 2 * PAGE, ACCESS.WRITE);
  space.limits.lockedBytesMax = PAGE;
  checkAll(host);
  const more = () => host.pinner.pinForLongTermDma(space, address + 2 * PAGE, PAGE, ACCESS.WRITE);
  expect(reasonOf(more)).toBe("limit");
  const same = host.pinner.pinForLongTermDma(space, address, PAGE, ACCESS.READ);
  checkAll(host);
  same.release();
  pin.release(false);
});

test("the limit: a transfer's short pins are not charged", () => {
  const host = smallHost();
  const space = host.manager.createSpace({ limits: { lockedBytesMax: PAGE } });
  const address = space.map({ length: 4 * PAGE, prot: RW });
  const pin = host.pinner.pinForShortDma(space, address, 4 * PAGE, ACCESS.WRITE);
  expect(host.pinner.chargedBytes(space)).toBe(0);
  pin.release(false);
});

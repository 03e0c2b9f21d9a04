// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { ERRNO } from "../base/index.js";
import { RNBD_ACCESS } from "../wire/index.js";
import { VolumeRights } from "./volume-rights.js";

const { RO, RW, MIGRATION } = RNBD_ACCESS;

describe("rights of a volume that several lanes have", () => {
  const shared = new Int32Array(new SharedArrayBuffer(4));
  const [one, other] = [new VolumeRights(shared), new VolumeRights(shared)];

  it("one writer on all lanes, any readers, one more who migrates", () => {
    expect(one.acquire(RW, false)).toBe(0);
    expect(other.acquire(RW, false)).toBe(ERRNO.EPERM);
    expect(other.acquire(RO, false)).toBe(0);
    expect(other.acquire(MIGRATION, false)).toBe(0);
    expect(one.acquire(MIGRATION, false)).toBe(ERRNO.EPERM);
    expect(one.acquire(RO, true)).toBe(ERRNO.EBUSY);
    expect(one.openCount).toBe(3);
    one.checkInvariants();
    one.release(RW, false);
    expect(other.acquire(RW, false)).toBe(ERRNO.EPERM);
    other.release(MIGRATION, false);
    other.release(RO, false);
    expect(one.openCount).toBe(0);
  });

  it("alone is alone on all lanes", () => {
    expect(one.acquire(RW, true)).toBe(0);
    expect(other.acquire(RO, false)).toBe(ERRNO.EBUSY);
    other.checkInvariants();
    one.release(RW, true);
    expect(other.acquire(RO, true)).toBe(0);
    expect(one.acquire(RW, false)).toBe(ERRNO.EBUSY);
    other.release(RO, true);
    expect(shared[0]).toBe(0);
  });

  it("what was not acquired can't be released", () => {
    expect(() => one.release(RW, false)).toThrow("no more rights released");
  });
});

// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { ERRNO } from "../base/index.js";
import { RNBD_ACCESS } from "../wire/index.js";
import { VolumeRights } from "./volume-rights.js";

const { RO, RW, MIGRATION } = RNBD_ACCESS;

function lanes(): [VolumeRights, VolumeRights, Int32Array] {
  const shared = new SharedArrayBuffer(VolumeRights.byteLength);
  return [new VolumeRights(shared), new VolumeRights(shared), new Int32Array(shared)];
}

/** The name of a group. */
function group(last: number): Uint8Array {
  return new Uint8Array(16).fill(0xa5).fill(last, 15);
}

describe("rights of a volume that several lanes have", () => {
  it("one writer on all lanes, any readers, one more who migrates", () => {
    const [one, other] = lanes();
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
    const [one, other, words] = lanes();
    expect(one.acquire(RW, true)).toBe(0);
    expect(other.acquire(RO, false)).toBe(ERRNO.EBUSY);
    other.checkInvariants();
    one.release(RW, true);
    expect(other.acquire(RO, true)).toBe(0);
    expect(one.acquire(RW, false)).toBe(ERRNO.EBUSY);
    other.release(RO, true);
    expect([...words].every((word) => word === 0)).toBe(true);
  });

  it("what was not acquired can't be released", () => {
    const [one] = lanes();
    expect(() => one.release(RW, false)).toThrow("no more rights released");
    expect(one.acquire(RW, false)).toBe(0);
    expect(() => one.release(RW, true)).toThrow("no more rights released");
    expect(() => one.release(RO, false)).toThrow("no more rights released");
    one.release(RW, false);
  });
});

describe("rights of a group of sessions", () => {
  it("its sessions write together; nobody else does until the last open has ended", () => {
    const [one, other, words] = lanes();
    expect(one.acquire(RW, false, group(1))).toBe(0);
    expect(other.acquire(RW, false, group(1))).toBe(0);
    one.checkInvariants();
    for (const stranger of [null, group(2), new Uint8Array(16)]) {
      expect(other.acquire(RW, false, stranger)).toBe(ERRNO.EPERM);
    }
    one.release(RW, false);
    expect(one.acquire(RW, false, group(2))).toBe(ERRNO.EPERM);
    expect(one.acquire(RW, false, group(1))).toBe(0);
    one.release(RW, false);
    other.release(RW, false);
    expect([...words].every((word) => word === 0)).toBe(true);
    expect(one.acquire(RW, false, group(2))).toBe(0);
    expect(other.acquire(RW, false, group(1))).toBe(ERRNO.EPERM);
  });

  it("a name that differs in any single bit is another's", () => {
    const [one, other] = lanes();
    expect(one.acquire(RW, false, group(1))).toBe(0);
    for (let bit = 0; bit < 128; bit++) {
      const forged = group(1);
      forged[bit >> 3] = (forged[bit >> 3] as number) ^ (1 << (bit & 7));
      expect(other.acquire(RW, false, forged)).toBe(ERRNO.EPERM);
    }
    expect(other.acquire(RW, false, group(1))).toBe(0);
  });

  it("sessions without a group are no group, nor are those that say zeroes", () => {
    for (const none of [null, new Uint8Array(16)]) {
      const [one, other] = lanes();
      expect(one.acquire(RW, false, none)).toBe(0);
      expect(other.acquire(RW, false, none)).toBe(ERRNO.EPERM);
      expect(other.acquire(RO, true, none)).toBe(ERRNO.EBUSY);
      one.checkInvariants();
    }
  });

  it("one that has a volume alone shares it with itself, readers as writers", () => {
    for (const access of [RO, RW]) {
      const [one, other, words] = lanes();
      expect(one.acquire(access, true, group(1))).toBe(0);
      expect(other.acquire(access, true, group(1))).toBe(0);
      one.checkInvariants();
      expect(other.acquire(RO, false, group(2))).toBe(ERRNO.EBUSY);
      expect(other.acquire(access, true, group(2))).toBe(ERRNO.EBUSY);
      expect(other.acquire(access, true, null)).toBe(ERRNO.EBUSY);
      // A rule gives it to one of them alone, and not to the other: they can't both be right.
      expect(other.acquire(access, false, group(1))).toBe(ERRNO.EBUSY);
      one.release(access, true);
      expect(one.acquire(RO, false, null)).toBe(ERRNO.EBUSY);
      other.release(access, true);
      expect([...words].every((word) => word === 0)).toBe(true);
    }
  });

  it("counts once beside one that migrates", () => {
    const [one, other] = lanes();
    expect(one.acquire(RW, false, group(1))).toBe(0);
    expect(other.acquire(MIGRATION, false, group(2))).toBe(0);
    expect(other.acquire(RW, false, group(1))).toBe(0);
    expect(other.acquire(MIGRATION, false, group(1))).toBe(ERRNO.EPERM);
    one.checkInvariants();
    one.release(RW, false);
    other.release(RW, false);
    expect(one.acquire(RW, false, group(1))).toBe(ERRNO.EPERM);
    other.release(MIGRATION, false);
    expect(one.openCount).toBe(0);
  });
});

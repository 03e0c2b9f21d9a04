// SPDX-License-Identifier: MIT
import { beforeEach, describe, expect, it } from "vitest";
import { FlushLedger } from "./flush-ledger.js";

let a: FlushLedger;
let b: FlushLedger;

beforeEach(() => {
  const shared = new SharedArrayBuffer(FlushLedger.byteLength(2));
  [a, b] = [new FlushLedger(shared, 0, 2), new FlushLedger(shared, 1, 2)];
  for (const ledger of [a, b]) ledger.setEpoch(1, 7);
});

/** A flush from its first moment to its last. */
function flush(ledger: FlushLedger): void {
  const number = ledger.startFlush();
  expect(ledger.isSplit()).toBe(false);
  ledger.endFlush(number);
}

describe("flush ledger", () => {
  it("a flush on one lane covers what was acknowledged on all", () => {
    a.noteChange();
    b.noteChange();
    expect([a.isDirty, b.isDirty]).toEqual([true, true]);
    flush(b);
    expect([a.isDirty, b.isDirty]).toEqual([false, false]);
    a.setEpoch(1, 8);
    expect(a.isLost).toBe(false);
  });

  it("acknowledged while a flush was under way → not covered by it, but by the next", () => {
    a.noteChange();
    const number = b.startFlush();
    a.noteChange();
    b.endFlush(number);
    expect(a.isDirty).toBe(true);
    flush(b);
    expect(a.isDirty).toBe(false);
  });

  it("two flushes at once: each covers what was acknowledged before it was sent", () => {
    a.noteChange();
    const first = a.startFlush();
    b.noteChange();
    const second = b.startFlush();
    a.endFlush(first);
    expect([a.isDirty, b.isDirty]).toEqual([false, true]);
    b.endFlush(second);
    expect(b.isDirty).toBe(false);
    a.endFlush(first);
    expect([a.isDirty, b.isDirty]).toEqual([false, false]);
  });

  it("changes of another lane in another cache → the flush is split, covers none of them", () => {
    b.noteChange();
    a.setEpoch(1, 8);
    const number = a.startFlush();
    expect(a.isSplit()).toBe(true);
    a.endFlush(number);
    expect(b.isDirty).toBe(true);
    // B finds it out for itself.
    expect(b.isElsewhere(1, 8)).toBe(true);
    expect(() => b.setEpoch(1, 8)).toThrow("left as lost");
    b.markLost();
    b.setEpoch(1, 8);
    expect([a.isLost, b.isLost, b.isDirty]).toEqual([true, true, false]);
    expect(a.isSplit()).toBe(false);
  });

  it("another lane is in another cache, with nothing unflushed → whole", () => {
    b.noteChange();
    flush(a);
    a.setEpoch(1, 8);
    flush(a);
    expect(b.isElsewhere(1, 8)).toBe(true);
    b.setEpoch(1, 8);
    expect(b.isLost).toBe(false);
  });

  it("no epoch told, before or now → the cache is believed to be the same", () => {
    const shared = new SharedArrayBuffer(FlushLedger.byteLength(2));
    const [one, other] = [new FlushLedger(shared, 0, 2), new FlushLedger(shared, 1, 2)];
    one.setEpoch(0, 0);
    one.noteChange();
    expect(one.isElsewhere(1, 7)).toBe(false);
    other.setEpoch(1, 7);
    flush(other);
    expect(one.isDirty).toBe(false);
    other.noteChange();
    other.setEpoch(0, 0);
    expect(other.isElsewhere(1, 7)).toBe(false);
    expect(other.isElsewhere(1, 8)).toBe(true);
  });

  it("epochs with all bits set, halves that are equal", () => {
    a.setEpoch(0xffff_ffff, 0xffff_fffe);
    expect(a.isElsewhere(0xffff_ffff, 0xffff_fffe)).toBe(false);
    expect(a.isElsewhere(0xffff_fffe, 0xffff_fffe)).toBe(true);
    expect(a.isElsewhere(0xffff_ffff, 0xffff_ffff)).toBe(true);
  });
});

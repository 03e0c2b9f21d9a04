// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { LaneGuard } from "./lane-guard.js";

function lanes(laneCount: number): { guards: LaneGuard[]; woken: number[] } {
  const shared = LaneGuard.allocate(laneCount);
  const woken: number[] = [];
  const wake = (lane: number) => {
    woken.push(lane);
  };
  const guards = Array.from(
    { length: laneCount },
    (_, lane) => new LaneGuard(shared, { lane, laneCount, wake }),
  );
  return { guards, woken };
}

function enter(guard: LaneGuard | undefined, offset: number, length: number): number {
  expect(guard?.mayEnter(offset, length)).toBe(true);
  return guard?.claim() ?? -1;
}

describe("lane guard", () => {
  it("bytes that another lane changes → wait, and are woken when they are free", () => {
    const { guards, woken } = lanes(2);
    const [one, other] = guards as [LaneGuard, LaneGuard];
    const place = enter(one, 4096, 512);
    enter(other, 4608, 512);
    enter(other, 0, 4096);
    expect(other.mayEnter(4000, 1024)).toBe(false);
    expect(other.isHeld).toBe(true);
    expect(other.mayEnter(4000, 1024)).toBe(false);
    expect(woken).toEqual([]);
    one.leave(place);
    expect(woken).toEqual([1]);
    expect(other.mayEnter(4000, 1024)).toBe(true);
    expect(other.isHeld).toBe(false);
    other.claim();
    for (const guard of guards) guard.checkInvariants();
  });

  it("nobody waits → leaving wakes nobody", () => {
    const { guards, woken } = lanes(3);
    const place = enter(guards[0], 0, 512);
    enter(guards[1], 512, 512);
    guards[0]?.leave(place);
    expect(woken).toEqual([]);
  });

  it("whoever came first goes first, also among those that wait", () => {
    const { guards } = lanes(3);
    const [a, b, c] = guards as [LaneGuard, LaneGuard, LaneGuard];
    let place = enter(a, 0, 1024);
    expect(c.mayEnter(512, 1024)).toBe(false);
    expect(b.mayEnter(0, 2048)).toBe(false);
    a.leave(place);
    // A comes again, and is behind both.
    expect(a.mayEnter(0, 1024)).toBe(false);
    expect(b.mayEnter(0, 2048)).toBe(false);
    expect(c.mayEnter(512, 1024)).toBe(true);
    place = c.claim();
    expect(b.mayEnter(0, 2048)).toBe(false);
    c.leave(place);
    expect(a.mayEnter(0, 1024)).toBe(false);
    expect(b.mayEnter(0, 2048)).toBe(true);
    place = b.claim();
    b.leave(place);
    expect(a.mayEnter(0, 1024)).toBe(true);
  });

  it("what waited goes on to something else, or gives up → who is behind it may go", () => {
    const { guards, woken } = lanes(3);
    const [a, b, c] = guards as [LaneGuard, LaneGuard, LaneGuard];
    const place = enter(a, 0, 512);
    expect(b.mayEnter(0, 1024)).toBe(false);
    expect(c.mayEnter(512, 512)).toBe(false);
    woken.length = 0;
    expect(b.mayEnter(4096, 512)).toBe(true);
    expect(woken).toContain(2);
    expect(c.mayEnter(512, 512)).toBe(true);
    c.leave(c.claim());
    b.withdraw();
    expect(c.mayEnter(4096, 512)).toBe(true);
    c.leave(c.claim());
    a.leave(place);
    for (const guard of guards) expect(guard.count).toBe(0);
  });

  it("let in and not claimed yet → stays so, and keeps others out", () => {
    const { guards } = lanes(2);
    const [one, other] = guards as [LaneGuard, LaneGuard];
    expect(one.mayEnter(0, 512)).toBe(true);
    expect(one.mayEnter(0, 512)).toBe(true);
    expect(one.count).toBe(1);
    expect(other.mayEnter(0, 512)).toBe(false);
    one.withdraw();
    expect(other.mayEnter(0, 512)).toBe(true);
  });

  it("offsets above 2^32 and lengths of 4 GiB", () => {
    const { guards } = lanes(2);
    const [one, other] = guards as [LaneGuard, LaneGuard];
    const far = 2 ** 52;
    const places = [enter(one, far, 0xffff_0000), enter(one, 0xffff_fe00, 1024)];
    expect(other.mayEnter(far + 0xfffe_fe00, 512)).toBe(false);
    expect(other.mayEnter(far + 0xffff_0000, 512)).toBe(true);
    expect(other.mayEnter(2 ** 32, 512)).toBe(false);
    expect(other.mayEnter(2 ** 32 + 512, 512)).toBe(true);
    for (const place of places) one.leave(place);
  });

  it("no place is left → wait, until one of its own is free", () => {
    const { guards } = lanes(1);
    const [guard] = guards as [LaneGuard];
    const places: number[] = [];
    while (guard.mayEnter(places.length * 512, 512)) places.push(guard.claim());
    expect(places.length).toBeGreaterThan(1024);
    expect(guard.isHeld).toBe(false);
    guard.checkInvariants();
    const last = places.pop() as number;
    guard.leave(last);
    expect(() => guard.leave(last)).toThrow("left once");
    expect(guard.mayEnter(0, 512)).toBe(true);
  });
});

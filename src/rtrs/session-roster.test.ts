// SPDX-License-Identifier: MIT
// Sessions of several lanes: one count, one list of names.

import { describe, expect, it } from "vitest";
import { Pair, SECOND } from "./pair.fixture.js";
import { SessionRoster } from "./session-roster.js";

function rostersOf(sessionCountMax: number): [SessionRoster, SessionRoster, number[]] {
  const shared = SessionRoster.allocate(sessionCountMax);
  const woken: number[] = [];
  const wake = (lane: number) => woken.push(lane);
  return [
    new SessionRoster({ shared, lane: 0, wake }),
    new SessionRoster({ shared, lane: 1, wake }),
    woken,
  ];
}

describe("the roster", () => {
  it("places are of all lanes together, and come back", () => {
    const [zero, one] = rostersOf(2);
    const [a, b] = [zero.enter(), one.enter()];
    expect([a, b, one.enter()]).toEqual([0, 1, -1]);
    zero.leave(a);
    expect(one.enter()).toBe(a);
    expect(() => zero.leave(a)).toThrow("by the lane that took it");
  });

  it("a name that is taken → refused; whose it is, is told and asked once", () => {
    const [zero, one, woken] = rostersOf(4);
    const [a, b] = [zero.enter(), one.enter()];
    expect(zero.claim(a, "blue")).toBe(true);
    expect(one.claim(b, "blues")).toBe(true);
    expect(one.claim(b, "blue")).toBe(false);
    expect(one.names()).toEqual(["blue", "blues"]);
    expect(woken).toEqual([0]);
    expect(zero.hasProbes()).toBe(true);
    expect(zero.takeProbe(a)).toBe(true);
    expect(zero.takeProbe(a)).toBe(false);
    expect(zero.hasProbes()).toBe(false);
    zero.leave(a);
    expect(one.claim(b, "blue")).toBe(true);
  });
});

describe("a server among several", () => {
  it("a session comes and goes → so does its place and name", () => {
    const [zero, one] = rostersOf(1);
    const pair = new Pair({}, { roster: zero });
    pair.connect();
    expect(one.names()).toEqual(["blue"]);
    expect(one.enter()).toBe(-1);
    pair.client.close();
    pair.pipe.until(() => one.names().length === 0, "the name is free");
    expect(one.enter()).toBe(0);
  });

  it("no place is left → the session is refused, with ENOMEM, until there is one", () => {
    const [zero, one] = rostersOf(1);
    const place = one.enter();
    const pair = new Pair({ connectAttemptsMax: 3 }, { roster: zero });
    pair.client.connect();
    pair.pipe.run(SECOND);
    expect(pair.clientNotes.events).toEqual(["failed ENOMEM"]);
    expect(pair.serverNotes.events).toEqual([]);
    one.leave(place);
    const second = new Pair({}, { roster: zero });
    second.connect();
  });

  it("another lane's session has the name → refused until it is gone", () => {
    const [zero, one, woken] = rostersOf(4);
    const place = one.enter();
    one.claim(place, "blue");
    const pair = new Pair({}, { roster: zero });
    pair.client.connect();
    pair.pipe.run(SECOND);
    expect(pair.serverNotes.events).toEqual([]);
    expect(pair.server.lastCloseReason).toBe('another session is named "blue"');
    expect(woken).toContain(1);
    expect(one.takeProbe(place)).toBe(true);
    one.leave(place);
    pair.pipe.until(() => pair.client.state === "CONNECTED", "the name is free");
    expect(zero.names()).toEqual(["blue"]);
  });

  it("its name is wanted on another lane → a client that is dead is found so at once", () => {
    const [zero, one, woken] = rostersOf(4);
    const pair = new Pair({}, { roster: zero, heartbeatIntervalNs: 1000 * SECOND });
    pair.connect();
    pair.pipe.remove(pair.clientHost);
    pair.pipe.run(60 * SECOND);
    expect(zero.names()).toEqual(["blue"]);
    const place = one.enter();
    expect(one.claim(place, "blue")).toBe(false);
    expect(woken).toEqual([0]);
    pair.pipe.until(() => zero.names().length === 0, "the dead session is gone", 60 * SECOND);
    expect(one.claim(place, "blue")).toBe(true);
  });
});

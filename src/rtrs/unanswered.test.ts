// SPDX-License-Identifier: MIT
// Requests that a connected server does not answer, though its heartbeats come.

import { describe, expect, it } from "vitest";
import { Pair, SECOND } from "./pair.fixture.js";

function upAgain(pair: Pair): void {
  const { events } = pair.clientNotes;
  const ups = () => events.filter((event) => event === "up").length;
  const before = ups();
  pair.pipe.until(() => ups() > before, "the session is up again", 200 * SECOND);
}

describe("a request that is not answered", () => {
  it("one request of several, by a server whose heart beats → connects anew, done", () => {
    const pair = new Pair({ answerTimeoutNs: 20 * SECOND });
    pair.connect();
    // As Linux's software RoCE when it has run a registration twice: that queue pair sends no more.
    pair.serverNotes.onAny = (request) => {
      if (request.userView.getUint32(0, true) !== 1) request.complete(0);
    };
    const stuck = pair.write(1, 1);
    pair.pipe.run(10 * SECOND);
    pair.write(2, 2);
    pair.pipe.run(9 * SECOND);
    expect(pair.clientNotes.events).toEqual(["up"]);
    expect(pair.clientNotes.errnos).toEqual([0]);
    const [held] = pair.serverNotes.requests;
    pair.serverNotes.onAny = null;
    const isDown = () => pair.clientNotes.events.includes("down");
    pair.pipe.until(isDown, "the client gives up waiting", 7 * SECOND);
    expect(pair.client.lastError?.message).toBe("the server leaves a request unanswered");
    // The old execution leaves the server; only then does the second one start.
    held?.complete(0);
    upAgain(pair);
    pair.untilIdle();
    expect(pair.clientNotes.errnos).toEqual([0, 0]);
    expect(stuck.reissueCount).toBe(1);
  });

  it("a slow disk → asked again, each time with twice the patience", () => {
    const pair = new Pair({ answerTimeoutNs: 20 * SECOND });
    pair.connect();
    pair.serverNotes.holds = true;
    pair.write(1, 1);
    // A path that is closed goes when its requests are done, and each is done a minute late.
    const downs = () => pair.clientNotes.events.filter((event) => event === "down").length;
    for (let round = 1; round <= 2; round++) {
      pair.pipe.until(() => downs() === round, "the client gives up waiting", 200 * SECOND);
      pair.pipe.run(SECOND);
      pair.serverNotes.answerAll();
      upAgain(pair);
    }
    pair.pipe.run(75 * SECOND);
    pair.serverNotes.answerAll();
    pair.untilIdle();
    expect(pair.clientNotes.errnos).toEqual([0]);
    expect(downs()).toBe(2);
  });
});

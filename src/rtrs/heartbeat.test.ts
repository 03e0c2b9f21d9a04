// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { Heartbeat } from "./heartbeat.js";

/** The verdicts at the deadlines, one letter each, as long as the heartbeat runs. */
function verdicts(heartbeat: Heartbeat, count: number, answers: boolean): string {
  let text = "";
  for (let i = 0; i < count; i++) {
    const verdict = heartbeat.tick(heartbeat.deadlineNs);
    text += verdict[0];
    if (verdict === "FAILED") break;
    if (answers) heartbeat.onTraffic();
  }
  return text;
}

describe("heartbeat", () => {
  it("answered → sends every interval", () => {
    const heartbeat = new Heartbeat(5000, 5);
    heartbeat.start(100);
    expect(heartbeat.deadlineNs).toBe(5100);
    expect(verdicts(heartbeat, 6, true)).toBe("SSSSSS");
    expect(heartbeat.deadlineNs).toBe(5100 + 6 * 5000);
  });

  it("never answered → sent once, failed six intervals later", () => {
    const heartbeat = new Heartbeat(5000, 5);
    heartbeat.start(0);
    expect(verdicts(heartbeat, 20, false)).toBe("SQQQQQF");
  });

  it("any message in between → starts over", () => {
    const heartbeat = new Heartbeat(5000, 5);
    heartbeat.start(0);
    expect(verdicts(heartbeat, 5, false)).toBe("SQQQQ");
    heartbeat.onTraffic();
    expect(verdicts(heartbeat, 20, false)).toBe("SQQQQQF");
  });

  it("before its deadline, or stopped → nothing", () => {
    const heartbeat = new Heartbeat(5000, 5);
    expect(heartbeat.deadlineNs).toBe(Infinity);
    heartbeat.start(0);
    expect(heartbeat.tick(4999)).toBe("QUIET");
    heartbeat.stop();
    expect(heartbeat.tick(1e15)).toBe("QUIET");
  });
});

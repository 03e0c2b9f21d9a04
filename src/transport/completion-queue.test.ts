// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { IpAddress, SeededRandom } from "../base/index.js";
import { CNP_OPCODE, RC, writeReth } from "../wire/index.js";
import { CqCore } from "./completion-queue.js";
import { DROP_REASON, DROP_REASON_NAMES } from "./counters.js";
import { Device } from "./device.js";
import { Pair } from "./network.fixture.js";
import { WC_FLAG, WC_OPCODE, WC_STATUS, WorkCompletion } from "./work-request.js";

function queue(depth: number) {
  const heard: string[] = [];
  const owner = {
    cqEvent: () => heard.push("event"),
    cqOverflow: () => heard.push("overflow"),
  };
  const cq = new CqCore(owner, depth);
  const push = (wrId: number, qpn = 1, flags = 0, value = 0) =>
    cq.push(wrId, WC_STATUS.SUCCESS, WC_OPCODE.RECV, flags, 9, value, qpn, 0, 0, false);
  const ids = (): number[] => {
    const wc = new WorkCompletion();
    const list: number[] = [];
    while (cq.poll(wc)) list.push(wc.wrId);
    return list;
  };
  return { cq, push, ids, heard };
}

describe("CqCore", () => {
  it("first in, first out, over many turns of the ring", () => {
    const { cq, push, ids } = queue(3);
    expect(cq.depth).toBe(4);
    for (let turn = 0; turn < 20; turn++) {
      for (let i = 0; i < 3; i++) expect(push(turn * 3 + i)).toBe(true);
      expect(ids()).toEqual([0, 1, 2].map((i) => turn * 3 + i));
    }
  });

  it("every field of the object is set, none is left from its last use", () => {
    const { cq, push } = queue(4);
    const wc = new WorkCompletion();
    push(1, 5, WC_FLAG.WITH_IMM, 0xdeadbeef);
    push(2, 5, WC_FLAG.WITH_INV, 7);
    push(3, 5);
    cq.poll(wc);
    expect(wc).toMatchObject({ immediate: 0xdeadbeef, invalidatedKey: 0, byteLength: 9, qpn: 5 });
    cq.poll(wc);
    expect(wc).toMatchObject({ immediate: 0, invalidatedKey: 7 });
    cq.poll(wc);
    expect(wc).toMatchObject({ immediate: 0, invalidatedKey: 0, flags: 0 });
  });

  it("overflow is told once; what is there stays, nothing is added", () => {
    const { cq, push, ids, heard } = queue(2);
    push(1);
    push(2);
    expect([push(3), push(4)]).toEqual([false, false]);
    expect(heard).toEqual(["overflow"]);
    expect(ids()).toEqual([1, 2]);
    expect(push(5)).toBe(false);
    expect(cq.hasOverflowed).toBe(true);
  });

  it("removes the completions of one queue pair and keeps the order of the others", () => {
    const { cq, push, ids } = queue(8);
    for (let i = 0; i < 5; i++) push(i);
    ids();
    for (let i = 0; i < 8; i++) push(i, i % 3);
    cq.removeCompletionsOf(1);
    expect(cq.count).toBe(5);
    expect(ids()).toEqual([0, 2, 3, 5, 6]);
  });

  it("armed once, told once; disarmed, never", () => {
    const { cq, push, heard } = queue(8);
    cq.arm(false, () => {});
    push(1);
    push(2);
    expect(heard).toEqual(["event"]);
    cq.arm(false, () => {});
    cq.disarm();
    push(3);
    expect(heard).toEqual(["event"]);
  });
});

describe("counters", () => {
  it("every drop reason has a name at its own value", () => {
    for (const [name, value] of Object.entries(DROP_REASON)) {
      expect(DROP_REASON_NAMES[value]).toBe(name);
    }
    expect(new Set(Object.values(DROP_REASON)).size).toBe(DROP_REASON_NAMES.length);
  });

  it("out of sequence behind a known gap, and a congestion notification, are counted", () => {
    const pair = new Pair();
    const fill = (view: DataView, at: number) => writeReth(view, at, 0, 0, 0, 0);
    pair.inject(0, 1, pair.forge(0, RC.WRITE_ONLY, 5, 0, fill));
    pair.inject(0, 1, pair.forge(0, RC.WRITE_ONLY, 6, 0, fill));
    pair.inject(0, 1, pair.forge(0, CNP_OPCODE, 0, 0));
    const { drops } = pair.b.device.counters;
    expect(drops[DROP_REASON.OUT_OF_SEQUENCE]).toBe(2);
    expect(drops[DROP_REASON.CONGESTION_NOTIFICATION]).toBe(1);
  });
});

describe("ports and flows", () => {
  const device = (linkMtu: number) =>
    new Device({
      addresses: [IpAddress.parse("192.0.2.1")],
      linkMtus: [linkMtu],
      random: new SeededRandom(1),
    });

  it("the active MTU is the largest that leaves 80 bytes (rxe's rule)", () => {
    const cases = [
      [4176, 4096],
      [4175, 2048],
      [2128, 2048],
      [2127, 1024],
      [1500, 1024],
      [592, 512],
      [336, 256],
      [65_535, 4096],
    ] as const;
    for (const [link, active] of cases) expect(device(link).activeMtus).toEqual([active]);
    expect(() => device(335)).toThrow("holds no RoCE packet");
  });

  it("the same flow is the same object; another version or port is refused", () => {
    const { flow } = { flow: device(1500) };
    const to = IpAddress.parse("192.0.2.9");
    expect(flow.flow(0, to)).toBe(flow.flow(0, IpAddress.parse("192.0.2.9")));
    expect(flow.flow(0, to, 8)).not.toBe(flow.flow(0, to));
    expect(flow.flow(0, to, 8).window).toBe(flow.flow(0, to).window);
    expect(() => flow.flow(0, IpAddress.parse("2001:db8::1"))).toThrow("other IP version");
    expect(() => flow.flow(1, to)).toThrow("no port 1");
  });

  it("forged addresses don't fill memory: the oldest flows are forgotten", () => {
    const one = device(1500);
    const first = one.flow(0, IpAddress.v4(1));
    for (let i = 2; i < 5000; i++) one.flow(0, IpAddress.v4(i));
    expect(one.flow(0, IpAddress.v4(4999))).toBe(one.flow(0, IpAddress.v4(4999)));
    expect(one.flow(0, IpAddress.v4(1))).not.toBe(first);
  });
});

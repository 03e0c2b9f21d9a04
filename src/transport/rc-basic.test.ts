// SPDX-License-Identifier: MIT
// Clean runs of RC, packet by packet: what the captures of the same names show, but for the ACKs,
// which farpage sends once for all that a turn has brought.

import { describe, expect, it } from "vitest";
import type { Flow } from "./flow.js";
import { Pair } from "./network.fixture.js";
import { SEND_FLAG, WR_OPCODE } from "./work-request.js";

describe("RC, nothing lost", () => {
  it("rc-ops-small: sends and writes around the MTU → ONLY or FIRST and LAST", () => {
    const pair = new Pair();
    const sizes = [0, 1, 3, 1023, 1024, 1025];
    for (let i = 0; i < sizes.length; i++) pair.receive(100 + i, 2048, i * 4096);
    for (const [i, size] of sizes.entries()) pair.send(i, size);
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> SEND_ONLY 0 0 !",
      "0> SEND_ONLY 1 1 !",
      "0> SEND_ONLY 2 3 !",
      "0> SEND_ONLY 3 1023 !",
      "0> SEND_ONLY 4 1024 !",
      "0> SEND_FIRST 5 1024",
      "0> SEND_LAST 6 1 !",
      "1> ACKNOWLEDGE 6",
    ]);
    expect(pair.a.completions()).toEqual(sizes.map((_, i) => `${i} SUCCESS`));
    expect(pair.b.completions()).toEqual(sizes.map((size, i) => `recv ${100 + i} SUCCESS ${size}`));
    for (const [i, size] of sizes.entries()) {
      const at = i * 4096;
      expect(pair.b.memory.bytes.slice(at, at + size)).toEqual(pair.a.memory.bytes.slice(0, size));
    }
  });

  it("rc-large: a READ consumes the PSNs of its response", () => {
    const pair = new Pair();
    pair.read(1, 2500, { remote: 8192 });
    pair.write(2, 10);
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> READ_REQUEST 0 !",
      "0> WRITE_ONLY 3 10 !",
      "1> READ_RESPONSE_FIRST 0 1024",
      "1> READ_RESPONSE_MIDDLE 1 1024",
      "1> READ_RESPONSE_LAST 2 452",
      "1> ACKNOWLEDGE 3",
    ]);
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS"]);
    expect(pair.a.memory.bytes.slice(0, 2500)).toEqual(pair.b.memory.bytes.slice(8192, 10692));
  });

  it("rc-ops-imm-inv: immediates and invalidations are on the last packet only", () => {
    const pair = new Pair();
    for (let i = 0; i < 4; i++) pair.receive(i, 4096);
    const immediate = 0xdeadbeef;
    pair.post(1, WR_OPCODE.SEND_WITH_IMM, 0, { immediate });
    pair.post(2, WR_OPCODE.SEND_WITH_IMM, 3000, { immediate: 1 });
    pair.post(3, WR_OPCODE.RDMA_WRITE_WITH_IMM, 10, { immediate: 2 });
    pair.post(4, WR_OPCODE.RDMA_WRITE_WITH_IMM, 2500, { immediate: 3 });
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> SEND_ONLY_IMM 0 0 !",
      "0> SEND_FIRST 1 1024",
      "0> SEND_MIDDLE 2 1024",
      "0> SEND_LAST_IMM 3 952 !",
      "0> WRITE_ONLY_IMM 4 10 !",
      "0> WRITE_FIRST 5 1024",
      "0> WRITE_MIDDLE 6 1024",
      "0> WRITE_LAST_IMM 7 452 !",
      "1> ACKNOWLEDGE 7",
    ]);
    expect(pair.b.completions()).toEqual([
      "recv 0 SUCCESS 0 imm deadbeef",
      "recv 1 SUCCESS 3000 imm 1",
      "recv 2 SUCCESS 10 imm 2",
      "recv 3 SUCCESS 2500 imm 3",
    ]);
  });

  it("rc-atomics: the original comes back, memory changes only where the compare says", () => {
    const pair = new Pair();
    const memory = pair.b.memory.view;
    memory.setBigUint64(64, 0xbaa9988776655443n, true);
    pair.fetchAdd(1, 7);
    pair.post(2, WR_OPCODE.ATOMIC_CMP_AND_SWP, 8, {
      remote: 64,
      offset: 8,
      compareAddHigh: 0xbaa99887,
      compareAddLow: 0x7665544a,
      swapHigh: 0x11223344,
      swapLow: 0x55667788,
    });
    pair.post(3, WR_OPCODE.ATOMIC_CMP_AND_SWP, 8, { remote: 64, offset: 16 });
    pair.post(4, WR_OPCODE.ATOMIC_FETCH_AND_ADD, 8, {
      remote: 64,
      offset: 24,
      compareAddHigh: 0xffffffff,
      compareAddLow: 0xffffffff,
    });
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS", "3 SUCCESS", "4 SUCCESS"]);
    const local = pair.a.memory.view;
    expect(local.getBigUint64(0, true)).toBe(0xbaa9988776655443n);
    expect(local.getBigUint64(8, true)).toBe(0xbaa998877665544an);
    expect(local.getBigUint64(16, true)).toBe(0x1122334455667788n);
    expect(local.getBigUint64(24, true)).toBe(0x1122334455667788n);
    expect(memory.getBigUint64(64, true)).toBe(0x1122334455667787n);
  });

  it("rc-psn-wrap: PSNs wrap inside messages", () => {
    const pair = new Pair({}, {}, {}, ["10.79.0.2", "10.79.0.3"], [0xfffffc, 0xabcdef]);
    pair.receive(1, 100);
    pair.write(1, 5000);
    pair.read(2, 5000, { offset: 8192 });
    pair.send(3, 10);
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> WRITE_FIRST 0 1024",
      "0> WRITE_MIDDLE 1 1024",
      "0> WRITE_MIDDLE 2 1024",
      "0> WRITE_MIDDLE 3 1024",
      "0> WRITE_LAST 4 904 !",
      "0> READ_REQUEST 5 !",
      "0> SEND_ONLY 10 10 !",
      "1> READ_RESPONSE_FIRST 5 1024",
      "1> READ_RESPONSE_MIDDLE 6 1024",
      "1> READ_RESPONSE_MIDDLE 7 1024",
      "1> READ_RESPONSE_MIDDLE 8 1024",
      "1> READ_RESPONSE_LAST 9 904",
      "1> ACKNOWLEDGE 10",
    ]);
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS", "3 SUCCESS"]);
  });

  it("rc-read-depth1: one READ outstanding → the next waits, and so does all behind it", () => {
    const pair = new Pair({ maxRdAtomic: 1 });
    pair.read(1, 1000);
    pair.read(2, 1000);
    pair.write(3, 8);
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> READ_REQUEST 0 !",
      "1> READ_RESPONSE_ONLY 0 1000",
      "0> READ_REQUEST 1 !",
      "0> WRITE_ONLY 2 8 !",
      "1> READ_RESPONSE_ONLY 1 1000",
      "1> ACKNOWLEDGE 2",
    ]);
  });

  it("fence: a fenced WRITE waits for the READ before it, an unfenced one does not", () => {
    const pair = new Pair();
    pair.read(1, 100);
    pair.write(2, 8);
    pair.write(3, 8, { sendFlags: SEND_FLAG.SIGNALED | SEND_FLAG.FENCE });
    pair.runToRest();
    expect(pair.conversation()).toEqual([
      "0> READ_REQUEST 0 !",
      "0> WRITE_ONLY 1 8 !",
      "1> READ_RESPONSE_ONLY 0 100",
      "1> ACKNOWLEDGE 1",
      "0> WRITE_ONLY 2 8 !",
      "1> ACKNOWLEDGE 2",
    ]);
  });

  it("rc-long-message: AckReq on every 64th packet and the last", () => {
    const pair = new Pair({ pathMtu: 256 });
    // Wide open, so that it gives no reason to ask sooner.
    (pair.qpA.flow as Flow).window.limitBytes = 1 << 20;
    pair.write(1, 51_200);
    pair.runToRest();
    const asking = pair.conversation().filter((line) => line.endsWith("!"));
    expect(asking).toEqual([
      "0> WRITE_MIDDLE 63 256 !",
      "0> WRITE_MIDDLE 127 256 !",
      "0> WRITE_MIDDLE 191 256 !",
      "0> WRITE_LAST 199 256 !",
    ]);
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
  });

  it("a zero-length WRITE and READ need no valid key", () => {
    const pair = new Pair();
    const nothing = { rkey: 0, remoteAddressHigh: 0xffff0000, remoteAddressLow: 5 };
    pair.write(1, 0, nothing);
    pair.read(2, 0, nothing);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS"]);
  });

  it("IPv6: the same over fd00::", () => {
    const pair = new Pair({}, {}, {}, ["fd00:79::2", "fd00:79::3"]);
    pair.write(1, 5000);
    pair.read(2, 5000, { offset: 8192 });
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS"]);
    expect(pair.a.memory.bytes.slice(8192, 13192)).toEqual(pair.a.memory.bytes.slice(0, 5000));
  });
});

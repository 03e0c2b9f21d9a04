// SPDX-License-Identifier: MIT
// `pd.registerMr` of a process's addresses: pinned and on demand, in one piece and in many, whole
// address spaces; what each costs the device's tables, and that all of it is given back.

import { describe, expect, it } from "vitest";
import { HeapMemorySource, highOf, lowOf, SeededRandom } from "../../src/base/index.js";
import { FaultQueue, FRAME_BYTES, FRAME_FLAG, ProcessRegions } from "../../src/mm/index.js";
import { Device } from "../../src/transport/index.js";
import { ACCESS, ADVICE, Context, IpAddress } from "../../src/verbs/index.js";
import { memoryOf, TestSpace } from "../support/process-space.js";

const VPN = 0x7000_0000;
const ADDRESS = VPN * FRAME_BYTES;
const WRITE = ACCESS.LOCAL_WRITE | ACCESS.REMOTE_WRITE;

function host(regionCountMax = 8) {
  const device = new Device({
    addresses: [IpAddress.parse("192.0.2.1")],
    linkMtus: [9000],
    random: new SeededRandom(1),
    qpCountMax: 8,
    regionCountMax,
  });
  const memory = memoryOf(64);
  const process = new TestSpace(memory);
  const queue = new FaultQueue();
  const space = new ProcessRegions(memory, process, process, queue);
  const context = new Context(device);
  const pd = context.allocPd();
  return { device, memory, process, queue, space, context, pd };
}

const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    return (error as { code: string }).code;
  }
  return "";
};

describe("registerMr of addresses", () => {
  it("contiguous frames are one range of the device; scattered ones a page table", () => {
    const { device, process, space, pd } = host();
    process.map(VPN, 4, true, 8);
    process.map(VPN + 4, 1, true, 20);
    const one = pd.registerMr({ space, address: ADDRESS + 10, length: 9000 }, { access: WRITE });
    expect(device.regions.isPaged(one.regionIndex)).toBe(false);
    expect([one.address, one.length]).toEqual([ADDRESS + 10, 9000]);
    expect(process.pinnedCount).toBe(3);
    const two = pd.registerMr({ space, address: ADDRESS, length: 5 * 4096 }, { access: WRITE });
    expect(device.regions.isPaged(two.regionIndex)).toBe(true);
    expect(process.pinnedCount).toBe(8);
    one.deregister();
    two.deregister();
    expect(process.pinnedCount).toBe(0);
    expect(process.dirtied).toEqual([true, true]);
  });

  it("a part of a range lies in it → else EINVAL, and nothing is pinned", () => {
    const { process, space, pd } = host();
    process.map(VPN - 1, 4);
    const range = { space, address: ADDRESS, length: 2 * 4096 };
    for (const part of [
      { offset: -4096 },
      { offset: -4096, length: 4096 },
      { length: 2 * 4096 + 1 },
      { offset: 4096, length: 4097 },
      { offset: 2 * 4096 },
      { offset: 0.5 },
    ]) {
      for (const onDemand of [false, true]) {
        const register = () => pd.registerMr(range, { ...part, access: WRITE, onDemand });
        expect(codeOf(register)).toBe("EINVAL");
      }
    }
    expect([process.pinnedCount, process.notifiers.length]).toEqual([0, 0]);
    const mr = pd.registerMr(range, { offset: 4096, access: WRITE });
    expect([mr.address, mr.length]).toEqual([ADDRESS + 4096, 4096]);
  });

  it("memory of the host's own is pinned for as long as it is registered, and no longer", () => {
    const { pd } = host(2);
    const calls: string[] = [];
    const memory = {
      ...new HeapMemorySource().allocate(8192),
      pin: (offset: number, length: number) => calls.push(`pin ${offset} ${length}`),
      unpin: (offset: number, length: number) => calls.push(`unpin ${offset} ${length}`),
    };
    const whole = pd.registerMr(memory);
    const part = pd.registerMr(memory, { offset: 100, length: 5000 });
    expect(codeOf(() => pd.registerMr(memory))).toBe("ENOMEM");
    expect(calls).toEqual(["pin 0 8192", "pin 100 5000"]);
    part.deregister();
    part.deregister();
    expect(calls.slice(2)).toEqual(["unpin 100 5000"]);
    const fast = pd.allocMr();
    fast.fastRegister(whole, memory.address, 10, ACCESS.LOCAL_WRITE);
    fast.deregister();
    expect(calls).toHaveLength(3);
    whole.deregister();
    expect(calls.slice(3)).toEqual(["unpin 0 8192"]);
  });

  it("a region that peers and host may only read is not dirty afterwards", () => {
    const { process, space, pd } = host();
    process.map(VPN, 1);
    const mr = pd.registerMr(
      { space, address: ADDRESS, length: 8 },
      { access: ACCESS.REMOTE_READ },
    );
    mr.deregister();
    expect(process.dirtied).toEqual([false]);
  });

  it("on demand: nothing is pinned; the mapping's frames are found, and let go of", () => {
    const { device, memory, process, space, queue, pd } = host();
    process.mapAbsent(VPN, 4);
    const range = { space, address: ADDRESS, length: 4 * 4096 };
    const mr = pd.registerMr(range, { access: WRITE, onDemand: true });
    expect([mr.isOnDemand, process.pinnedCount, process.faultCount]).toEqual([true, 0, 0]);
    const { regions } = device;
    const ready = () => regions.ready(mr.regionIndex, 0, 8, 8, true);
    expect(ready()).not.toBe(0);
    queue.pump(0);
    expect(ready()).toBe(0);
    regions.write(mr.regionIndex, 0, new Uint8Array([1, 2, 3]), 0, 3);
    expect(process.contents(VPN).subarray(0, 3)).toEqual(new Uint8Array([1, 2, 3]));
    const frame = process.pages.get(VPN)?.pfn as number;
    mr.deregister();
    expect(memory.hasFlag(frame, FRAME_FLAG.DIRTY)).toBe(true);
    expect(process.notifiers).toHaveLength(0);
  });

  it("all of a process: any address that it has, also one that it will have", () => {
    const { device, process, space, queue, pd } = host();
    const mr = pd.registerMr({ space }, { access: WRITE, onDemand: true });
    expect(mr.length).toBe(2 ** 48);
    process.mapAbsent(VPN, 1);
    const { regions } = device;
    const [high, low] = [highOf(ADDRESS + 5), lowOf(ADDRESS + 5)];
    const at = regions.check(mr.rkey, pd.pdIndex, ACCESS.REMOTE_WRITE, high, low, 100);
    expect(at).toBe(mr.regionIndex);
    const position = regions.offsetIn(at, high, low);
    regions.ready(at, position, 100, 100, true);
    queue.pump(0);
    regions.write(at, position, new Uint8Array([9]), 0, 1);
    expect(process.contents(VPN)[5]).toBe(9);
    expect(regions.check(mr.rkey, pd.pdIndex, 0, 0x1_0000, 0, 1)).toBe(-1);
  });

  it("refused with its reason, and nothing stays behind", () => {
    const { memory, process, space, pd } = host(1);
    process.map(VPN, 2);
    const range = { space, address: ADDRESS, length: 4096 };
    expect(codeOf(() => pd.registerMr(range, { access: ACCESS.REMOTE_WRITE }))).toBe("EINVAL");
    expect(codeOf(() => pd.registerMr({ space }))).toBe("EINVAL");
    expect(codeOf(() => pd.registerMr({ space, length: 5 }, { onDemand: true }))).toBe("EINVAL");
    expect(codeOf(() => pd.registerMr({ space, address: 3, length: 0 }))).toBe("EINVAL");
    const mapped = { bytes: new Uint8Array(8), view: new DataView(new ArrayBuffer(8)) };
    const own = { ...mapped, address: 4096, length: 8 };
    expect(codeOf(() => pd.registerMr(own, { onDemand: true }))).toBe("EINVAL");
    const first = pd.registerMr(range);
    expect(codeOf(() => pd.registerMr(range))).toBe("ENOMEM");
    expect(codeOf(() => pd.registerMr(range, { onDemand: true }))).toBe("ENOMEM");
    expect(process.notifiers).toHaveLength(0);
    expect(process.pinnedCount).toBe(1);
    first.deregister();
    expect(process.pinnedCount).toBe(0);
    memory.checkInvariants();
  });

  it("closing the context gives back what its regions had", () => {
    const { process, space, context, pd } = host();
    process.map(VPN, 2);
    pd.registerMr({ space, address: ADDRESS, length: 4096 });
    pd.registerMr({ space, address: ADDRESS, length: 4096 }, { onDemand: true });
    context.close();
    expect([process.pinnedCount, process.notifiers.length]).toEqual([0, 0]);
  });
});

describe("advise", () => {
  it("brings pages in, now or later, and says what it can't", () => {
    const { process, space, queue, pd } = host();
    process.mapAbsent(VPN, 4);
    const range = { space, address: ADDRESS, length: 5 * 4096 };
    const mr = pd.registerMr(range, { access: WRITE, onDemand: true });
    mr.advise(ADVICE.PREFETCH_WRITE, ADDRESS + 100, 5000);
    expect(process.faultCount).toBe(0);
    queue.pump(0);
    expect(process.faultCount).toBe(2);
    mr.advise(ADVICE.PREFETCH, ADDRESS + 3 * 4096, 1, true);
    expect(process.faultCount).toBe(3);
    const flush = () => mr.advise(ADVICE.PREFETCH, ADDRESS + 3 * 4096, 4097, true);
    expect(codeOf(flush)).toBe("EFAULT");
    expect(codeOf(() => mr.advise(ADVICE.PREFETCH, ADDRESS - 1, 5))).toBe("EINVAL");
    expect(codeOf(() => mr.advise(ADVICE.PREFETCH, ADDRESS, 5 * 4096 + 1))).toBe("EINVAL");
    mr.deregister();
    expect(codeOf(() => mr.advise(ADVICE.PREFETCH, ADDRESS, 1))).toBe("EBADF");
  });

  it("to write needs the right; pinned regions have it all already", () => {
    const { process, space, pd } = host();
    process.map(VPN, 1);
    const range = { space, address: ADDRESS, length: 4096 };
    const readable = pd.registerMr(range, { access: ACCESS.REMOTE_READ, onDemand: true });
    expect(codeOf(() => readable.advise(ADVICE.PREFETCH_WRITE, ADDRESS, 1))).toBe("EPERM");
    const pinned = pd.registerMr(range);
    pinned.advise(ADVICE.PREFETCH_WRITE, ADDRESS, 4096, true);
    expect(codeOf(() => pd.allocMr().advise(ADVICE.PREFETCH, 0, 1))).toBe("EINVAL");
  });
});

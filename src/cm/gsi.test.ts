// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { HeapMemorySource, IpAddress, type Memory, SeededRandom } from "../base/index.js";
import { Device } from "../transport/index.js";
import { Context } from "../verbs/index.js";
import { GsiPort } from "./gsi.js";

const ADDRESSES = ["192.0.2.1", "2001:db8::1"].map((text) => IpAddress.parse(text));
const DEPTHS = { receiveDepth: 8, sendDepth: 8 };

class CountingMemory extends HeapMemorySource {
  readonly live = new Set<Memory>();

  override allocate(length: number): Memory {
    const memory = super.allocate(length);
    this.live.add(memory);
    return memory;
  }

  override free(memory: Memory): void {
    if (!this.live.delete(memory)) throw new Error("memory is freed once");
  }
}

function deviceOf(options: { readonly regionCountMax?: number } = {}): Device {
  const linkMtus = ADDRESSES.map(() => 1500);
  const random = new SeededRandom(1);
  return new Device({ addresses: ADDRESSES, linkMtus, random, qpCountMax: 16, ...options });
}

function makeAndClose(device: Device, handleCountMax: number): "made" | string {
  const context = new Context(device, { handleCountMax });
  const memory = new CountingMemory();
  try {
    const gsi = new GsiPort({ context, memory, ...DEPTHS });
    expect(context.handleCount).toBe(5);
    gsi.close();
    gsi.close();
    return "made";
  } catch (error) {
    return (error as { code: string }).code;
  } finally {
    expect(context.handleCount).toBe(0);
    expect(memory.live.size).toBe(0);
    context.checkInvariants();
  }
}

describe("GsiPort", () => {
  it("room for 0, 1, ... handles: what fails half-way gives all back, five are enough", () => {
    const device = deviceOf();
    // PD, CQ, MR, a queue pair for each of two ports.
    const ends = [0, 1, 2, 3, 4, 5].map((count) => makeAndClose(device, count));
    expect(ends).toEqual([...Array(5).fill("ENOMEM"), "made"]);
  });

  it("QP1 of the second port is somebody else's → EBUSY; the first port's is free", () => {
    const device = deviceOf();
    const other = new Context(device);
    const pd = other.allocPd();
    const cq = other.createCq({ depth: 4 });
    const qp = pd.createGsiQp(1, { sendCq: cq, recvCq: cq, maxSendWr: 1, maxRecvWr: 1 });
    expect(makeAndClose(device, 100)).toBe("EBUSY");
    qp.destroy();
    expect(makeAndClose(device, 100)).toBe("made");
  });

  it("depths that the device does not have → EINVAL, and nothing is left", () => {
    const context = new Context(deviceOf());
    const memory = new CountingMemory();
    const depths = { receiveDepth: 1 << 20, sendDepth: 8 };
    expect(() => new GsiPort({ context, memory, ...depths })).toThrow(/depth/);
    expect(context.handleCount).toBe(0);
    expect(memory.live.size).toBe(0);
  });
});

// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HeapMemorySource, IpAddress, updateCrc32 } from "../base/index.js";
import { socketInodes } from "./diagnosis.js";
import {
  foreignCallsUnavailable,
  monotonicNs,
  nativeCrc32,
  openMemorySource,
  SystemRandom,
} from "./index.js";
import { interfaceOf, isLinkLocal, localAddresses } from "./interfaces.js";
import { MappedMemory, nativeAddressOf } from "./memory-source.js";
import {
  readInetAddress,
  readInetPort,
  writeInetAddress,
  writeUnixAddress,
} from "./socket-address.js";

const hasNative = foreignCallsUnavailable() === null;

describe("nativeCrc32", () => {
  it("any bytes, range and register → what the portable one gives", () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 3000 }),
        fc.integer(),
        fc.nat(3000),
        (bytes, register, cut) => {
          const at = Math.min(cut, bytes.length);
          const whole = updateCrc32(bytes, 0, bytes.length, register);
          expect(nativeCrc32(bytes, 0, bytes.length, register)).toBe(whole);
          const half = nativeCrc32(bytes, 0, at, register);
          expect(nativeCrc32(bytes, at, bytes.length, half)).toBe(whole);
        },
      ),
    );
  });
});

describe("monotonicNs", () => {
  it("called again and again → integers that never fall", () => {
    let last = monotonicNs();
    for (let i = 0; i < 10_000; i++) {
      const now = monotonicNs();
      expect(Number.isSafeInteger(now) && now >= last).toBe(true);
      last = now;
    }
  });
});

describe("SystemRandom", () => {
  it("many words → 32 bits wide, none repeated in a row, streams differ", () => {
    const random = new SystemRandom();
    const fork = random.fork("keys");
    const words = Array.from({ length: 3000 }, () => random.nextU32());
    const others = Array.from({ length: 3000 }, () => fork.nextU32());
    for (const word of words) expect(word >>> 0).toBe(word);
    // Two equal words among 3,000 of 2^32 happen once in a thousand runs; four, never.
    expect(new Set(words).size).toBeGreaterThan(2996);
    expect(new Set([...words, ...others]).size).toBeGreaterThan(5990);
    for (let bit = 0; bit < 32; bit++) {
      const count = words.filter((word) => ((word >>> bit) & 1) === 1).length;
      expect(count).toBeGreaterThan(1300);
      expect(count).toBeLessThan(1700);
    }
  });
});

describe.each(["native", "node"] as const)("openMemorySource, %s", (backend) => {
  if (backend === "native" && !hasNative) return;

  it("allocated → zeroes, page aligned, of the length asked for, apart from others", () => {
    using source = openMemorySource({ backend });
    const memories = [1, 4096, 4097, 3 << 20].map((length) => source.allocate(length));
    expect(memories.map((memory) => memory.length)).toEqual([1, 4096, 4097, 3 << 20]);
    for (const [index, memory] of memories.entries()) {
      expect(memory.bytes.length).toBe(memory.length);
      expect(memory.view.byteLength).toBe(memory.length);
      expect(memory.address % 4096).toBe(0);
      expect(memory.address).toBeLessThan(2 ** 48);
      expect(memory.bytes.every((byte) => byte === 0)).toBe(true);
      memory.view.setUint8(0, index + 1);
    }
    for (const [index, memory] of memories.entries()) expect(memory.bytes[0]).toBe(index + 1);
    const ranges = memories.map((m) => [m.address, m.address + m.length] as const);
    ranges.sort((a, b) => a[0] - b[0]);
    for (let i = 1; i < ranges.length; i++) {
      expect(ranges[i]?.[0]).toBeGreaterThanOrEqual(ranges[i - 1]?.[1] ?? 0);
    }
  });

  it("the limit → refused beyond it, given back by free", () => {
    using source = openMemorySource({ backend, limitBytes: 3 * 4096 });
    const first = source.allocate(2 * 4096);
    expect(() => source.allocate(4097)).toThrow(expect.objectContaining({ code: "ENOMEM" }));
    source.allocate(1);
    expect(source.allocatedBytes).toBe(3 * 4096);
    source.free(first);
    expect(source.allocatedBytes).toBe(4096);
    source.allocate(8192);
    expect(() => source.free(first)).toThrow("freed once");
  });

  it("nonsense lengths → EINVAL", () => {
    using source = openMemorySource({ backend });
    for (const length of [0, -1, 1.5, Number.NaN]) {
      expect(() => source.allocate(length)).toThrow(expect.objectContaining({ code: "EINVAL" }));
    }
  });

  it("again and again at the same place → each time new zeroes", () => {
    using source = openMemorySource({ backend, populate: true });
    for (let i = 0; i < 200; i++) {
      const memory = source.allocate(2 << 20);
      expect(memory.bytes[i]).toBe(0);
      memory.bytes[i] = 1;
      source.free(memory);
    }
    expect(source.allocatedBytes).toBe(0);
  });
});

describe.runIf(hasNative)("nativeAddressOf", () => {
  it("mapped → its address; a heap buffer → not the made-up one", () => {
    using source = openMemorySource();
    const mapped = source.allocate(4096);
    expect(mapped).toBeInstanceOf(MappedMemory);
    expect(nativeAddressOf(mapped)).toBe(mapped.address);
    const heap = new HeapMemorySource().allocate(4096);
    expect(nativeAddressOf(heap)).not.toBe(heap.address);
  });
});

describe("socket addresses", () => {
  const view = new DataView(new ArrayBuffer(128));

  it("IPv4 and IPv6 → read back what was written", () => {
    for (const text of ["192.0.2.1", "2001:db8::1:2", "fe80::1"]) {
      const address = IpAddress.parse(text);
      const length = writeInetAddress(view, 4, address, 4791, 3);
      expect(length).toBe(address.family === 4 ? 16 : 28);
      expect(readInetAddress(view, 4)?.toString()).toBe(text);
      expect(readInetPort(view, 4)).toBe(4791);
    }
  });

  it("a Unix path → its bytes and a zero; too long, empty or with a zero → refused", () => {
    expect(writeUnixAddress(view, 0, "/a/ü")).toBe(2 + 5 + 1);
    expect(readInetAddress(view, 0)).toBeNull();
    expect(writeUnixAddress(view, 0, "x".repeat(107))).toBe(110);
    expect(() => writeUnixAddress(view, 0, "x".repeat(108))).toThrow("107 bytes");
    expect(() => writeUnixAddress(view, 0, "")).toThrow("empty");
    expect(() => writeUnixAddress(view, 0, "a\0b")).toThrow("zero byte");
  });
});

describe("interfaces", () => {
  it("loopback → all of 127.0.0.0/8; elsewhere → unknown, with Ethernet's MTU", () => {
    expect(interfaceOf(IpAddress.parse("127.0.0.1")).mtu).toBeGreaterThan(1500);
    expect(interfaceOf(IpAddress.parse("127.9.8.7")).name).not.toBeNull();
    expect(interfaceOf(IpAddress.parse("192.0.2.77"))).toEqual({
      name: null,
      mtu: 1500,
      scopeId: 0,
    });
    expect(localAddresses().join()).toContain("127.0.0.1");
  });

  it("fe80::/10 → link-local; its neighbours → not", () => {
    const links = ["fe80::1", "febf::1", "fe7f::1", "fec0::1", "::ffff:254.128.0.1"];
    expect(links.map((text) => isLinkLocal(IpAddress.parse(text)))).toEqual([
      true,
      true,
      false,
      false,
      false,
    ]);
  });
});

describe("socketInodes", () => {
  const TABLE_V4 = [
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode",
    " 100: 0100007F:12B7 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 111 2",
    " 101: 00000000:12B7 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 222 2",
    " 102: 0100007F:12B8 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 333 2",
    " 103: 0200007F:12B7 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 444 2",
    "",
  ].join("\n");
  const TABLE_V6 = [
    "header",
    " 5: B80D0120000000000000000001000000:12B7 0:0 07 0:0 0:0 0     0        0 555 2",
    " 6: 00000000000000000000000000000000:12B7 0:0 07 0:0 0:0 0     0        0 666 2",
    " 7: garbage",
  ].join("\n");

  it("the same address or all of them, the same port → the sockets in the way", () => {
    expect(socketInodes(TABLE_V4, IpAddress.parse("127.0.0.1"), 4791)).toEqual([111, 222]);
    expect(socketInodes(TABLE_V4, IpAddress.parse("127.0.0.9"), 4792)).toEqual([]);
    expect(socketInodes(TABLE_V6, IpAddress.parse("2001:db8::1"), 4791)).toEqual([555, 666]);
    expect(socketInodes(TABLE_V6, IpAddress.parse("127.0.0.1"), 4791)).toEqual([666]);
    expect(socketInodes("", IpAddress.parse("127.0.0.1"), 4791)).toEqual([]);
  });
});

// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { type Pcapng, readPcapng } from "../../test/support/pcapng-reader.js";
import { IpAddress } from "../base/index.js";
import { RxBurst, type TxFlow } from "../transport/index.js";
import { IcrcEngine, IcrcFlow, ROCE_PORT, writeBth } from "../wire/index.js";
import { PacketFilter } from "./filter.js";
import { PacketTrace, type PacketTraceOptions, TRACE_RING_BYTES_MIN } from "./packet-trace.js";
import { Timestamp } from "./pcapng.js";

const OWN = IpAddress.parse("192.0.2.1");
const OWN6 = IpAddress.parse("2001:db8::1");
const PEER = IpAddress.parse("192.0.2.2");
const PEER6 = IpAddress.parse("2001:db8::2");
const EPOCH_MS = 1_764_000_000_123;
const engine = new IcrcEngine();

function flowTo(destination: IpAddress, port: number): TxFlow {
  return { port, destination, destinationPort: ROCE_PORT, trafficClass: 2 };
}

/** A RoCE packet with a right ICRC for an IP identification. */
function packet(
  source: IpAddress,
  destination: IpAddress,
  length: number,
  identification: number,
  qpn = 0x123456,
): Uint8Array {
  const bytes = new Uint8Array(length).map((_, i) => i * 7);
  const view = new DataView(bytes.buffer);
  writeBth(view, 0, 4, false, 0, 0xffff, qpn, true, 77);
  const flow = IcrcFlow.between(source, ROCE_PORT, destination, ROCE_PORT);
  engine.write(flow, bytes, view, 0, length, identification);
  return bytes;
}

function burstOf(source: IpAddress, port: number, packets: readonly Uint8Array[]): RxBurst {
  const burst = new RxBurst(new Uint8Array(packets.flatMap((bytes) => [...bytes])));
  burst.length = burst.bytes.length;
  burst.segmentLength = packets[0]?.length ?? 0;
  burst.port = port;
  burst.sourcePort = ROCE_PORT;
  burst.source0 = source.word0;
  burst.source1 = source.word1;
  burst.source2 = source.word2;
  burst.source3 = source.word3;
  return burst;
}

class Recorder {
  nowNs = 0;
  readable = 0;
  full = 0;
  readonly trace: PacketTrace;
  private readonly parts: Uint8Array[] = [];

  constructor(options: Partial<PacketTraceOptions> = {}) {
    this.trace = new PacketTrace({
      addresses: [OWN, OWN6],
      port: ROCE_PORT,
      nowNs: () => this.nowNs,
      epochMs: EPOCH_MS,
      application: "farpage test",
      onReadable: () => this.readable++,
      onFull: () => this.full++,
      ...options,
    });
  }

  send(bytes: Uint8Array, destination: IpAddress, segment = 0): void {
    this.trace.onSent(
      flowTo(destination, destination.family === 4 ? 0 : 1),
      bytes,
      0,
      bytes.length,
      segment,
    );
  }

  receive(burst: RxBurst): void {
    for (let at = 0; at < burst.length; at += burst.segmentLength) {
      this.trace.onReceived(burst, at, Math.min(burst.segmentLength, burst.length - at));
    }
  }

  drain(): void {
    const { ring } = this.trace;
    while (ring.peek() > 0) {
      this.parts.push(ring.bytes.slice(ring.readOffset, ring.readOffset + ring.readLength));
      ring.consume(ring.readLength);
    }
  }

  file(): Pcapng {
    this.drain();
    return readPcapng(new Uint8Array(this.parts.flatMap((part) => [...part])));
  }
}

/** What a dissector would check: the ICRC of a traced packet, from its own IP header. */
function icrcFits(bytes: Uint8Array): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const isV4 = bytes[0] === 0x45;
  const source = isV4 ? IpAddress.v4(view.getUint32(12)) : IpAddress.fromGid(view, 8);
  const destination = isV4 ? IpAddress.v4(view.getUint32(16)) : IpAddress.fromGid(view, 24);
  const at = isV4 ? 28 : 48;
  const flow = IcrcFlow.between(
    source,
    view.getUint16(at - 8),
    destination,
    view.getUint16(at - 6),
  );
  const id = isV4 ? view.getUint16(4) : 0;
  return engine.checkExact(flow, bytes, view, at, bytes.length - at, id);
}

describe("PacketTrace", () => {
  it("packets both ways on two ports → addresses, times, directions and ICRCs are right", () => {
    const recorder = new Recorder();
    recorder.nowNs = 1_000_000_007;
    recorder.send(packet(OWN, PEER, 48, 0), PEER);
    recorder.nowNs += 1;
    recorder.send(packet(OWN6, PEER6, 61, 0), PEER6);
    recorder.nowNs += 5_000_000_000;
    recorder.receive(burstOf(PEER6, 1, [packet(PEER6, OWN6, 40, 0)]));
    const file = recorder.file();
    expect(file.application).toBe("farpage test");
    expect(file.interfaces.map(({ name, linkType }) => [name, linkType])).toEqual([
      ["192.0.2.1", 101],
      ["2001:db8::1", 101],
    ]);
    expect(file.packets.map((p) => [p.interfaceNumber, p.direction, p.bytes.length])).toEqual([
      [0, "out", 76],
      [1, "out", 109],
      [1, "in", 88],
    ]);
    const base = BigInt(EPOCH_MS) * 1_000_000n;
    expect(file.packets.map((p) => p.timeNs - base)).toEqual([
      1_000_000_007n,
      1_000_000_008n,
      6_000_000_008n,
    ]);
    for (const { bytes, hasCrcError } of file.packets) {
      expect(icrcFits(bytes)).toBe(true);
      expect(hasCrcError).toBe(false);
    }
    // TOS 2 as sent.
    expect(file.packets[0]?.bytes[1]).toBe(2);
  });

  it("segments of a GSO send → packets of their own with identifications 0, 1, 2", () => {
    const recorder = new Recorder();
    for (const id of [0, 1, 2]) recorder.send(packet(OWN, PEER, 64, id), PEER, id);
    const { packets } = recorder.file();
    expect(packets.map(({ bytes }) => (bytes[4] as number) * 256 + (bytes[5] as number))).toEqual([
      0, 1, 2,
    ]);
    expect(packets.every(({ bytes }) => icrcFits(bytes))).toBe(true);
  });

  it("a received burst → the identification that its ICRC needs, be it any", () => {
    const recorder = new Recorder();
    const ids = [0x1234, 0x1235, 0xffff, 0];
    const packets = ids.map((id) => packet(PEER, OWN, 64, id));
    recorder.receive(burstOf(PEER, 0, packets));
    const file = recorder.file();
    const found = file.packets.map(({ bytes }) => new DataView(bytes.slice(4, 6).buffer));
    expect(found.map((view) => view.getUint16(0))).toEqual(ids);
    expect(file.packets.every(({ bytes }) => icrcFits(bytes))).toBe(true);
  });

  it("a packet that was spoiled, one too short to be RoCE → traced with the CRC flag", () => {
    const recorder = new Recorder();
    const bad = packet(PEER6, OWN6, 64, 0);
    bad[20] = (bad[20] as number) ^ 1;
    recorder.receive(burstOf(PEER6, 1, [bad]));
    recorder.receive(burstOf(PEER, 0, [new Uint8Array(3)]));
    const { packets } = recorder.file();
    expect(packets.map((p) => p.hasCrcError)).toEqual([true, true]);
    expect(icrcFits((packets[0] as { bytes: Uint8Array }).bytes)).toBe(false);
    expect(packets[1]?.bytes.length).toBe(31);
  });

  it("a reader that is too slow → drops, told by the next packet and by the statistics", () => {
    const recorder = new Recorder({ ringBytes: TRACE_RING_BYTES_MIN });
    const bytes = packet(OWN, PEER, 4096, 0);
    for (let i = 0; i < 100; i++) recorder.send(bytes, PEER);
    const { droppedCount, deliveredCount } = recorder.trace;
    expect(droppedCount).toBeGreaterThan(0);
    expect(droppedCount + deliveredCount).toBe(100);
    recorder.drain();
    recorder.send(bytes, PEER);
    recorder.send(bytes, PEER);
    recorder.nowNs = 9;
    expect(recorder.trace.end()).toBe(true);
    recorder.send(bytes, PEER);
    const file = recorder.file();
    expect(file.packets.length).toBe(deliveredCount + 2);
    expect(file.packets.slice(-2).map((p) => p.dropCount)).toEqual([droppedCount, 0]);
    const base = BigInt(EPOCH_MS) * 1_000_000n;
    expect(file.statistics).toEqual([
      {
        interfaceNumber: 0,
        timeNs: base + 9n,
        startNs: base,
        endNs: base + 9n,
        receivedCount: 102,
        droppedCount,
        deliveredCount: deliveredCount + 2,
      },
      expect.objectContaining({ interfaceNumber: 1, receivedCount: 0, droppedCount: 0 }),
    ]);
  });

  it("the end of a full ring → waits for room, and is written once there is some", () => {
    const recorder = new Recorder({ ringBytes: TRACE_RING_BYTES_MIN });
    // Packets of ever smaller size until nothing fits at all.
    for (let length = 16_384; length >= 16; length >>= 1) {
      for (let i = 0; i < 40; i++) recorder.send(packet(OWN, PEER, length, 0), PEER);
    }
    expect(recorder.trace.end()).toBe(false);
    recorder.drain();
    expect(recorder.trace.end()).toBe(true);
    expect(recorder.file().statistics.length).toBe(2);
  });

  it("many rounds through a small ring → every packet whole and in order", () => {
    const recorder = new Recorder({ ringBytes: TRACE_RING_BYTES_MIN });
    const lengths: number[] = [];
    for (let i = 0; i < 600; i++) {
      const length = 16 + ((i * 977) % 4000);
      lengths.push(length + 28);
      recorder.send(packet(OWN, PEER, length, 0), PEER);
      if (i % 7 === 6) recorder.drain();
    }
    expect(recorder.trace.droppedCount).toBe(0);
    expect(recorder.file().packets.map((p) => p.bytes.length)).toEqual(lengths);
  });

  it("a filter → only its peers and its QPNs; statistics count what was seen", () => {
    const filter = new PacketFilter({ peers: [PEER], qpns: [7, 9] });
    const recorder = new Recorder({ filter });
    const other = IpAddress.parse("192.0.2.3");
    recorder.send(packet(OWN, PEER, 32, 0, 7), PEER);
    recorder.send(packet(OWN, PEER, 32, 0, 8), PEER);
    recorder.send(packet(OWN, other, 32, 0, 7), other);
    recorder.receive(burstOf(PEER, 0, [packet(PEER, OWN, 32, 0, 9)]));
    recorder.receive(burstOf(other, 0, [packet(other, OWN, 32, 0, 9)]));
    recorder.receive(burstOf(PEER, 0, [new Uint8Array(5)]));
    recorder.trace.end();
    const file = recorder.file();
    expect(file.packets.map((p) => p.direction)).toEqual(["out", "in"]);
    expect(file.statistics[0]).toMatchObject({ receivedCount: 6, deliveredCount: 2 });
  });

  it("a snap length, a packet count → cut packets; over after the last", () => {
    const recorder = new Recorder({ snapBytes: 60, packetCountMax: 2 });
    for (let i = 0; i < 3; i++) recorder.send(packet(OWN, PEER, 1000, 0), PEER);
    const { packets, interfaces } = recorder.file();
    expect(packets.map((p) => [p.bytes.length, p.originalLength])).toEqual([
      [60, 1028],
      [60, 1028],
    ]);
    expect(interfaces[0]?.snapBytes).toBe(60);
    expect(recorder.full).toBe(1);
    // Told when the empty ring got bytes, not for each packet.
    expect(recorder.readable).toBe(0);
  });

  it("an emptied ring → told again when bytes come", () => {
    const recorder = new Recorder();
    recorder.drain();
    recorder.send(packet(OWN, PEER, 100, 0), PEER);
    recorder.send(packet(OWN, PEER, 100, 0), PEER);
    expect(recorder.readable).toBe(1);
    recorder.drain();
    recorder.send(packet(OWN, PEER, 100, 0), PEER);
    expect(recorder.readable).toBe(2);
  });
});

describe("PacketTrace.peekBlocks", () => {
  it("as many whole blocks as fit, and one that does not", () => {
    const { trace } = new Recorder();
    const { ring } = trace;
    expect(trace.peekBlocks(1 << 20)).toBe(ring.peek());
    ring.consume(ring.readLength);
    expect(trace.peekBlocks(1000)).toBe(0);
    const bytes = packet(OWN, PEER, 100, 0);
    for (let i = 0; i < 5; i++) trace.onSent(flowTo(PEER, 0), bytes, 0, bytes.length, 0);
    const one = ring.peek() / 5;
    expect(trace.peekBlocks(5 * one)).toBe(5 * one);
    expect(trace.peekBlocks(5 * one - 1)).toBe(4 * one);
    expect(trace.peekBlocks(2 * one)).toBe(2 * one);
    expect(trace.peekBlocks(one)).toBe(one);
    expect(trace.peekBlocks(1)).toBe(one);
  });
});

describe("Timestamp", () => {
  it("any time of day and any nanosecond → exact 64 bits", () => {
    for (const epochMs of [0, 1, 1_764_000_000_123, 4_294_967_296_000, 0x1_ffff_ffff]) {
      const stamp = new Timestamp(epochMs);
      for (const ns of [0, 1, 0xffff_ffff, 0x1_0000_0000, 9_007_194_959_773_696 - 1]) {
        stamp.set(ns);
        const wanted = BigInt(epochMs) * 1_000_000n + BigInt(ns);
        expect((BigInt(stamp.high) << 32n) | BigInt(stamp.low)).toBe(wanted);
      }
    }
  });
});

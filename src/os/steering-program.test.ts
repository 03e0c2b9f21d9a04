// SPDX-License-Identifier: MIT
// The kernel's program against `laneOf`, by an interpreter; and the kernel itself, on loopback.

import { createSocket } from "node:dgram";
import fc from "fast-check";
import { afterEach, describe, expect, it } from "vitest";
import { EVERY_LANE, laneOf, STEERING_AT, STEERING_ATTRIBUTE } from "../wire/index.js";
import { bindLaneSockets, foreignCallsUnavailable, type LaneSockets, openLink } from "./index.js";
import { openPoller } from "./poller.js";
import { BPF, type BpfInstruction, steeringProgram } from "./steering-program.js";

/** What the kernel does with a datagram: the index of a socket. */
function run(program: readonly BpfInstruction[], bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let a = 0;
  for (let at = 0; ; at++) {
    const { code, jt, jf, k } = program[at] as BpfInstruction;
    if (code === BPF.LOAD_32) {
      if (k + 4 > bytes.length) return 0;
      a = view.getUint32(k);
    } else if (code === BPF.LOAD_16) {
      if (k + 2 > bytes.length) return 0;
      a = view.getUint16(k);
    } else if (code === BPF.AND) a = (a & k) >>> 0;
    else if (code === BPF.MOD) a %= k;
    else if (code === BPF.JUMP_EQUAL) at += a === k ? jt : jf;
    else if (code === BPF.JUMP) at += k;
    else if (code === BPF.RETURN) return k;
    else if (code === BPF.RETURN_A) return a;
    else throw new Error(`no such instruction: ${code}`);
  }
}

const attribute = fc.oneof(
  fc.constantFrom(...Object.values(STEERING_ATTRIBUTE)),
  fc.integer({ min: 0, max: 0xffff }),
);
/** A datagram to QP1 or to another, cut anywhere. */
const packet = fc
  .record({
    bytes: fc.uint8Array({ minLength: 280, maxLength: 280 }),
    qpn: fc.oneof(fc.constant(1), fc.integer({ min: 0, max: 0xffffff })),
    attribute,
    port: fc.constantFrom(1234, 1235),
    length: fc.oneof(fc.constant(280), fc.nat({ max: 280 })),
  })
  .map(({ bytes, length, ...fields }) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    view.setUint32(STEERING_AT.QPN, ((bytes[4] as number) << 24) | fields.qpn);
    view.setUint16(STEERING_AT.ATTRIBUTE, fields.attribute);
    view.setUint16(STEERING_AT.REQ_PORT, fields.port);
    return bytes.subarray(0, length);
  });

describe("the steering program", () => {
  it("any packet, any number of lanes: where laneOf says", () => {
    fc.assert(
      fc.property(packet, fc.integer({ min: 2, max: 64 }), (bytes, laneCount) => {
        const steering = { laneCount, pinnedPort: 1235 };
        const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
        const wanted = laneOf(view, 0, bytes.length, steering);
        const lane = run(steeringProgram(steering), bytes);
        expect(lane).toBeLessThan(laneCount);
        if (wanted !== EVERY_LANE) expect(lane).toBe(wanted);
      }),
      { numRuns: 500 },
    );
  });
});

const LANES = 3;

describe.skipIf(foreignCallsUnavailable() !== null)("the kernel", () => {
  const opened: LaneSockets[] = [];
  afterEach(() => {
    for (const sockets of opened.splice(0)) sockets.close();
  });
  function bind(address: string, port = 0): LaneSockets {
    const steering = { laneCount: LANES, pinnedPort: 1235 };
    const sockets = bindLaneSockets({ addresses: [address], steering, port });
    opened.push(sockets);
    return sockets;
  }

  it.each(["127.0.0.24", "::1"])("%s → each packet at the socket of its lane", async (address) => {
    const { lanes } = bind(address);
    const poller = openPoller();
    const links = await Promise.all(
      lanes.map((sockets) => openLink({ addresses: [address], poller, sockets })),
    );
    const sender = createSocket(address.includes(":") ? "udp6" : "udp4");
    const packets: Uint8Array[] = [];
    fc.assert(
      fc.property(packet, (bytes) => {
        if (bytes.length > 0) packets.push(bytes.slice());
      }),
      { numRuns: 60 },
    );
    for (const bytes of packets) {
      await new Promise((resolve) => sender.send(bytes, links[0]?.port, address, resolve));
    }
    const program = steeringProgram({ laneCount: LANES, pinnedPort: 1235 });
    const wanted = packets.map((bytes) => run(program, bytes));
    for (const [lane, link] of links.entries()) {
      const count = wanted.filter((one) => one === lane).length;
      expect(count).toBeGreaterThan(0);
      let received = 0;
      for (let burstCount = link.receive(); burstCount > 0; burstCount = link.receive()) {
        for (const { length, segmentLength } of link.bursts.slice(0, burstCount)) {
          received += Math.ceil(length / segmentLength);
        }
      }
      expect(received).toBe(count);
      link.close();
    }
    sender.close();
    poller.close();
  });

  it("a port that lanes share → nobody else gets it, would he share it or not", async () => {
    const { lanes } = bind("127.0.0.24");
    const port = lanes[0]?.[0]?.port as number;
    expect(() => bind("127.0.0.24", port)).toThrow(/is taken/);
    const poller = openPoller();
    await expect(openLink({ addresses: ["127.0.0.24"], poller, port })).rejects.toMatchObject({
      code: "EADDRINUSE",
    });
    poller.close();
  });
});

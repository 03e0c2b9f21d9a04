// SPDX-License-Identifier: MIT
// A host that sends packets of its own making, each with a right ICRC: with another client's QPN,
// from its own address and from a forged one, repeated, with guessed numbers.

import { beforeEach, describe, expect, it } from "vitest";
import { IpAddress, SeededRandom } from "../../src/base/index.js";
import { DROP_REASON } from "../../src/transport/index.js";
import {
  BTH_BYTES,
  bthDestinationQpn,
  OPCODE_FLAG,
  OPCODE_FLAGS,
  QPN_GSI,
} from "../../src/wire/index.js";
import { Mutator } from "../fuzz/mutate.js";
import { PacketMutator } from "../fuzz/roce-mutate.js";
import { type Attacker, rnbd } from "./attacker.js";
import { MS, Scene } from "./scene.js";

const ATTACKER = IpAddress.parse("192.0.2.66");
const VICTIM = IpAddress.parse("192.0.2.67");

/** A scene with a victim, all of whose packets to the server somebody has seen. */
class Wire {
  readonly scene = new Scene();
  readonly victim: Attacker;
  readonly device: number;
  /** What the victim has sent: MADs, and packets of its connections. */
  readonly mads: Uint8Array[] = [];
  readonly packets: Uint8Array[] = [];
  private readonly signer = new PacketMutator(new Mutator(new SeededRandom(9)));

  constructor() {
    const { scene } = this;
    const { network } = scene.world;
    network.observers.push((source, _flow, bytes, offset, length) => {
      if (!(source.addresses[0] as IpAddress).equals(VICTIM)) return;
      const packet = bytes.slice(offset, offset + length);
      const isMad = bthDestinationQpn(new DataView(packet.buffer), 0) === QPN_GSI;
      (isMad ? this.mads : this.packets).push(packet);
    });
    this.victim = scene.attacker(67);
    this.device = scene.open(this.victim, "own");
    this.write(1);
  }

  /** The victim writes a sector and gets its answer. */
  write(byte: number): void {
    const data = new Uint8Array(512).fill(byte);
    const { errno } = this.scene.run(this.victim, { user: rnbd.io(this.device, 1, 0, 512), data });
    expect(errno).toBe(0);
  }

  /** The victim's last request, which carries data and an immediate. */
  get request(): Uint8Array {
    const isRequest = (packet: Uint8Array) => {
      const flags = OPCODE_FLAGS[packet[0] as number] as number;
      const wanted = OPCODE_FLAG.HAS_IMM | OPCODE_FLAG.HAS_PAYLOAD;
      return (flags & wanted) === wanted && packet.length > 500;
    };
    return (this.packets.filter(isRequest).at(-1) as Uint8Array).slice();
  }

  get drops(): Float64Array {
    return this.scene.stack.device.counters.drops;
  }

  /** Has `packet` arrive at the server as if from `source`. */
  inject(packet: Uint8Array, source: IpAddress): void {
    const { scene } = this;
    const signed = this.signer.sign(packet.slice(), source, scene.address);
    const { network } = scene.world;
    network.inject(scene.server.simLink, 0, source, signed, 0, signed.length);
    scene.world.run(MS);
  }

  /** The victim is served as before, and its disk has what it wrote. */
  expectNothingHappened(): void {
    const { scene } = this;
    expect(scene.contents("own")[0]).toBe(1);
    this.write(2);
    expect(scene.contents("own")[0]).toBe(2);
    expect(scene.isUp(this.victim)).toBe(true);
    scene.expectNobodyHarmed();
  }
}

const psnOf = (packet: Uint8Array) => new DataView(packet.buffer).getUint32(8) & 0xff_ffff;

function withPsn(packet: Uint8Array, psn: number): Uint8Array {
  const view = new DataView(packet.buffer);
  view.setUint32(8, (view.getUint32(8) & 0xff00_0000) | (psn & 0xff_ffff));
  return packet;
}

describe("packets of others", () => {
  let wire: Wire;
  beforeEach(() => {
    wire = new Wire();
  });

  it("another client's QPN and next PSN, from one's own address → dropped: ADDRESS", () => {
    const { request, drops } = wire;
    const before = drops[DROP_REASON.ADDRESS] as number;
    for (const step of [0, 1, 2]) {
      const packet = withPsn(request.slice(), psnOf(request) + step).fill(0xbb, 60, 80);
      wire.inject(packet, ATTACKER);
    }
    expect(drops[DROP_REASON.ADDRESS]).toBe(before + 3);
    wire.expectNothingHappened();
  });

  it("the same from the forged address, a PSN that was → not executed again", () => {
    const writes = () => wire.scene.rnbd.volume("own")?.counters.writes;
    const before = writes();
    const { request } = wire;
    wire.inject(request, VICTIM);
    // The same number with other contents: what was executed stays.
    wire.inject(request.slice().fill(0xbb, 60, 80), VICTIM);
    for (const step of [-1, -2, -100]) {
      wire.inject(withPsn(request.slice(), psnOf(request) + step), VICTIM);
    }
    expect(writes()).toBe(before);
    wire.expectNothingHappened();
  });

  it("the forged address and guessed PSNs → not executed", () => {
    const writes = () => wire.scene.rnbd.volume("own")?.counters.writes;
    const before = writes();
    const { request } = wire;
    const random = new SeededRandom(5);
    for (let i = 0; i < 40; i++) {
      const step = 2 + (random.nextU32() & 0x3f_ffff);
      wire.inject(withPsn(request.slice(), psnOf(request) + step), VICTIM);
    }
    expect(writes()).toBe(before);
    wire.expectNothingHappened();
  });

  it("QPNs that nobody has → dropped: QPN", () => {
    const { request, drops } = wire;
    const before = drops[DROP_REASON.QPN] as number;
    for (const qpn of [2, 0x1234, 0xff_fffe]) {
      const packet = request.slice();
      new DataView(packet.buffer).setUint32(4, qpn);
      wire.inject(packet, ATTACKER);
    }
    expect(drops[DROP_REASON.QPN]).toBe(before + 3);
    wire.expectNothingHappened();
  });

  it("changed on the way without a right ICRC → dropped: ICRC", () => {
    const { request, drops, scene } = wire;
    const before = drops[DROP_REASON.ICRC] as number;
    const packet = withPsn(request, psnOf(request) + 1).fill(0xbb, 60, 80);
    scene.world.network.inject(scene.server.simLink, 0, VICTIM, packet, 0, packet.length);
    scene.world.run(MS);
    expect(drops[DROP_REASON.ICRC]).toBe(before + 1);
    wire.expectNothingHappened();
  });
});

describe("connection setup from a forged address", () => {
  it("a REQ whose path is not where it comes from → refused, no session", () => {
    const wire = new Wire();
    const { scene } = wire;
    const { sessions } = scene.rtrs.counters();
    const { usedBytes } = scene.serverMemory;
    // The victim's first REQ, from elsewhere: 192.0.2.68 is let in by the rules, too.
    const req = wire.mads[0] as Uint8Array;
    wire.inject(renumbered(req), IpAddress.parse("192.0.2.68"));
    wire.inject(renumbered(req), ATTACKER);
    expect(scene.rtrs.counters().sessions).toBe(sessions);
    expect(scene.serverMemory.usedBytes).toBe(usedBytes);
    wire.expectNothingHappened();
  });

  it("the victim's own REQ and goodbye again → its session lives", () => {
    const wire = new Wire();
    for (const mad of wire.mads.slice()) wire.inject(mad, VICTIM);
    for (const mad of wire.mads.slice()) wire.inject(mad, ATTACKER);
    wire.expectNothingHappened();
  });
});

/** A REQ as that of a new session: another communication id, other UUIDs of path and session. */
function renumbered(req: Uint8Array): Uint8Array {
  const packet = req.slice();
  const mad = BTH_BYTES + 8;
  // Private data begins at 164, behind the RDMA CM's 36 bytes comes RTRS: UUIDs at 10 and at 26.
  const rtrs = mad + 164 + 36;
  for (const at of [mad + 15, mad + 24 + 3, rtrs + 12, rtrs + 30]) {
    packet[at] = (packet[at] as number) ^ 0x5a;
  }
  return packet;
}

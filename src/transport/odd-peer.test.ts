// SPDX-License-Identifier: MIT
// RC with a peer that keeps the rules and has other habits: values and orders that farpage itself
// never sends (IBTA vol1 §9.7; rocev2 facts, sections 2, 3, 10, 11, 12). One side is scripted.

import { describe, expect, it } from "vitest";
import {
  AETH_BYTES,
  creditCount,
  IcrcEngine,
  IcrcFlow,
  RC,
  ROCE_PORT,
  rnrTimerNs,
  SYNDROME,
  writeAeth,
  writeImmediate,
  writeReth,
} from "../wire/index.js";
import { DROP_REASON } from "./counters.js";
import { RxBurst } from "./link.js";
import { Pair } from "./network.fixture.js";
import { QP_STATE } from "./qp-state.js";

const CODES = Array.from({ length: 32 }, (_, code) => code);
const MTU = 1024;

/** A pair whose second side is scripted: nothing reaches its device. */
function scripted(...args: ConstructorParameters<typeof Pair>): Pair {
  const pair = new Pair(...args);
  pair.fate = () => ({ drop: true });
  return pair;
}

/** What the requester sends now, as text. */
function sent(pair: Pair): string[] {
  pair.run(1);
  return pair.conversation();
}

/** The scripted side answers request PSN `psn`. */
function answer(
  pair: Pair,
  opcode: number,
  psn: number,
  syndrome: number,
  o: { msn?: number; bytes?: number; from?: number } = {},
): void {
  const { msn = 0, bytes = 0, from = 0 } = o;
  const hasAeth = opcode !== RC.READ_RESPONSE_MIDDLE;
  const packet = pair.forge(1, opcode, psn, bytes, (view, at) => {
    if (hasAeth) writeAeth(view, at, syndrome, msn);
    const payload = at + (hasAeth ? AETH_BYTES : 0);
    for (let i = 0; i < bytes; i++) view.setUint8(payload + i, (from + i) & 0xff);
  });
  pair.inject(1, 0, packet);
  pair.run(1);
}

describe("a responder with other habits", () => {
  it.each(CODES)("credit code %i in ACKs, READ responses, atomic results → no matter", (code) => {
    const pair = scripted();
    pair.write(1, 10);
    pair.read(2, 1500);
    pair.fetchAdd(3, 1);
    pair.write(4, 10);
    expect(sent(pair)).toHaveLength(4);
    answer(pair, RC.ACKNOWLEDGE, 0, code);
    answer(pair, RC.READ_RESPONSE_FIRST, 1, code, { bytes: MTU });
    answer(pair, RC.READ_RESPONSE_LAST, 2, code, { bytes: 476 });
    answer(pair, RC.ATOMIC_ACKNOWLEDGE, 3, code);
    answer(pair, RC.ACKNOWLEDGE, 4, code);
    const all = ["1 SUCCESS", "2 SUCCESS", "3 SUCCESS", "4 SUCCESS"];
    expect(pair.a.completions()).toEqual(all);
    // Credits are not obeyed: with none, too, the next request goes out (and may meet an RNR NAK).
    expect(creditCount(code)).toBeGreaterThanOrEqual(0);
    pair.send(5, 10);
    expect(sent(pair)).toEqual(["0> SEND_ONLY 5 10 !"]);
  });

  it.each([0, 1, 0x80_0000, 0xff_ffff])("MSN %i, then a smaller one → no matter", (msn) => {
    const pair = scripted();
    pair.write(1, 10);
    pair.write(2, 10);
    sent(pair);
    answer(pair, RC.ACKNOWLEDGE, 0, SYNDROME.ACK_UNLIMITED, { msn });
    answer(pair, RC.ACKNOWLEDGE, 1, SYNDROME.ACK_UNLIMITED, { msn: msn >>> 1 });
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS"]);
  });

  it("one ACK for ten messages; one for each packet; the newest PSN three times", () => {
    const pair = scripted();
    for (let i = 0; i < 10; i++) pair.write(i, 10);
    sent(pair);
    answer(pair, RC.ACKNOWLEDGE, 9, SYNDROME.ACK_UNLIMITED);
    expect(pair.a.completions()).toHaveLength(10);
    pair.write(10, 3 * MTU);
    sent(pair);
    for (const psn of [10, 11, 12]) answer(pair, RC.ACKNOWLEDGE, psn, SYNDROME.ACK_UNLIMITED);
    for (let i = 0; i < 3; i++) answer(pair, RC.ACKNOWLEDGE, 12, SYNDROME.ACK_UNLIMITED);
    expect(pair.a.completions()).toEqual(["10 SUCCESS"]);
    expect(pair.a.device.counters.drops[DROP_REASON.RESPONSE_STALE]).toBe(3);
  });

  it.each(CODES)("RNR NAK with timer code %i → sends again when that time is over", (code) => {
    const pair = scripted({ timeout: 31, rnrRetry: 7 });
    pair.send(1, 10);
    sent(pair);
    answer(pair, RC.ACKNOWLEDGE, 0, SYNDROME.RNR_NAK + code);
    const fromNs = pair.nowNs;
    pair.run(rnrTimerNs(code) - 2);
    expect(pair.conversation()).toEqual([]);
    pair.run(2);
    expect(pair.conversation()).toEqual(["0> SEND_ONLY 0 10 !"]);
    expect(pair.nowNs - fromNs).toBe(rnrTimerNs(code));
    answer(pair, RC.ACKNOWLEDGE, 0, SYNDROME.ACK_UNLIMITED);
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
  });

  it("an RNR NAK that comes behind the ACK of its request → nothing", () => {
    const pair = scripted();
    pair.send(1, 10);
    sent(pair);
    answer(pair, RC.ACKNOWLEDGE, 0, SYNDROME.ACK_UNLIMITED);
    answer(pair, RC.ACKNOWLEDGE, 0, SYNDROME.RNR_NAK + 0);
    pair.send(2, 10);
    expect(sent(pair)).toEqual(["0> SEND_ONLY 1 10 !"]);
  });

  it("an RNR NAK that comes again when the request is out again → the ACK ends the wait", () => {
    const pair = scripted({ timeout: 31 });
    pair.send(1, 10);
    sent(pair);
    answer(pair, RC.ACKNOWLEDGE, 0, SYNDROME.RNR_NAK + 1);
    pair.run(20_000);
    // The copy of the NAK comes when the request is out again.
    answer(pair, RC.ACKNOWLEDGE, 0, SYNDROME.RNR_NAK + 0);
    answer(pair, RC.ACKNOWLEDGE, 0, SYNDROME.ACK_UNLIMITED);
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
    expect(pair.a.device.deadlineNs()).toBe(Infinity);
  });

  it.each(["FIRST and LAST", "MIDDLE and LAST", "packet by packet"])(
    "a READ's tail, asked for again, as %s → the same bytes",
    (form) => {
      const pair = scripted();
      pair.read(1, 3 * MTU);
      sent(pair);
      answer(pair, RC.READ_RESPONSE_FIRST, 0, 0x1f, { bytes: MTU, from: 0 });
      pair.run(200_000_000);
      expect(pair.conversation()).toEqual(["0> READ_REQUEST 1 !"]);
      const first = form === "MIDDLE and LAST" ? RC.READ_RESPONSE_MIDDLE : RC.READ_RESPONSE_FIRST;
      answer(pair, first, 1, 0x1f, { bytes: MTU, from: MTU });
      if (form === "packet by packet") {
        // Lost again: only the last is asked for, and comes as an ONLY.
        pair.run(200_000_000);
        expect(pair.conversation()).toEqual(["0> READ_REQUEST 2 !"]);
        answer(pair, RC.READ_RESPONSE_ONLY, 2, 0x1f, { bytes: MTU, from: 2 * MTU });
      } else {
        answer(pair, RC.READ_RESPONSE_LAST, 2, 0x1f, { bytes: MTU, from: 2 * MTU });
      }
      expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
      const wanted = Uint8Array.from({ length: 3 * MTU }, (_, i) => i & 0xff);
      expect(pair.a.memory.bytes.slice(0, 3 * MTU)).toEqual(wanted);
    },
  );

  it("a sequence NAK though nothing is lost → goes back; two answers do no harm", () => {
    const pair = scripted();
    pair.write(1, 3 * MTU);
    pair.write(2, 10);
    sent(pair);
    answer(pair, RC.ACKNOWLEDGE, 1, SYNDROME.NAK_PSN_SEQUENCE);
    expect(pair.conversation().map((line) => line.split(" ")[2])).toEqual(["1", "2", "3"]);
    answer(pair, RC.ACKNOWLEDGE, 3, SYNDROME.ACK_UNLIMITED);
    answer(pair, RC.ACKNOWLEDGE, 3, SYNDROME.ACK_UNLIMITED);
    expect(pair.a.completions()).toEqual(["1 SUCCESS", "2 SUCCESS"]);
    expect(pair.qpA.state).toBe(QP_STATE.RTS);
  });

  it("a READ response between requests of the peer with the same PSNs → two sequences", () => {
    const psns = [0x123456, 0x123456] as const;
    const pair = scripted({}, {}, {}, undefined, psns);
    pair.read(1, 2 * MTU);
    sent(pair);
    const own = (psn: number) => pair.forge(1, RC.WRITE_ONLY, psn, 0, () => {});
    answer(pair, RC.READ_RESPONSE_FIRST, 0, 0x1f, { bytes: MTU });
    pair.inject(1, 0, own(0));
    pair.inject(1, 0, own(1));
    answer(pair, RC.READ_RESPONSE_LAST, 1, 0x1f, { bytes: MTU });
    expect(pair.a.completions()).toEqual(["1 SUCCESS"]);
    expect(pair.conversation()).toEqual(["0> ACKNOWLEDGE 1"]);
  });
});

/** Gives the responder packets of a scripted requester. @returns its answers as text. */
function ask(pair: Pair, ...packets: Uint8Array[]): string[] {
  pair.conversation();
  for (const packet of packets) pair.inject(0, 1, packet);
  pair.run(1);
  return pair.conversation();
}

/** A RETH that names any key and any address. */
const anyReth =
  (length: number, immediate = -1) =>
  (view: DataView, at: number) => {
    writeReth(view, at, 0xdead_beef, 0x1234_5671, 0x9999_9999, length);
    if (immediate >= 0) writeImmediate(view, at + 16, immediate);
  };

/** The same packet with another first byte pair of the BTH, pad bytes, or congestion bits. */
function changed(pair: Pair, packet: Uint8Array, change: (view: DataView) => void): Uint8Array {
  change(new DataView(packet.buffer));
  pair.seal(0, packet);
  return packet;
}

/** Host 1 gets a packet from another UDP port than 4791. */
function askFromPort(pair: Pair, packet: Uint8Array, port: number): void {
  const flow = IcrcFlow.between(pair.a.address, port, pair.b.address, ROCE_PORT);
  const view = new DataView(packet.buffer);
  new IcrcEngine().write(flow, packet, view, 0, packet.length, 0);
  const burst = new RxBurst(packet);
  const { word0, word1, word2, word3 } = pair.a.address;
  const source = { source0: word0, source1: word1, source2: word2, source3: word3 };
  Object.assign(burst, source, { sourcePort: port, length: packet.length });
  burst.segmentLength = packet.length;
  pair.b.device.onPacket(pair.nowNs, burst, 0, packet.length);
}

describe("a requester with other habits", () => {
  it.each([
    ["WRITE", RC.WRITE_ONLY, anyReth(0), "1> ACKNOWLEDGE 0"],
    ["WRITE with immediate", RC.WRITE_ONLY_IMM, anyReth(0, 7), "1> ACKNOWLEDGE 0"],
    ["READ", RC.READ_REQUEST, anyReth(0), "1> READ_RESPONSE_ONLY 0 0"],
    ["SEND", RC.SEND_ONLY, () => {}, "1> ACKNOWLEDGE 0"],
  ] as const)("%s of no bytes, any key and address → executed", (_name, opcode, fill, wanted) => {
    const pair = scripted();
    pair.receive(9, 0);
    expect(ask(pair, pair.forge(0, opcode, 0, 0, fill))).toEqual([wanted]);
    expect(pair.qpB.state).toBe(QP_STATE.RTS);
  });

  it("pad bytes that are not zero, 1 to 3 of them → not part of the message", () => {
    const pair = scripted();
    for (const [psn, length] of [5, 6, 7].entries()) {
      pair.receive(psn, 8, psn * 8);
      pair.b.memory.bytes.fill(0xee, psn * 8, psn * 8 + 8);
      const packet = changed(pair, pair.forge(0, RC.SEND_ONLY, psn, length), (view) => {
        for (let i = 12; i < view.byteLength - 4; i++) view.setUint8(i, 0xaa);
      });
      expect(ask(pair, packet)).toEqual([`1> ACKNOWLEDGE ${psn}`]);
      const got = [...pair.b.memory.bytes.slice(psn * 8, psn * 8 + 8)];
      expect(got).toEqual(Array.from({ length: 8 }, (_, i) => (i < length ? 0xaa : 0xee)));
    }
    expect(pair.b.completions()).toEqual([5, 6, 7].map((n, i) => `recv ${i} SUCCESS ${n}`));
  });

  it("AckReq on each packet, on none but a later one; SE, M, FECN, BECN → executed", () => {
    const pair = scripted();
    const bits = [0x80, 0x40, 0xc0, 0];
    for (let i = 0; i < 4; i++) pair.receive(i, 64);
    const packets = bits.map((bit, psn) =>
      changed(
        pair,
        pair.forge(0, RC.SEND_ONLY, psn, 8, () => {}, psn === 3),
        (view) => {
          view.setUint8(1, view.getUint8(1) | bit);
          view.setUint8(4, 0xc0);
        },
      ),
    );
    expect(ask(pair, ...packets)).toEqual(["1> ACKNOWLEDGE 3"]);
    expect(pair.b.completions()).toHaveLength(4);
  });

  it("a UDP source port that changes from packet to packet → executed", () => {
    const pair = scripted();
    for (const [psn, port] of [49_152, 65_535, 4791, 1024].entries()) {
      pair.receive(psn, 64);
      askFromPort(pair, pair.forge(0, RC.SEND_ONLY, psn, 8), port);
    }
    expect(pair.b.completions()).toHaveLength(4);
    expect(pair.b.device.counters.dropsTotal).toBe(0);
  });

  it("congestion notifications and opcodes from the future between packets → ignored", () => {
    const pair = scripted();
    pair.receive(1, 3 * MTU);
    const opcode = (code: number) =>
      changed(pair, pair.forge(0, RC.SEND_ONLY, 1, 16), (view) => view.setUint8(0, code));
    const strange = [0x81, 0x15, 0x1c, 0x1d, 0x1f, 0x2d, 0xa0, 0xff].map(opcode);
    const first = pair.forge(0, RC.SEND_FIRST, 0, MTU);
    const last = pair.forge(0, RC.SEND_LAST, 1, 10);
    expect(ask(pair, first, ...strange, last)).toEqual(["1> ACKNOWLEDGE 1"]);
    expect(pair.b.completions()).toEqual([`recv 1 SUCCESS ${MTU + 10}`]);
    expect(pair.b.device.counters.dropsTotal).toBe(strange.length);
  });

  it("repeats from the first packet of a message, or from its middle → executed once", () => {
    for (const from of [0, 1]) {
      const pair = scripted();
      pair.receive(1, 3 * MTU);
      const make = [
        () => pair.forge(0, RC.SEND_FIRST, 0, MTU),
        () => pair.forge(0, RC.SEND_MIDDLE, 1, MTU),
        () => pair.forge(0, RC.SEND_LAST, 2, 8),
      ];
      ask(pair, ...make.slice(0, 2).map((packet) => packet()));
      expect(ask(pair, ...make.slice(from).map((packet) => packet()))).toEqual([
        "1> ACKNOWLEDGE 2",
      ]);
      expect(ask(pair, ...make.map((packet) => packet()))).toEqual(["1> ACKNOWLEDGE 2"]);
      expect(pair.b.completions()).toEqual([`recv 1 SUCCESS ${2 * MTU + 8}`]);
    }
  });

  it("asks for a READ again in two halves, the second first → each is answered", () => {
    const pair = scripted();
    const high = Math.floor(pair.b.memory.address / 2 ** 32);
    const low = pair.b.memory.address >>> 0;
    const read = (psn: number, packets: number) =>
      pair.forge(0, RC.READ_REQUEST, psn, 0, (view, at) => {
        writeReth(view, at, high, low + psn * MTU, pair.b.key, packets * MTU);
      });
    expect(ask(pair, read(0, 4))).toHaveLength(4);
    expect(ask(pair, read(2, 2))).toEqual([
      `1> READ_RESPONSE_FIRST 2 ${MTU}`,
      `1> READ_RESPONSE_LAST 3 ${MTU}`,
    ]);
    expect(ask(pair, read(0, 2))).toEqual([
      `1> READ_RESPONSE_FIRST 0 ${MTU}`,
      `1> READ_RESPONSE_LAST 1 ${MTU}`,
    ]);
  });
});

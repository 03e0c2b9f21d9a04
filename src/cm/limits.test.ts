// SPDX-License-Identifier: MIT
// Whatever arrives, the state that it makes here is bounded.
import { describe, expect, it } from "vitest";
import { IpAddress, SeededRandom } from "../base/index.js";
import {
  MS,
  NOTHING,
  OWN,
  PEER,
  PORT,
  repTo,
  reqFrom,
  Script,
  sidrReqFrom,
  withHeader,
} from "./script.fixture.js";

const reqOf = (number: number, source = PEER) =>
  reqFrom({
    localCommId: number,
    qpn: number & 0xff_ffff,
    privateData: withHeader(source, OWN, NOTHING),
    primary: { ...reqFrom().primary, localGid: source },
  });

describe("bounds", () => {
  it("a flood of REQs from one address → no more than its share half open; others get in", () => {
    const script = new Script({ halfOpenMax: 20, halfOpenPerSourceMax: 8 });
    script.channel.listen({ address: null, port: PORT, backlog: 1000 });
    for (let i = 1; i <= 100; i++) script.say(reqOf(i));
    expect(script.takeEvents().length).toBe(8);
    expect(script.host.cm.counters.drops.HALF_OPEN_LIMIT).toBe(92);
    const stranger = IpAddress.parse("192.0.2.77");
    script.say(reqOf(1, stranger), { source: stranger });
    script.expect({ events: ["CONNECT_REQUEST"] });
  });

  it("a flood from forged addresses → no more than halfOpenMax, until they are answered", () => {
    const script = new Script({ halfOpenMax: 20 });
    script.channel.listen({ address: null, port: PORT, backlog: 1000 });
    const forged = (i: number) => IpAddress.v4(0x0a00_0000 + i);
    for (let i = 1; i <= 100; i++) script.say(reqOf(i, forged(i)), { source: forged(i) });
    const events = script.takeEvents();
    expect(events.length).toBe(20);
    for (const { id } of events) id.reject();
    script.takeSent();
    script.say(reqOf(1));
    script.expect({ events: ["CONNECT_REQUEST"] });
  });

  it("the backlog of a listener → further requests are ignored until one is answered", () => {
    const script = new Script();
    script.channel.listen({ address: null, port: PORT, backlog: 2 });
    for (let i = 1; i <= 5; i++) script.say(reqOf(i));
    const [first] = script.expect({ events: ["CONNECT_REQUEST", "CONNECT_REQUEST"] });
    expect(script.host.cm.counters.drops.BACKLOG).toBe(3);
    first?.id.destroy();
    script.say(reqOf(3));
    script.expect({ sent: ["REJ 28 CONSUMER_REJECT of REQ"], events: ["CONNECT_REQUEST"] });
  });

  it("requests that were refused → remembered for a while, no more than lingerCountMax", () => {
    const script = new Script({ lingerCountMax: 10 });
    script.channel.listen({ address: null, port: PORT });
    for (let i = 1; i <= 50; i++) {
      script.say(reqOf(i));
      for (const { id } of script.takeEvents()) id.destroy();
      script.pump();
    }
    expect(script.host.cm.liveCount).toBe(11);
    script.takeSent();
    // The newest is still known, the oldest not.
    script.say(reqOf(50));
    script.expect({ sent: ["REJ 28 CONSUMER_REJECT of REQ"] });
    script.say(reqOf(1));
    script.expect({ events: ["CONNECT_REQUEST"] });
  });

  it("connectionMax → ENOMEM for us, silence for peers", () => {
    const script = new Script({ connectionMax: 2 });
    script.listen();
    script.connecting();
    script.connecting();
    expect(() => script.activeId().connect()).toThrow(/connectionMax/);
    script.say(reqFrom());
    script.expect();
  });

  it("options out of range → EINVAL naming them", () => {
    expect(() => new Script({ ackTimeout: 0 })).toThrow(/ackTimeout can't be 0/);
    expect(() => new Script({ minRnrTimer: 32 })).toThrow(/minRnrTimer/);
    expect(() => new Script({ halfOpenMax: -1 })).toThrow(/halfOpenMax/);
    expect(() => new Script({ repeatNsMin: 1 })).toThrow(/repeatNsMin/);
    expect(() => new Script({ repeatNsMax: 2 * MS })).toThrow(/repeatNsMax/);
    expect(() => new Script({ connectTimeoutNs: Number.NaN })).toThrow(/connectTimeoutNs/);
  });

  it("20,000 mutated and random MADs → nothing thrown, nothing broken, nothing unbounded", () => {
    const script = new Script({ halfOpenMax: 64, lingerCountMax: 64, connectionMax: 256 });
    const random = new SeededRandom(7);
    script.channel.listen({ address: null, port: PORT });
    script.channel.listen({ address: null, port: PORT, portSpace: "UDP" });
    const active = script.connecting();
    const established = script.connected({ localCommId: 0x2002, qpn: 0x19 });
    const heard: Uint8Array[] = [];
    const collect = () => heard.push(...script.host.port.sent.splice(0).map((mad) => mad.bytes));
    const samples = [
      reqFrom(),
      sidrReqFrom(),
      repTo({ ...reqFrom(), localCommId: active.connection?.localCommId ?? 0 }),
      {
        kind: "DREQ",
        localCommId: 0x2002,
        remoteCommId: established.connection?.localCommId ?? 0,
        remoteQpn: 0,
        privateData: NOTHING,
      },
    ] as const;
    for (const sample of samples) script.say(sample);
    const seeds = script.host.port.inbox;
    expect(seeds.length).toBe(0);
    let known = samples.map((sample) => script.encode(sample));
    for (let round = 0; round < 20_000; round++) {
      const base = known[random.nextU32() % known.length] as Uint8Array;
      const mad = base.slice();
      for (let flips = random.nextU32() % 4; flips > 0; flips--) {
        const at = random.nextU32() % 256;
        mad[at] = (mad[at] as number) ^ (1 << (random.nextU32() % 8));
      }
      // Bytes 16 and 17 are the attribute: any message may pose as any other.
      if (random.nextU32() % 8 === 0) mad[17] = 0x10 + (random.nextU32() % 10);
      script.deliver(mad);
      if (round % 16 === 0) script.nowNs += 50 * MS;
      script.host.cm.pump(script.nowNs);
      if (round % 100 === 0) script.host.cm.checkInvariants();
      for (const { id, type } of script.takeEvents()) {
        if (type === "CONNECT_REQUEST" && random.nextU32() % 4 === 0) {
          id.bindQp(script.host.createQp(id.portSpace === "TCP" ? "RC" : "UD"));
          id.accept();
          id.qp?.destroy();
        }
        if (random.nextU32() % 2 === 0) id.destroy();
      }
      collect();
      // What we say comes back to us too, as an attacker would do.
      if (heard.length > 64) known = [...known.slice(0, 4), ...heard.splice(0).slice(-16)];
    }
    script.host.cm.checkInvariants();
    expect(script.host.cm.liveCount).toBeLessThanOrEqual(256 * 2 + 2);
    script.channel.close();
    script.wait(120_000 * MS);
    expect(script.host.cm.liveCount).toBe(0);
  });
});

// SPDX-License-Identifier: MIT
// Counters of a queue pair: each event is counted on exactly the queue pair that it belongs to, and
// what an outsider sends is counted on none.

import { describe, expect, it } from "vitest";
import { counterValues, DROP_REASON, type QpCounterValues } from "./counters.js";
import { type Host, Pair } from "./network.fixture.js";
import type { QpCore } from "./queue-pair.js";

const of = (qp: QpCore): QpCounterValues => counterValues(qp.counters);

/** A second queue pair that takes no part: whatever is counted on it is wrong. */
function bystander(host: Host): QpCore {
  return host.createQp();
}

const UNTOUCHED = counterValues(bystander(new Pair().a).counters);

describe("counters of a queue pair", () => {
  it("a write, one packet lost → packets, bytes, NAK, retransmissions on both sides", () => {
    const pair = new Pair();
    const other = bystander(pair.b);
    pair.lose(3);
    pair.write(1, 5000);
    pair.runToRest();
    const bytesOf = (from: number) =>
      pair.log.filter((p) => p.from === from).reduce((sum, p) => sum + p.bytes.length, 0);
    expect(of(pair.qpA)).toMatchObject({
      packetsSent: 8,
      bytesSent: bytesOf(0),
      packetsReceived: 2,
      bytesReceived: bytesOf(1),
      packetsRetransmitted: 3,
      sequenceNaksReceived: 1,
      sequenceNaksSent: 0,
      timeouts: 0,
    });
    expect(of(pair.qpB)).toMatchObject({
      packetsSent: 2,
      packetsReceived: 7,
      sequenceNaksSent: 1,
      outOfSequence: 2,
      acksSent: 1,
      drops: { OUT_OF_SEQUENCE: 2 },
    });
    expect(of(other)).toEqual(UNTOUCHED);
    // One queue pair on the device that sent: the device counts the same.
    expect(pair.a.device.counters.bytesSent).toBe(bytesOf(0));
  });

  it("a lost last packet → timeout, duplicates; with probes a probe and no timeout", () => {
    const pair = new Pair();
    pair.lose(3);
    pair.write(1, 2500);
    pair.runToRest();
    expect(of(pair.qpA)).toMatchObject({ timeouts: 1, packetsRetransmitted: 3, probes: 0 });
    expect(of(pair.qpB).duplicateRequests).toBe(2);
    const probing = new Pair({}, { probes: true });
    probing.write(1, 100);
    probing.runToRest();
    probing.lose(3);
    probing.write(2, 100);
    probing.runToRest();
    expect(of(probing.qpA)).toMatchObject({ timeouts: 0, probes: 1 });
  });

  it("no receive posted → RNR NAKs on both sides, then the request given up", () => {
    const pair = new Pair({ rnrRetry: 2 });
    pair.send(1, 32);
    pair.runToRest();
    expect(pair.a.completions()).toEqual(["1 RNR_RETRY_EXC_ERR"]);
    expect(of(pair.qpA)).toMatchObject({ rnrNaksReceived: 3, retriesExceeded: 1 });
    expect(of(pair.qpB).rnrNaksSent).toBe(3);
  });

  it("a bad key; a READ that is not allowed → access and invalid request NAKs by kind", () => {
    const pair = new Pair();
    pair.write(1, 16, { rkey: pair.b.key ^ 1 });
    pair.runToRest();
    expect(of(pair.qpA)).toMatchObject({ accessNaksReceived: 1, invalidRequestNaksReceived: 0 });
    expect(of(pair.qpB)).toMatchObject({ accessNaksSent: 1, operationalNaksSent: 0 });
    const refused = new Pair({ maxDestRdAtomic: 0 });
    refused.read(1, 16);
    refused.runToRest();
    expect(of(refused.qpA)).toMatchObject({ invalidRequestNaksReceived: 1 });
    expect(of(refused.qpB)).toMatchObject({ invalidRequestNaksSent: 1 });
  });

  it("a spoiled packet → an ICRC hint on the queue pair, an ICRC error on the port", () => {
    const pair = new Pair();
    pair.fate = ({ number }) =>
      number === 1 ? { alter: (view) => view.setUint8(40, view.getUint8(40) ^ 1) } : null;
    pair.write(1, 100);
    pair.runToRest();
    expect(of(pair.qpB)).toMatchObject({ icrcErrors: 1, packetsReceived: 1 });
    expect(Array.from(pair.b.device.counters.portIcrcErrors)).toEqual([1]);
  });

  it("a packet from another address → counted by the device alone", () => {
    const pair = new Pair();
    const packet = pair.forge(1, 0x0a, 0, 16);
    // B's packet with B as its destination, so from the wrong address for A's peer.
    pair.inject(0, 0, packet);
    expect(pair.a.device.counters.drops[DROP_REASON.ADDRESS]).toBe(1);
    expect(of(pair.qpA)).toEqual(UNTOUCHED);
  });

  it("destroy → the counters can still be read", () => {
    const pair = new Pair();
    pair.write(1, 100);
    pair.runToRest();
    pair.a.device.destroyQp(pair.qpA);
    expect(of(pair.qpA).packetsSent).toBe(1);
    expect(pair.a.device.queuePairs()).toEqual([]);
  });
});

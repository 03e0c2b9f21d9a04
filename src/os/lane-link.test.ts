// SPDX-License-Identifier: MIT
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { IpAddress } from "../base/index.js";
import { TxBatch } from "../transport/index.js";
import { REJ_REASON, STEERING_AT, STEERING_ATTRIBUTE, type Steering } from "../wire/index.js";
import type { LaneSockets, OsLink, Poller } from "./index.js";
import { bindLaneSockets, foreignCallsUnavailable, openLink, openPoller } from "./index.js";
import { freeLaneBox, type LaneBox, makeLaneBox } from "./lane-box.js";
import { LaneLink } from "./lane-link.js";

const ADDRESS = "127.0.0.25";
const STEERING: Steering = { laneCount: 2, pinnedPort: 0 };
const MS = 1_000_000;

interface OpenLane {
  readonly poller: Poller;
  readonly link: LaneLink;
}

/** QPN and a serial number of every packet that a lane is shown. */
function packetsOf({ poller, link }: OpenLane): string[] {
  poller.poll();
  const packets: string[] = [];
  for (let count = link.readable ? link.receive() : 0; count > 0; count = link.receive()) {
    for (const { view, offset, length, segmentLength } of link.bursts.slice(0, count)) {
      for (let at = offset; at < offset + length; at += segmentLength) {
        packets.push(`${view.getUint32(at + 4)}:${view.getUint32(at + 8)}`);
      }
    }
    poller.poll();
    if (!link.readable) break;
  }
  return packets;
}

let sockets: LaneSockets;
let boxes: LaneBox[];
let lanes: OpenLane[];
let sender: OsLink;
let senderPoller: Poller;
async function openLanes(): Promise<void> {
  sockets = bindLaneSockets({ addresses: [ADDRESS], steering: STEERING, port: 0 });
  boxes = [makeLaneBox(), makeLaneBox()];
  lanes = [];
  for (const [index, own] of sockets.lanes.entries()) {
    const poller = openPoller("native");
    const inner = await openLink({ addresses: [ADDRESS], poller, sockets: own });
    const lane = { index, count: 2 };
    lanes.push({
      poller,
      link: new LaneLink(inner, { lane, steering: STEERING, boxes, poller }),
    });
  }
  senderPoller = openPoller("native");
  sender = await openLink({ addresses: ["127.0.0.26"], poller: senderPoller, port: 0 });
}

function closeLanes(): void {
  for (const { link, poller } of lanes) {
    link.close();
    poller.close();
  }
  for (const box of boxes) freeLaneBox(box);
  sockets.close();
  sender.close();
  senderPoller.close();
}

/** One GSO send of packets to these queue pairs. */
function send(qpns: readonly number[], fill: (view: DataView, at: number) => void = () => {}) {
  const batch = new TxBatch(new Uint8Array(65_536));
  const destination = IpAddress.parse(ADDRESS);
  const port = lanes[0]?.link.port as number;
  const flow = { port: 0, destination, destinationPort: port, trafficClass: 0 };
  for (const [serial, qpn] of qpns.entries()) {
    const at = batch.reserve(flow, 280);
    batch.view.setUint32(at + STEERING_AT.QPN, qpn);
    batch.view.setUint32(at + 8, serial);
    fill(batch.view, at);
    batch.commit();
  }
  expect(batch.messageCount).toBe(1);
  expect(sender.send(batch)).toBe(1);
}

describe.skipIf(foreignCallsUnavailable() !== null)("a lane's link", () => {
  beforeEach(openLanes);
  afterEach(closeLanes);

  it("a burst of one lane → that lane alone, handed on by nobody", () => {
    send([17, 19, 21]);
    expect(packetsOf(lanes[0] as OpenLane)).toEqual([]);
    expect(packetsOf(lanes[1] as OpenLane)).toEqual(["17:0", "19:1", "21:2"]);
    for (const { link } of lanes) expect(link.counters).toMatchObject({ handedOn: 0 });
  });

  it("a burst that mixes lanes → each its own, in order; the other lane is woken", async () => {
    send([16, 17, 18, 20, 19, 22]);
    const [first, second] = lanes as [OpenLane, OpenLane];
    const woken = second.poller.wait(5000 * MS);
    expect(packetsOf(first)).toEqual(["16:0", "18:2", "20:3", "22:5"]);
    expect(first.link.counters).toMatchObject({ handedOn: 1, handedOnLost: 0 });
    const startMs = performance.now();
    await woken;
    expect(performance.now() - startMs).toBeLessThan(4000);
    expect(packetsOf(second)).toEqual(["17:1", "19:4"]);
    expect(second.link.counters).toMatchObject({ handedOn: 0 });
    expect(packetsOf(first)).toEqual([]);
  });

  it("a REJ of one that knows no comm id of ours → every lane", () => {
    send([1], (view, at) => {
      view.setUint16(at + STEERING_AT.ATTRIBUTE, STEERING_ATTRIBUTE.REJ);
      view.setUint16(at + STEERING_AT.REMOTE_COMM_ID + 6, REJ_REASON.TIMEOUT);
    });
    for (const lane of lanes) expect(packetsOf(lane)).toEqual(["1:0"]);
  });

  it("more than a box holds → counted as lost, and the box goes on", () => {
    const [first, second] = lanes as [OpenLane, OpenLane];
    for (let i = 0; i < 12; i++) send([16, 17]);
    expect(packetsOf(first)).toHaveLength(12);
    expect(first.link.counters).toMatchObject({ handedOn: 8, handedOnLost: 4 });
    expect(packetsOf(second)).toHaveLength(8);
    send([16, 17]);
    packetsOf(first);
    expect(packetsOf(second)).toEqual(["17:1"]);
  });
});

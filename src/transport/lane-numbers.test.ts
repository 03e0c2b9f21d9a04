// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { IpAddress, SeededRandom } from "../base/index.js";
import { Device } from "./device.js";
import { QP_TYPE } from "./qp-state.js";

describe("the device of a lane", () => {
  it("every queue pair has a number of the lane, unlike any other", () => {
    const device = new Device({
      addresses: [IpAddress.parse("192.0.2.1")],
      linkMtus: [1500],
      random: new SeededRandom(1),
      lane: { index: 2, count: 3 },
    });
    const cq = device.createCq(16);
    const init = { pdIndex: 0, sendCq: cq, recvCq: cq, maxSendWr: 1, maxRecvWr: 1 };
    const qpns = new Set<number>();
    for (let i = 0; i < 500; i++) qpns.add(device.createQp({ type: QP_TYPE.RC, ...init }).qpn);
    expect(qpns.size).toBe(500);
    for (const qpn of qpns) expect(qpn % 3).toBe(2);
  });
});

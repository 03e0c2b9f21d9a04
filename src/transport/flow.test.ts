// SPDX-License-Identifier: MIT
// The flows of a device: bounded, and those that are used stay.

import { describe, expect, it } from "vitest";
import { IpAddress } from "../base/index.js";
import { WaitLinks } from "./byte-window.js";
import { FlowTable } from "./flow.js";

const COUNT_MAX = 4;

function table(): FlowTable {
  return new FlowTable([IpAddress.parse("10.0.0.1")], 1 << 20, COUNT_MAX, new WaitLinks(4));
}

/** The `index`-th of many strangers. */
function stranger(index: number): IpAddress {
  return IpAddress.parse(`10.1.${index >> 8}.${index & 255}`);
}

describe("table of flows", () => {
  it("a flow that is asked for now and then outlives any number of strangers", () => {
    const flows = table();
    const peer = IpAddress.parse("10.0.0.2");
    const flow = flows.flow(0, peer, 0);
    for (let i = 0; i < 100; i++) {
      flows.flow(0, stranger(i), 0);
      expect(flows.flow(0, peer, 0)).toBe(flow);
    }
  });

  it("a window in use stays, though nobody asks for its flow any more", () => {
    const flows = table();
    const peer = IpAddress.parse("10.0.0.2");
    const { window } = flows.flow(0, peer, 0);
    window.userCount++;
    for (let i = 0; i < 100; i++) flows.flow(0, stranger(i), 0);
    expect(flows.flow(0, peer, 8).window).toBe(window);
    window.userCount--;
    for (let i = 0; i < 100; i++) flows.flow(0, stranger(i), 0);
    expect(flows.flow(0, peer, 0).window).not.toBe(window);
  });

  it("windows in use may be more than the table holds; the others still go", () => {
    const flows = table();
    const used = Array.from({ length: 2 * COUNT_MAX }, (_, i) => {
      const { window } = flows.flow(0, stranger(i), 0);
      window.userCount++;
      return window;
    });
    const other = flows.flow(0, stranger(100), 0).window;
    flows.flow(0, stranger(101), 0);
    expect(used.map((_, i) => flows.flow(0, stranger(i), 0).window)).toEqual(used);
    expect(flows.flow(0, stranger(100), 0).window).not.toBe(other);
  });
});

// SPDX-License-Identifier: MIT

import { describe, expect, it } from "vitest";
import { EXCHANGES, exchange } from "./pages-orders.fixture.js";
import { WR_OPCODE } from "./work-request.js";

describe("a page goes before each packet of an exchange in turn", () => {
  it.each(EXCHANGES)("%s", (_name, opcode, side) => {
    const packets = exchange(opcode, side, 0, () => false);
    let slower = 0;
    for (let first = 0; first < packets; first++) {
      // Of the two pages the one that this packet, or one soon after it, is about.
      const page = first < packets / 2 ? 0 : 1;
      const isAway = (i: number) => i === first || i === first + 1;
      const took = exchange(opcode, side, opcode < WR_OPCODE.RDMA_READ ? page : 0, isAway);
      if (took > packets) slower++;
    }
    // Sources of requests are only waited for; everything else is seen on the wire.
    if (side === 1 && opcode !== WR_OPCODE.RDMA_READ) expect(slower).toBeGreaterThan(0);
  });
});

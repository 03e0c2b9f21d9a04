// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { PAGE_BYTES } from "./index.js";
import { codeOf, managerOf, RW } from "./space.fixture.js";

describe("AddressSpace: many mappings", () => {
  it("as many areas as there can be, no more", () => {
    const space = managerOf(8).createSpace();
    const map = (i: number) =>
      space.map({ length: PAGE_BYTES, prot: RW, address: 0x100_0000 + i * 2 * PAGE_BYTES });
    let count = 0;
    const fill = () => {
      for (;;) map(count++);
    };
    expect(codeOf(fill)).toBe("ENOMEM");
    expect(space.vmas.count).toBe(65_528);
    const whole = space.map.bind(space, { length: PAGE_BYTES, prot: RW });
    expect(codeOf(whole)).toBe("ENOMEM");
    space.exit();
    expect(space.vmas.count).toBe(0);
  });
});

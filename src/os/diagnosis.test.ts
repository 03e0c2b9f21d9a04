// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { IpAddress } from "../base/index.js";
import { socketInodes } from "./diagnosis.js";

describe("socketInodes", () => {
  const TABLE_V4 = [
    "  sl  local_address rem_address   st tx_queue rx_queue tr:when retrnsmt uid timeout inode",
    " 100: 0100007F:12B7 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 111 2",
    " 101: 00000000:12B7 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 222 2",
    " 102: 0100007F:12B8 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 333 2",
    " 103: 0200007F:12B7 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 444 2",
    "",
  ].join("\n");
  const TABLE_V6 = [
    "header",
    " 5: B80D0120000000000000000001000000:12B7 0:0 07 0:0 0:0 0     0        0 555 2",
    " 6: 00000000000000000000000000000000:12B7 0:0 07 0:0 0:0 0     0        0 666 2",
    " 7: garbage",
  ].join("\n");

  it("the same address or all of them, the same port → the sockets in the way", () => {
    expect(socketInodes(TABLE_V4, IpAddress.parse("127.0.0.1"), 4791)).toEqual([111, 222]);
    expect(socketInodes(TABLE_V4, IpAddress.parse("127.0.0.9"), 4792)).toEqual([]);
    expect(socketInodes(TABLE_V6, IpAddress.parse("2001:db8::1"), 4791)).toEqual([555, 666]);
    expect(socketInodes(TABLE_V6, IpAddress.parse("127.0.0.1"), 4791)).toEqual([666]);
    expect(socketInodes("", IpAddress.parse("127.0.0.1"), 4791)).toEqual([]);
  });
});

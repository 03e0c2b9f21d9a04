// SPDX-License-Identifier: MIT

import { describe, expect, it } from "vitest";
import { NBD_OPTION, NBD_REPLY_OPTION, NBD_TRANSMISSION_FLAG } from "../wire/index.js";
import {
  ascii,
  type Client,
  contextData,
  infoData,
  join,
  option,
  parseOptionReplies,
  Rig,
  words,
} from "./client.fixture.js";
import { TestDisk } from "./disk.fixture.js";

const OPTION = NBD_OPTION;
const REPLY = NBD_REPLY_OPTION;
const NOTHING = new Uint8Array(0);

/** A client whose greeting has been read and whose flags have been sent. */
function greeted(rig: Rig, flags = 3): Client {
  const client = rig.connect();
  client.stream.say(words(flags));
  rig.settle();
  client.stream.takeOutput();
  return client;
}

/** Sends one option; the types of the replies, and the replies. */
function haggle(rig: Rig, client: Client, type: number, data: Uint8Array = NOTHING) {
  client.stream.say(option(type, data));
  rig.settle();
  const replies = parseOptionReplies(client.stream.takeOutput());
  for (const reply of replies) expect(reply.option).toBe(type);
  return replies;
}

const typesOf = (replies: readonly { type: number }[]) => replies.map((reply) => reply.type);

describe("NBD greeting", () => {
  it("comes before the client says anything, byte for byte", () => {
    const rig = new Rig();
    const client = rig.connect();
    rig.settle();
    expect(client.stream.takeOutput()).toEqual(
      join([ascii("NBDMAGICIHAVEOPT"), Uint8Array.of(0, 3)]),
    );
  });

  it.each([4, 0x8000_0003])(
    "client flags %i that nobody offered → the connection ends",
    (flags) => {
      const rig = new Rig();
      const client = greeted(rig, flags);
      expect(client.connection.closeReason).toBe("BAD_CLIENT_FLAGS");
      expect(rig.server.isIdle).toBe(true);
    },
  );

  it("something that is no option → the connection ends, the next one is served", () => {
    const rig = new Rig();
    const client = greeted(rig);
    client.stream.say(ascii("GET / HTTP/1.1\r\n\r\n"));
    rig.settle();
    expect(client.connection.closeReason).toBe("BAD_OPTION_MAGIC");
    expect(client.stream.isClosed).toBe(true);
    expect(rig.enter("simple").connection.exportName).toBe("disk");
  });

  it("nothing chosen in time → the connection ends; one that has chosen stays", () => {
    const rig = new Rig();
    const chosen = rig.enter("simple");
    const idle = greeted(rig);
    expect(rig.server.deadlineNs()).toBe(idle.connection.handshakeDeadlineNs);
    rig.nowNs = idle.connection.handshakeDeadlineNs;
    rig.settle();
    expect(idle.connection.closeReason).toBe("HANDSHAKE_TIMEOUT");
    expect(chosen.connection.closeReason).toBe(null);
    expect(rig.server.deadlineNs()).toBe(Number.POSITIVE_INFINITY);
  });
});

describe("NBD_OPT_EXPORT_NAME", () => {
  it.each([
    [3, 10],
    [1, 134],
    [0, 134],
  ])("client flags %i → size, flags and zeroes in %i bytes", (flags, length) => {
    const rig = new Rig();
    const client = greeted(rig, flags);
    client.stream.say(option(OPTION.EXPORT_NAME, ascii("disk")));
    rig.settle();
    const output = client.stream.takeOutput();
    expect(output.length).toBe(length);
    const flag = NBD_TRANSMISSION_FLAG;
    const view = new DataView(output.buffer);
    expect(view.getUint32(0)).toBe(0);
    expect(view.getUint32(4)).toBe(1 << 20);
    expect(view.getUint16(8)).toBe(
      flag.HAS_FLAGS |
        flag.SEND_FLUSH |
        flag.SEND_FUA |
        flag.SEND_TRIM |
        flag.SEND_WRITE_ZEROES |
        flag.SEND_FAST_ZERO |
        flag.SEND_CACHE |
        flag.CAN_MULTI_CONN,
    );
    expect(output.subarray(10).every((byte) => byte === 0)).toBe(true);
    expect(client.connection.exportName).toBe("disk");
  });

  it("the empty name is the first export", () => {
    const rig = new Rig();
    const client = greeted(rig);
    client.stream.say(option(OPTION.EXPORT_NAME));
    rig.settle();
    expect(client.connection.exportName).toBe("disk");
  });

  it.each([ascii("nope"), Uint8Array.of(0xff, 0xfe), new Uint8Array(5000), new Uint8Array(20_000)])(
    "a name that isn't served → the connection ends without a word (%#)",
    (name) => {
      const rig = new Rig();
      const client = greeted(rig);
      client.stream.say(option(OPTION.EXPORT_NAME, name));
      rig.settle();
      expect(client.connection.closeReason).toBe("NO_SUCH_EXPORT");
      expect(client.stream.takeOutput().length).toBe(0);
    },
  );
});

describe("NBD_OPT_INFO and NBD_OPT_GO", () => {
  it.each([OPTION.INFO, OPTION.GO])("option %i → export, block sizes, then ACK", (type) => {
    const disk = new TestDisk({ logicalBlockBytes: 1024, physicalBlockBytes: 16_384 });
    const rig = new Rig(disk);
    const client = greeted(rig);
    const replies = haggle(rig, client, type, infoData("disk"));
    expect(typesOf(replies)).toEqual([REPLY.INFO, REPLY.INFO, REPLY.ACK]);
    expect(replies[0]?.data.subarray(0, 10)).toEqual(Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 16, 0, 0));
    expect(replies[1]?.data).toEqual(join([Uint8Array.of(0, 3), words(1024, 16_384, 1 << 19)]));
    expect(client.connection.exportName).toBe(type === OPTION.GO ? "disk" : null);
  });

  it("name and description come when asked for; the default export tells its own name", () => {
    const rig = new Rig();
    const client = greeted(rig);
    const replies = haggle(rig, client, OPTION.INFO, infoData("", [1, 2, 3, 77]));
    expect(typesOf(replies)).toEqual([REPLY.INFO, REPLY.INFO, REPLY.INFO, REPLY.INFO, REPLY.ACK]);
    expect(replies[2]?.data).toEqual(join([Uint8Array.of(0, 1), ascii("disk")]));
    expect(replies[3]?.data).toEqual(join([Uint8Array.of(0, 2), ascii("a test disk")]));
  });

  it("DF is offered once structured replies are agreed on, not before", () => {
    const rig = new Rig();
    const client = greeted(rig);
    const flags = () => haggle(rig, client, OPTION.INFO, infoData("disk"))[0]?.data[11] ?? -1;
    expect(flags() & NBD_TRANSMISSION_FLAG.SEND_DF).toBe(0);
    haggle(rig, client, OPTION.STRUCTURED_REPLY);
    expect(flags() & NBD_TRANSMISSION_FLAG.SEND_DF).not.toBe(0);
  });

  it("a size that is no whole number of blocks is told in whole blocks", () => {
    const rig = new Rig(new TestDisk({ sizeBytes: 5000 }));
    const client = greeted(rig);
    const replies = haggle(rig, client, OPTION.INFO, infoData("disk"));
    expect(new DataView(replies[0]?.data.buffer as ArrayBuffer).getUint32(6)).toBe(4608);
  });

  const long = new Uint8Array(4097).fill(97);
  it.each([
    ["too short", new Uint8Array(5), REPLY.ERR_INVALID],
    ["a name longer than the option", join([words(7), ascii("disk"), words(0)]), REPLY.ERR_INVALID],
    ["a huge length", join([words(0xffffffff), ascii("disk")]), REPLY.ERR_INVALID],
    [
      "kinds missing",
      join([infoData("disk").subarray(0, 8), Uint8Array.of(0, 2, 0, 1)]),
      REPLY.ERR_INVALID,
    ],
    ["bytes left over", join([infoData("disk"), Uint8Array.of(0)]), REPLY.ERR_INVALID],
    ["a name too long", join([words(4097), long, Uint8Array.of(0, 0)]), REPLY.ERR_INVALID],
    ["a name not served", infoData("nope"), REPLY.ERR_UNKNOWN],
  ])("%s → refused, and the haggling goes on", (_title, data, error) => {
    const rig = new Rig();
    const client = greeted(rig);
    expect(typesOf(haggle(rig, client, OPTION.GO, data))).toEqual([error]);
    haggle(rig, client, OPTION.GO, infoData("disk"));
    expect(client.connection.exportName).toBe("disk");
    expect(rig.server.counters.optionErrors).toBe(1);
  });
});

describe("NBD options", () => {
  it("LIST names every export with its description, then ACK", () => {
    const rig = new Rig();
    rig.exports.add("b\u00e9", new TestDisk());
    const replies = haggle(rig, greeted(rig), OPTION.LIST);
    expect(typesOf(replies)).toEqual([REPLY.SERVER, REPLY.SERVER, REPLY.ACK]);
    expect(replies[0]?.data).toEqual(join([words(4), ascii("diska test disk")]));
    expect(replies[1]?.data).toEqual(join([words(3), Uint8Array.of(98, 0xc3, 0xa9)]));
  });

  it("more exports than the answer has room for → LIST is refused, GO is not", () => {
    const rig = new Rig();
    for (let i = 0; i < 10; i++) rig.exports.add(`${i}${"x".repeat(4000)}`, rig.disk);
    const client = greeted(rig);
    expect(typesOf(haggle(rig, client, OPTION.LIST))).toEqual([REPLY.ERR_TOO_BIG]);
    expect(haggle(rig, client, OPTION.GO, infoData("disk")).length).toBe(3);
  });

  it("ABORT → ACK, then the end", () => {
    const rig = new Rig();
    const client = greeted(rig);
    expect(typesOf(haggle(rig, client, OPTION.ABORT))).toEqual([REPLY.ACK]);
    expect(client.connection.closeReason).toBe("ABORTED");
  });

  it.each([
    ["STARTTLS", OPTION.STARTTLS, NOTHING, REPLY.ERR_UNSUP],
    ["PEEK_EXPORT", OPTION.PEEK_EXPORT, ascii("disk"), REPLY.ERR_UNSUP],
    ["one from the future", 0x7fff_0001, new Uint8Array(500), REPLY.ERR_UNSUP],
    ["one from the future, too long to look at", 99, new Uint8Array(100_000), REPLY.ERR_UNSUP],
    ["a known one, too long to look at", OPTION.INFO, new Uint8Array(100_000), REPLY.ERR_TOO_BIG],
    ["LIST with data", OPTION.LIST, Uint8Array.of(1), REPLY.ERR_INVALID],
    ["STRUCTURED_REPLY with data", OPTION.STRUCTURED_REPLY, Uint8Array.of(1), REPLY.ERR_INVALID],
    ["EXTENDED_HEADERS with data", OPTION.EXTENDED_HEADERS, Uint8Array.of(1), REPLY.ERR_INVALID],
  ])("%s → refused, its data skipped, and the haggling goes on", (_title, type, data, error) => {
    const rig = new Rig();
    const client = greeted(rig);
    expect(typesOf(haggle(rig, client, type, data))).toEqual([error]);
    expect(typesOf(haggle(rig, client, OPTION.LIST)).at(-1)).toBe(REPLY.ACK);
  });

  it("an option longer than sense → the connection ends", () => {
    const rig = new Rig();
    const client = greeted(rig);
    client.stream.say(option(99).subarray(0, 12), words(0xffff_fff0));
    rig.settle();
    expect(client.connection.closeReason).toBe("OPTION_TOO_LONG");
  });

  it("options without end → the connection ends", () => {
    const rig = new Rig();
    const client = greeted(rig);
    for (let i = 0; i < 4097; i++) client.stream.say(option(99));
    rig.settle();
    expect(client.connection.closeReason).toBe("TOO_MANY_OPTIONS");
  });

  it.each([
    [[OPTION.STRUCTURED_REPLY], [REPLY.ACK]],
    [[OPTION.EXTENDED_HEADERS], [REPLY.ACK]],
    [
      [OPTION.STRUCTURED_REPLY, OPTION.STRUCTURED_REPLY, OPTION.EXTENDED_HEADERS],
      [REPLY.ACK, REPLY.ERR_INVALID, REPLY.ACK],
    ],
    [
      [OPTION.EXTENDED_HEADERS, OPTION.EXTENDED_HEADERS, OPTION.STRUCTURED_REPLY],
      [REPLY.ACK, REPLY.ERR_INVALID, REPLY.ERR_EXT_HEADER_REQD],
    ],
  ])("options %j about the form of replies → %j", (types, expected) => {
    const rig = new Rig();
    const client = greeted(rig);
    expect(types.map((type) => haggle(rig, client, type)[0]?.type)).toEqual(expected);
  });

  it("options sent all at once are answered one by one, in order", () => {
    const rig = new Rig();
    const client = greeted(rig);
    client.stream.say(option(77), option(OPTION.LIST), option(OPTION.GO, infoData("disk")));
    rig.settle();
    const replies = parseOptionReplies(client.stream.takeOutput());
    expect(replies.map((reply) => reply.option)).toEqual([77, 3, 3, 7, 7, 7]);
  });
});

describe("NBD metadata contexts", () => {
  const ALL = "base:allocation";
  it.each([
    ["LIST, no query", OPTION.LIST_META_CONTEXT, [], 1],
    ["LIST, the namespace", OPTION.LIST_META_CONTEXT, ["base:"], 1],
    ["LIST, by name among others", OPTION.LIST_META_CONTEXT, ["qemu:x", ALL], 1],
    ["LIST, another's", OPTION.LIST_META_CONTEXT, ["qemu:dirty-bitmap:"], 0],
    ["SET, by name", OPTION.SET_META_CONTEXT, [ALL, ALL], 1],
    ["SET, the namespace is no selection", OPTION.SET_META_CONTEXT, ["base:"], 0],
    ["SET, none", OPTION.SET_META_CONTEXT, [], 0],
  ])("%s → %s %j finds %i", (_title, type, queries, count) => {
    const rig = new Rig();
    const client = greeted(rig);
    haggle(rig, client, OPTION.STRUCTURED_REPLY);
    const replies = haggle(rig, client, type, contextData("disk", queries));
    expect(replies.length).toBe(count + 1);
    expect(replies.at(-1)?.type).toBe(REPLY.ACK);
    const id = type === OPTION.SET_META_CONTEXT ? 1 : 0;
    if (count > 0) expect(replies[0]?.data).toEqual(join([words(id), ascii(ALL)]));
  });

  it.each([
    ["cut short", contextData("disk", [ALL]).subarray(0, -1), REPLY.ERR_INVALID],
    ["bytes left over", join([contextData("disk", [ALL]), words(0)]), REPLY.ERR_INVALID],
    ["a count beyond the data", join([words(0), words(0xffff_ffff)]), REPLY.ERR_INVALID],
    ["a name beyond the data", join([words(0xffff_ffff), words(0)]), REPLY.ERR_INVALID],
    ["nothing at all", NOTHING, REPLY.ERR_INVALID],
    ["an export that isn't served", contextData("nope", [ALL]), REPLY.ERR_UNKNOWN],
  ])("%s → refused", (_title, data, error) => {
    const rig = new Rig();
    const client = greeted(rig);
    haggle(rig, client, OPTION.STRUCTURED_REPLY);
    expect(typesOf(haggle(rig, client, OPTION.SET_META_CONTEXT, data))).toEqual([error]);
  });

  it("before structured replies are agreed on → refused", () => {
    const rig = new Rig();
    const data = contextData("disk", [ALL]);
    const replies = haggle(rig, greeted(rig), OPTION.SET_META_CONTEXT, data);
    expect(typesOf(replies)).toEqual([REPLY.ERR_INVALID]);
  });
});

describe("NBD exports", () => {
  it("a name that is taken, or that NBD can't carry, is refused", () => {
    const rig = new Rig();
    expect(() => rig.exports.add("disk", rig.disk)).toThrow(/already/);
    expect(() => rig.exports.add("a\0b", rig.disk)).toThrow(/NUL/);
    expect(() => rig.exports.add("x".repeat(4097), rig.disk)).toThrow(/4096/);
  });

  it("an export that is removed is gone for new clients and stays for old ones", () => {
    const rig = new Rig();
    const old = rig.enter("simple");
    expect(rig.exports.remove("disk")).toBe(true);
    const replies = haggle(rig, greeted(rig), OPTION.GO, infoData("disk"));
    expect(typesOf(replies)).toEqual([REPLY.ERR_UNKNOWN]);
    expect(old.connection.isClosed).toBe(false);
  });

  it.each([
    ["read-only", { readOnly: true }, NBD_TRANSMISSION_FLAG.READ_ONLY, true],
    ["read-only: no TRIM", { readOnly: true }, NBD_TRANSMISSION_FLAG.SEND_TRIM, false],
    ["rotational", { rotational: true }, NBD_TRANSMISSION_FLAG.ROTATIONAL, true],
    ["no discard", { discardBytesMax: 0 }, NBD_TRANSMISSION_FLAG.SEND_TRIM, false],
    ["no zeroes", { writeZeroesBytesMax: 0 }, NBD_TRANSMISSION_FLAG.SEND_WRITE_ZEROES, false],
    ["no fast zeroes", { writeZeroesBytesMax: 0 }, NBD_TRANSMISSION_FLAG.SEND_FAST_ZERO, false],
    ["a cache and no FUA", { fua: false }, NBD_TRANSMISSION_FLAG.SEND_FUA, false],
    ["no cache", { fua: false, volatileCache: false }, NBD_TRANSMISSION_FLAG.SEND_FUA, true],
  ])("%s → the flags say so", (_title, limits, flag, isSet) => {
    const target = new Rig(new TestDisk(limits)).exports.get("disk");
    expect(((target?.transmissionFlags(true) ?? 0) & flag) !== 0).toBe(isSet);
  });
});

// SPDX-License-Identifier: MIT
// The checks that stand between a hostile client and everybody else, each with the edit that takes
// it out and the test that must fail then. `from` stands exactly once in its file.

import { COPY_MUTATIONS } from "./copy.js";
import { type Mutation, type MutationRow, mutationsOf } from "./mutation.js";

const CHUNKS = "src/rtrs/server-chunks.ts";
const SERVER = "src/rtrs/server.ts";
const PATH = "src/rtrs/server-path.ts";
const RNBD = "src/rnbd/rnbd-server.ts";
const IO = "src/rnbd/server-io.ts";
const RNBD_RIGHTS = "src/rnbd/volume-rights.ts";
const REGIONS = "src/transport/regions.ts";
const DEVICE = "src/transport/device.ts";
const RESPONDER = "src/transport/responder.ts";

const LENGTHS = "test/hostile/lengths.test.ts";
const MEMORY = "test/hostile/memory.test.ts";
const RACE = "src/rtrs/chunk-race.test.ts";
const KEYS = "test/hostile/keys.test.ts";
const RIGHTS = "test/hostile/rights.test.ts";
const RESOURCES = "test/hostile/resources.test.ts";
const PACKETS = "test/hostile/packets.test.ts";

const ROWS: readonly MutationRow[] = [
  [
    CHUNKS,
    [
      [
        "a chunk must exist",
        'if (chunk >= this.count) return "BAD_CHUNK";',
        "",
        LENGTHS,
        "a chunk that is not there",
      ],
      [
        "a header lies in its chunk",
        'if (offset + RTRS_WRITE_HEADER_BYTES > this.chunkBytes) return "BAD_OFFSET";',
        "",
        LENGTHS,
        "an offset one byte too far",
      ],
      [
        "a chunk holds one request",
        'if (this.states[chunk] !== CHUNK_STATE.FREE) return "CHUNK_IN_USE";',
        "",
        MEMORY,
        "while the server has the chunk",
      ],
      [
        "the key is taken back before the server looks",
        "if (this.rotates && !isCopied) (this.regions[chunk] as MemoryRegion).invalidate();",
        "",
        RACE,
        "WRITE, closed",
      ],
      [
        "a chunk that stays open is copied",
        "if (copies === null || this.isCopied[chunk] === 0) {",
        "if (copies !== null || this.isCopied[chunk] === 0) {",
        MEMORY,
        "rotating keys, copied",
      ],
      [
        "only what fits its copy is copied",
        "offset <= this.copyBytesMax",
        "offset <= this.copyBytesMax + 1",
        "src/rtrs/hidden-requests.test.ts",
        "one byte longer than what is copied",
      ],
      [
        "a header is good for one request",
        "    bytes[start] = 0;\n    bytes[start + 1] = 0;\n",
        "",
        MEMORY,
        "a header is good for one request",
      ],
      [
        "only known types",
        'if (type !== RTRS_TYPE.READ && type !== RTRS_TYPE.WRITE) return "BAD_TYPE";',
        "",
        LENGTHS,
        "a type that there is not",
      ],
      [
        "the message lies in what was sent",
        'if (userLength > offset) return "BAD_USER_LENGTH";',
        "",
        LENGTHS,
        "a message one byte longer than what there is",
      ],
      [
        "data leaves room for headers",
        'if (dataLength > this.ioBytesMax) return "BAD_DATA_LENGTH";',
        "",
        LENGTHS,
        "more data than a request has",
      ],
      [
        "one descriptor at most",
        'if (count > 1) return "BAD_SEGMENT_COUNT";',
        "",
        LENGTHS,
        "two descriptors",
      ],
      [
        "a descriptor that lies in its chunk",
        'if (headerLength < HEADER_BYTES_MAX) return "BAD_OFFSET";',
        "",
        LENGTHS,
        "a READ header whose descriptor the chunk's end cuts",
      ],
      ["a descriptor of something", "length === 0 || ", "", LENGTHS, "a descriptor of nothing"],
      [
        "a descriptor no longer than a chunk",
        " || length > this.chunkBytes) return",
        ") return",
        LENGTHS,
        "one above a chunk",
      ],
      [
        "the header is judged by its copy",
        "const userLength = rtrsUserLength(header, 0);",
        "const userLength = this.seen.view.getUint16(chunk * this.chunkBytes + offset + 2, true);",
        RACE,
        "WRITE, fixed keys",
      ],
      [
        "the message is fetched once",
        "userMessage[i] = bytes[start + i] as number;",
        "userMessage[i] = (bytes[start + i] as number) & (bytes[start + i] as number);",
        RACE,
        "READ, fixed keys",
      ],
      [
        "an answer is no longer than its request",
        "return Math.min(this.clientLengths[chunk] as number, this.replyLengths[chunk] as number);",
        "return this.clientLengths[chunk] as number;",
        LENGTHS,
        "answers shorter than what is asked for",
      ],
      [
        "an error brings no data",
        "this.replyErrnos[chunk] !== 0 || ",
        "",
        LENGTHS,
        "answers shorter than what is asked for",
      ],
      [
        "an answer is no longer than the client's buffer",
        "return Math.min(this.clientLengths[chunk] as number, this.replyLengths[chunk] as number);",
        "return this.replyLengths[chunk] as number;",
        LENGTHS,
        "a descriptor shorter than the answer",
      ],
    ],
  ],
  [
    PATH,
    [
      [
        "a message fits its copy",
        "if (request.userLength > this.context.settings.userBytesMax) {",
        "if (request.userLength < 0) {",
        LENGTHS,
        "a message too long",
      ],
      [
        "a name is one session's",
        "} else if (this.owner.isNameTaken(info.name, this.session)) {",
        "} else if (info.name.length === 0) {",
        RIGHTS,
        "the name of another session",
      ],
      [
        "connecting takes a bounded time",
        'if (this.state === "CONNECTING" && nowNs >= this.deadline) {',
        'if (this.state === "CONNECTING" && nowNs < 0) {',
        RESOURCES,
        "all sessions, never finished",
      ],
    ],
  ],
  [
    SERVER,
    [
      [
        "who is let in at all",
        "if (errno !== undefined && errno !== 0) return errno;",
        "",
        RIGHTS,
        "an address that no rule names",
      ],
      [
        "sessions are bounded",
        "return this.sessionsByUuid.size >= this.settings.sessionCountMax ? ERRNO.ENOMEM : 0;",
        "return 0;",
        RESOURCES,
        "all sessions, never finished",
      ],
      [
        "connections are bounded",
        "if (request.connectionCount > this.settings.connectionCountMax) return ERRNO.ECONNRESET;",
        "",
        RESOURCES,
        "more connections than a path may have",
      ],
      [
        "paths are bounded",
        "return session.paths.length >= this.settings.pathCountMax ? ERRNO.ECONNRESET : 0;",
        "return 0;",
        RESOURCES,
        "a path too many",
      ],
      [
        "a session is made by its first connection",
        "if (!request.firstConnection) return ERRNO.ENXIO;",
        "",
        RESOURCES,
        "a session that it may not make",
      ],
      [
        "a path is ended from its own address alone",
        "if (isLaterAttempt && peer?.equals(path.peer) === true) {",
        "if (isLaterAttempt) {",
        RIGHTS,
        "another's path UUID, to end it",
      ],
      [
        "a path's connections join its addresses",
        "path.joins(peer, local) &&",
        "",
        RIGHTS,
        "another's path UUID, while it comes up",
      ],
    ],
  ],
  [
    RNBD,
    [
      [
        "who may open what",
        "if (refusal !== 0) return refusal;",
        "",
        RIGHTS,
        "volumes that no rule gives",
      ],
      [
        "a joining path has the session's rights",
        "if (verdict.errno !== 0 || (verdict.exclusive && !exclusive)) return ERRNO.EACCES;",
        "void verdict;",
        RIGHTS,
        "a path into another's session",
      ],
      [
        "room for the response",
        " && request.dataLength >= responseBytes",
        "",
        LENGTHS,
        "no room for OPEN_RSP",
      ],
      ["whole messages", "request.userLength >= userBytes && ", "", LENGTHS, "a short OPEN"],
      [
        "known modes",
        "if (!isRnbdAccess(access)) return ERRNO.EINVAL;",
        "",
        LENGTHS,
        "a mode of no",
      ],
    ],
  ],
  [
    "src/rnbd/access-policy.ts",
    [
      [
        "a reader's rule is for readers",
        '(level === "ro" && isRead)',
        'level === "ro"',
        RIGHTS,
        "a volume for readers, to write",
      ],
    ],
  ],
  [
    RNBD_RIGHTS,
    [
      [
        "an exclusive open is alone",
        "if (this.get(ALONE) > 0 ? !(exclusive && isMember) : exclusive && total > 0)",
        "if (total < 0)",
        RIGHTS,
        "a volume that is somebody's alone",
      ],
      [
        "one writer",
        "if (writers > 0) return isMember ? 0 : ERRNO.EPERM;",
        "",
        RIGHTS,
        "a second writer",
      ],
      [
        "a group is who knows its name",
        "return difference === 0 && this.hasGroup();",
        "return this.hasGroup();",
        "src/rnbd/volume-rights.test.ts",
        "differs in any single bit",
      ],
    ],
  ],
  [
    "src/rnbd/device-table.ts",
    [
      [
        "an id is one open's, for ever",
        " && open.id === id ? open : null",
        " ? open : null",
        LENGTHS,
        "an id of the same slot",
      ],
    ],
  ],
  [
    IO,
    [
      [
        "nothing is written through an open for reading",
        "(open.access === RNBD_ACCESS.RO || open.volume.readOnly)",
        "open.volume.readOnly",
        RIGHTS,
        "writes, discards and zeroes through an open for reading",
      ],
      [
        "a read is as long as its answer",
        "if (!isRead || dataLength !== byteCount) return ERRNO.EINVAL;",
        "if (!isRead) return ERRNO.EINVAL;",
        LENGTHS,
        "fewer bytes than it asks for",
      ],
      [
        "a read is no write",
        "if (!isRead || dataLength !== byteCount) return ERRNO.EINVAL;",
        "if (dataLength !== byteCount) return ERRNO.EINVAL;",
        LENGTHS,
        "a read that has data",
      ],
      [
        "a write is as long as its data",
        "if (isRead || dataLength !== byteCount) return ERRNO.EINVAL;",
        "if (isRead) return ERRNO.EINVAL;",
        LENGTHS,
        "a write of more than came",
      ],
      [
        "a write has data",
        "if (isRead || dataLength !== byteCount) return ERRNO.EINVAL;",
        "if (dataLength !== byteCount) return ERRNO.EINVAL;",
        LENGTHS,
        "a write that has none",
      ],
      [
        "a flush has no data",
        "return dataLength === 0 ? 0 : ERRNO.EINVAL;",
        "return 0;",
        LENGTHS,
        "a flush with bytes",
      ],
      [
        "known operations",
        "return ERRNO.EOPNOTSUPP;",
        "return 0;",
        LENGTHS,
        "an operation of no name",
      ],
      [
        "whole messages",
        "if (request.userLength < RNBD_IO_BYTES_MIN) return ERRNO.EINVAL;",
        "",
        LENGTHS,
        "a message cut short",
      ],
    ],
  ],
  [
    "src/block/check-request.ts",
    [
      [
        "a range lies in its disk",
        "return offset > limits.sizeBytes - length ? ERRNO.EINVAL : 0;",
        "return 0;",
        LENGTHS,
        "the sector behind the end",
      ],
    ],
  ],
  [
    "src/wire/rnbd.ts",
    [
      [
        "a name ends",
        "return end === start + RNBD_NAME_BYTES ? null : decodeUtf8(bytes, start, end);",
        "return decodeUtf8(bytes, start, end);",
        LENGTHS,
        "a name without an end",
      ],
    ],
  ],
  [
    REGIONS,
    [
      [
        "a key is its protection domain's",
        "if (this.pdIndexes[index] !== pdIndex) return -1;\n    if (((",
        "if (((",
        KEYS,
        "another session's key from one's own QP",
      ],
      [
        "a key ends where its region ends",
        " || offset + length > (this.lengths[index] as number)) return -1;",
        ") return -1;",
        KEYS,
        "one's own key, one byte behind the end",
      ],
      [
        "a key begins where its region begins",
        "if (offset < 0 || offset + length > (this.lengths[index] as number)) return -1;",
        "if (offset + length > (this.lengths[index] as number)) return -1;",
        KEYS,
        "one's own key, one byte ahead of the start",
      ],
    ],
  ],
  [
    "src/transport/region-keys.ts",
    [
      [
        "keys can't be told from the one before",
        "const key = randomBelow(this.random, 0x1_0000_0000);",
        "const key = (this.mutant = (this.mutant ?? 0) + 1);",
        KEYS,
        "300 keys of a chunk",
      ],
    ],
  ],
  [
    DEVICE,
    [
      [
        "packets come from the connection's peer",
        "if (!(isRc ? isFromPeer(qp, burst) : qp.port === burst.port)) return DROP_REASON.ADDRESS;",
        "",
        PACKETS,
        "another client's QPN and next PSN",
      ],
      [
        "packets are as they were sent",
        "if (!this.isIntact(burst, offset, length)) return DROP_REASON.ICRC;",
        "",
        PACKETS,
        "changed on the way without a right ICRC",
      ],
    ],
  ],
  [
    RESPONDER,
    [
      [
        "a packet is executed once",
        "if (distance < 0) return this.onDuplicate(packet);",
        "",
        PACKETS,
        "the same from the forged address",
      ],
      [
        "packets are executed in order",
        "if (distance > 0) return this.onGap();",
        "",
        PACKETS,
        "the forged address and guessed PSNs",
      ],
    ],
  ],
  [
    "src/cm/passive.ts",
    [
      [
        "a REQ comes from where its path begins",
        "primary.localGid.equals(from.source) &&",
        "",
        PACKETS,
        "a REQ whose path is not where it comes from",
      ],
    ],
  ],
];

export const HOSTILE_MUTATIONS: readonly Mutation[] = [...mutationsOf(ROWS), ...COPY_MUTATIONS];

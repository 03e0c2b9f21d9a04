// SPDX-License-Identifier: MIT
// The checks of a copy's sink and source against the other end.

import { type Mutation, type MutationRow, mutationsOf } from "./mutation.js";

const COPY = "src/copy/hostile.test.ts";
const COPY_RUNS = "src/copy/hostile-runs.test.ts";

const ROWS: readonly MutationRow[] = [
  [
    "src/copy/path.ts",
    [
      [
        "no path leads out",
        'if (name === "" || name === "." || name === "..") return ERRNO.EINVAL;',
        "",
        COPY,
        "to open or to link to",
      ],
      [
        "parts are nobody's",
        "if (name.startsWith(COPY_PART_PREFIX)) return ERRNO.EPERM;",
        "",
        COPY,
        "to open or to link to",
      ],
      [
        "nothing comes that was not asked for",
        "return names.has(slash < 0 ? path : path.slice(0, slash));",
        "return names.size > 0 || slash < 0;",
        COPY_RUNS,
        "and brings something else",
      ],
    ],
  ],
  [
    "src/copy/records.ts",
    [
      [
        "a record lies in its batch",
        "if (recordEnd > end || nanoseconds >= 1e9) return -1;",
        "if (nanoseconds >= 1e9) return -1;",
        COPY,
        "every value of its top byte",
      ],
    ],
  ],
  [
    "src/copy/sink.ts",
    [
      [
        "a run is its client's",
        "if (run === undefined || !run.isOf(session)) {",
        "if (run === undefined) {",
        COPY_RUNS,
        "by its number",
      ],
      [
        "a session has one run",
        "for (const run of this.runs.values()) if (run.session === session) return false;",
        "",
        COPY_RUNS,
        "a second gets EBUSY",
      ],
      [
        "a run that is left alone ends",
        "if (nowNs >= run.expiresNs)",
        "if (nowNs < 0)",
        COPY_RUNS,
        "left alone for a minute",
      ],
    ],
  ],
  [
    "src/copy/sink-run.ts",
    [
      [
        "records are no more than fit",
        "count * RECORD_BYTES <= byteLength &&",
        "",
        COPY,
        "more records, or more bytes",
      ],
      [
        "a batch lies in its data",
        "byteLength <= request.dataLength &&",
        "",
        COPY,
        "more records, or more bytes",
      ],
      [
        "a small file is what its sum says",
        "if (crcOf(this.context.crc32, memory.bytes, dataOffset, end) !== record.crc) {",
        "if (dataLength < 0) {",
        COPY,
        "in its size, or in its CRC",
      ],
      [
        "the folder that is copied to stays as it is",
        'if (record.path === "" && record.action === COPY_ACTION.ATTRIBUTES) {',
        'if (record.path === "?") {',
        COPY_RUNS,
        "attributes of the folder",
      ],
    ],
  ],
  [
    "src/copy/sink-file.ts",
    [
      [
        "a block is what its sum says",
        "if (crcOf(this.context.crc32, memory.bytes, memoryOffset, end) !== crc) {",
        "if (length < 0) {",
        COPY,
        "whose blocks are elsewhere",
      ],
      [
        "a block lies in its file",
        "const isWhole = length === Math.min(blockBytes, this.size - start);",
        "const isWhole = length > 0;",
        COPY,
        "whose blocks are elsewhere",
      ],
      [
        "a file is what its sum says",
        "if (!this.isComplete() || this.sums.whole(this.size) !== crc) return ERRNO.EILSEQ;",
        "",
        COPY,
        "or with another sum",
      ],
    ],
  ],
  [
    "src/copy/block-sums.ts",
    [
      [
        "sums have room for so many blocks",
        "return this.budget.groupsLeft > 0 || this.groups.has(Math.floor(index / GROUP));",
        "return index >= 0;",
        COPY_RUNS,
        "CRCs of blocks all over",
      ],
    ],
  ],
  [
    "src/copy/source-link.ts",
    [
      [
        "the sink does not say how much memory there is",
        "this.slotBytes = Math.min(maxIoBytes, PLACE_BYTES_MAX);",
        "this.slotBytes = maxIoBytes;",
        COPY_RUNS,
        "that the sink offers",
      ],
    ],
  ],
];

export const COPY_MUTATIONS: readonly Mutation[] = mutationsOf(ROWS);

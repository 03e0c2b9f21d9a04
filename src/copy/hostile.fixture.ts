// SPDX-License-Identifier: MIT
// A source that says to a sink whatever a test wants it to say, message by message.

import { HeapMemorySource, IpAddress, updateCrc32 } from "../base/index.js";
import { ServerRequest, ServerSession } from "../rtrs/index.js";
import { MAX_IO, NotingHost } from "./copy.fixture.js";
import { CopySink, type CopySinkOptions } from "./index.js";
import { Disk } from "./memory-tree.fixture.js";
import { COPY_TYPE, CopyHeader, writeCopyHeader } from "./messages.js";
import { COPY_ACTION, CopyRecord, writeRecord } from "./records.js";

const LOCAL = IpAddress.parse("192.0.2.200");

let sessionCount = 0;

/** A session of a client at 192.0.2.`host`. */
export function sessionFrom(host: number, name = "copy"): ServerSession {
  const id = ++sessionCount;
  const session = new ServerSession(id, IpAddress.parse(`192.0.2.${host}`), LOCAL, `${id}`);
  session.name = name;
  return session;
}

export class LyingSource {
  readonly disk = new Disk();
  readonly host = new NotingHost(this.disk);
  readonly sink: CopySink;
  session = sessionFrom(1);
  /** The data of the last answer. */
  lastMemory: Uint8Array = new Uint8Array(0);
  nowNs = 1;

  constructor(options: Partial<CopySinkOptions> = {}) {
    const memory = new HeapMemorySource();
    const all = { crc32: updateCrc32, memory, maxIoBytes: MAX_IO, ...options };
    this.sink = new CopySink(all, this.host);
  }

  /** Begins a run. */
  hello(runLow = 2): number {
    return this.ask({ type: COPY_TYPE.HELLO, path: "folder", runLow }, 16);
  }

  /** What a request says; `data` is a write, a number asks for so many bytes. @returns errno. */
  ask(what: Partial<CopyHeader>, data: Uint8Array | number): number {
    const memory = new HeapMemorySource().allocate(MAX_IO);
    const answers: number[] = [];
    const owner = { reply: (_request: ServerRequest, errno: number) => answers.push(errno) };
    const message = new Uint8Array(8192);
    const request = new ServerRequest(owner, this.session, 0, message, memory, 0);
    const words = { runHigh: 1, runLow: 2, byteLength: 0, ...what };
    const header = Object.assign(new CopyHeader(), words);
    request.isRead = typeof data === "number";
    if (typeof data !== "number") {
      memory.bytes.set(data);
      header.byteLength = what.byteLength ?? data.length;
    }
    request.dataLength = typeof data === "number" ? data : data.length;
    request.userLength = writeCopyHeader(header, request.userMessage, request.userView);
    this.sink.onRequest(request);
    for (let i = 0; i < 20 && answers.length === 0; i++) this.sink.pump(this.nowNs);
    if (answers.length !== 1) throw new Error(`a request got ${answers.length} answers`);
    this.lastMemory = memory.bytes;
    return answers[0] as number;
  }

  /** What becomes of a batch of one record: a `COPY_RESULT`, or an errno above 0x8000. */
  result(record: Partial<CopyRecord>, data = new Uint8Array(0)): number {
    const errno = this.ask({ type: COPY_TYPE.BATCH, argument: 1 }, oneRecord(record, data));
    if (errno === 0) return 0;
    if (this.ask({ type: COPY_TYPE.ANSWER, argument: 1 }, 2) !== 0) return -errno;
    return (this.lastMemory[0] as number) + (this.lastMemory[1] as number) * 256;
  }

  open(path: string, size: number): number {
    return this.ask({ type: COPY_TYPE.OPEN, path, offset: size }, 8);
  }

  block(index: number, bytes: Uint8Array, crc = crcOf(bytes)): number {
    return this.ask({ type: COPY_TYPE.BLOCK, offset: index, argument: crc }, bytes);
  }

  finish(path: string, size: number, crc: number): number {
    return this.ask({ type: COPY_TYPE.FINISH }, oneRecord({ path, size, crc }));
  }
}

export function crcOf(bytes: Uint8Array): number {
  return ~updateCrc32(bytes, 0, bytes.length, -1) >>> 0;
}

/** A batch of one record, a file unless it says otherwise. */
export function oneRecord(record: Partial<CopyRecord>, data = new Uint8Array(0)): Uint8Array {
  const bytes = new Uint8Array(MAX_IO);
  const full = Object.assign(new CopyRecord(), { action: COPY_ACTION.FILE, ...record });
  full.dataLength = data.length;
  full.size = record.size ?? data.length;
  full.crc = record.crc ?? crcOf(data);
  bytes.set(data, 48 + full.path.length);
  return bytes.subarray(0, writeRecord(full, bytes, new DataView(bytes.buffer), 0));
}

/** A name as the extra of a link. */
export function target(path: string): Uint8Array {
  return Uint8Array.from(path, (one) => one.charCodeAt(0));
}

// SPDX-License-Identifier: MIT
// A client of the server, message by message, and a device that does nothing until told.

import { expect } from "vitest";
import { errnoName, HeapMemorySource, IpAddress } from "../base/index.js";
import {
  BLOCK_OPERATION,
  type BlockDevice,
  type BlockLimits,
  type BlockRequest,
  MemoryDevice,
} from "../block/index.js";
import { ServerRequest, ServerSession } from "../rtrs/index.js";
import {
  RNBD_ACCESS,
  RNBD_CLOSE_BYTES,
  RNBD_IO_BYTES,
  RNBD_OP,
  RNBD_OPEN_BYTES,
  RNBD_OPEN_RSP_BYTES,
  type RnbdOpenResponse,
  readRnbdOpenResponse,
  writeRnbdClose,
  writeRnbdIo,
  writeRnbdOpen,
} from "../wire/index.js";
import type { RnbdServer } from "./rnbd-server.js";

const CHUNK_BYTES = 131_072;
const source = new HeapMemorySource();

/** One client: sends a message at a time and takes the answer. */
export class Peer {
  readonly session: ServerSession;
  readonly request: ServerRequest;
  /** Answers so far: [errno, bytes for the client]. */
  readonly answers: [number, number][] = [];

  private readonly server: RnbdServer;

  constructor(server: RnbdServer, id: number, name: string) {
    this.server = server;
    const [peer, local] = [`192.0.2.${id}`, "192.0.2.254"].map((text) => IpAddress.parse(text));
    this.session = new ServerSession(id, peer as IpAddress, local as IpAddress, `${id}`);
    this.session.name = name;
    const owner = {
      reply: (_: ServerRequest, errno: number, length: number) => {
        this.answers.push([errno, length]);
      },
    };
    const memory = source.allocate(CHUNK_BYTES);
    this.request = new ServerRequest(owner, this.session, 0, new Uint8Array(512), memory, 0);
    server.onSessionUp(this.session);
  }

  send(isRead: boolean, userLength: number, dataLength: number): void {
    this.request.isRead = isRead;
    this.request.userLength = userLength;
    this.request.dataLength = dataLength;
    this.server.onRequest(this.request);
  }

  /** Pumps until there is an answer. @returns its errno. */
  answer(): number {
    for (let i = 0; i < 10 && this.answers.length === 0; i++) this.server.pump(0);
    this.server.checkInvariants();
    expect(this.answers).toHaveLength(1);
    return (this.answers.shift() as [number, number])[0];
  }

  open(name: string, access: number): RnbdOpenResponse | string {
    writeRnbdOpen(this.request.userView, 0, access as 0, name);
    this.send(true, RNBD_OPEN_BYTES, RNBD_OPEN_RSP_BYTES);
    const errno = this.answer();
    if (errno !== 0) return errnoName(errno);
    return readRnbdOpenResponse(this.request.memory.view, 0) as RnbdOpenResponse;
  }

  openId(name: string, access: number = RNBD_ACCESS.RW): number {
    return (this.open(name, access) as RnbdOpenResponse).deviceId;
  }

  close(id: number): number {
    writeRnbdClose(this.request.userView, 0, id);
    this.send(false, RNBD_CLOSE_BYTES, 0);
    return this.answer();
  }

  io(id: number, operation: number, sector: number, bytes: number, data = bytes): void {
    writeRnbdIo(this.request.userView, 0, id, 0, sector, operation, bytes);
    const kind = operation & 0xff;
    this.send(kind === RNBD_OP.READ || kind === RNBD_OP.FLUSH, RNBD_IO_BYTES, data);
  }

  /** @returns the errno. */
  runIo(id: number, operation: number, sector: number, bytes: number, data = bytes): number {
    this.io(id, operation, sector, bytes, data);
    return this.answer();
  }
}

/** Keeps what is submitted until told, and says what came. */
export class SlowDevice implements BlockDevice {
  readonly name = "slow";
  readonly limits: BlockLimits;
  onResize: (() => void) | null = null;
  readonly submitted: BlockRequest[] = [];
  private readonly done: BlockRequest[] = [];
  refreshes = 0;

  constructor(limits: Partial<BlockLimits> = {}) {
    this.limits = { ...new MemoryDevice({ name: "", sizeBytes: 1 << 20 }).limits, ...limits };
  }

  get inflight(): number {
    return this.submitted.length + this.done.length;
  }

  get log(): string[] {
    const names = Object.entries(BLOCK_OPERATION);
    return this.submitted.map((request) => {
      const name = names.find(([, value]) => value === request.operation)?.[0];
      return `${name} ${request.offset}+${request.length}/${request.flags}`;
    });
  }

  submit(request: BlockRequest): void {
    this.submitted.push(request);
  }

  finish(errno = 0): void {
    const request = this.submitted.shift() as BlockRequest;
    request.errno = errno;
    this.done.push(request);
  }

  refreshSize(): void {
    this.refreshes++;
  }

  pump(): void {
    for (const request of this.done.splice(0)) request.owner.onBlockComplete(request);
  }

  deadlineNs(): number {
    return Infinity;
  }

  checkInvariants(): void {}
  close(): void {}
}

// SPDX-License-Identifier: MIT
// Stream sockets on node:net, for systems without foreign calls: the same interface, one more copy
// each way. Incoming data waits in this process, bounded by pausing the socket.

import { lstatSync, unlinkSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { ERRNO, FarpageError, type Memory, ObjectRing } from "../base/index.js";
import type { IoVector } from "../nbd/index.js";
import type { OsStream, Poller, StreamAddress, StreamListener, StreamOptions } from "./door.js";
import { nodeFailure } from "./failure.js";
import { describeStreamAddress } from "./stream-address.js";

/** Bytes that may wait for `read` before the socket is paused (one more chunk may be under way). */
const READ_AHEAD_BYTES = 256 * 1024;
/** Bytes that one `write` takes at most. */
const WRITE_BYTES_MAX = 256 * 1024;
const BACKLOG_DEFAULT = 128;
/**
 * Connections accepted by Node that wait for `accept`; Node has no way to leave them to the kernel.
 */
const WAITING_COUNT_MAX = 1024;

class NodeStream implements OsStream {
  readonly peer: string;
  private readonly socket: Socket;
  private readonly poller: Poller;
  private chunks: Uint8Array[] = [];
  /** Bytes of the first chunk that have been read. */
  private chunkOffset = 0;
  private waitingBytes = 0;
  private hasEnded = false;
  private errno = 0;
  private isClosed = false;
  private wantsRead = true;
  private wantsWrite = false;

  constructor(socket: Socket, peer: string, poller: Poller) {
    this.socket = socket;
    this.peer = peer;
    this.poller = poller;
    socket.setNoDelay(true);
    socket.on("data", (chunk) => this.arrive(chunk as Uint8Array));
    socket.on("end", () => this.end(0));
    socket.on("error", (error: NodeJS.ErrnoException) => this.end(errnoOf(error)));
    socket.on("close", () => this.end(0));
    socket.on("drain", () => {
      if (this.wantsWrite) poller.wake();
    });
    // An accepted socket is paused until somebody listens to it.
    socket.resume();
  }

  get readable(): boolean {
    return this.wantsRead && !this.isClosed && (this.waitingBytes > 0 || this.hasEnded);
  }

  get writable(): boolean {
    return this.wantsWrite && !this.isClosed && (!this.socket.writableNeedDrain || this.hasEnded);
  }

  setInterest(read: boolean, write: boolean): void {
    this.wantsRead = read;
    this.wantsWrite = write;
    if (this.readable || this.writable) this.poller.wake();
  }

  read(memory: Memory, offset: number, length: number): number {
    if (this.isClosed) return -ERRNO.EBADF;
    const chunk = this.chunks[0];
    if (chunk === undefined) {
      if (this.errno !== 0) return -this.errno;
      return this.hasEnded ? 0 : -ERRNO.EAGAIN;
    }
    const count = Math.min(length, chunk.length - this.chunkOffset);
    const end = this.chunkOffset + count;
    memory.bytes.set(chunk.subarray(this.chunkOffset, end), offset);
    this.chunkOffset = end;
    this.waitingBytes -= count;
    if (end === chunk.length) {
      this.chunks.shift();
      this.chunkOffset = 0;
    }
    if (this.waitingBytes < READ_AHEAD_BYTES) this.socket.resume();
    // Node's sockets are not polled: what is left must bring the lane back by itself.
    if (this.waitingBytes > 0) this.poller.wake();
    return count;
  }

  write(vector: IoVector): number {
    if (this.isClosed) return -ERRNO.EBADF;
    if (this.errno !== 0) return -this.errno;
    if (this.socket.destroyed || !this.socket.writable) return -ERRNO.EPIPE;
    if (this.socket.writableNeedDrain) return -ERRNO.EAGAIN;
    const length = Math.min(vector.byteLength, WRITE_BYTES_MAX);
    if (length === 0) return 0;
    const bytes = new Uint8Array(length);
    let filled = 0;
    for (let i = 0; filled < length; i++) {
      const start = vector.offsets[i] as number;
      const count = Math.min(length - filled, vector.lengths[i] as number);
      bytes.set((vector.memories[i] as Memory).bytes.subarray(start, start + count), filled);
      filled += count;
    }
    this.socket.write(bytes);
    return length;
  }

  detach(): number {
    this.close();
    return -1;
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.chunks = [];
    // What `write` took is sent before the connection ends, as the kernel would.
    this.socket.end(() => this.socket.destroy());
    this.socket.resume();
    // Not that a peer that never reads could keep the process from ending.
    this.socket.unref();
  }

  private arrive(chunk: Uint8Array): void {
    if (this.isClosed) return;
    this.chunks.push(chunk);
    this.waitingBytes += chunk.length;
    if (this.waitingBytes >= READ_AHEAD_BYTES) this.socket.pause();
    if (this.wantsRead) this.poller.wake();
  }

  private end(errno: number): void {
    if (this.hasEnded && errno === 0) return;
    this.hasEnded = true;
    if (this.errno === 0) this.errno = errno;
    this.poller.wake();
  }
}

function errnoOf(error: NodeJS.ErrnoException): number {
  const code = error.code ?? "EIO";
  return code in ERRNO ? ERRNO[code as keyof typeof ERRNO] : ERRNO.EIO;
}

class NodeListener implements StreamListener {
  readonly address: StreamAddress;
  private readonly server: Server;
  private readonly poller: Poller;
  private readonly waiting: ObjectRing<Socket>;
  private isClosed = false;

  constructor(server: Server, address: StreamAddress, waiting: ObjectRing<Socket>, poller: Poller) {
    this.server = server;
    this.address = address;
    this.waiting = waiting;
    this.poller = poller;
  }

  get readable(): boolean {
    return this.waiting.count > 0;
  }

  get writable(): boolean {
    return false;
  }

  accept(): OsStream | null {
    if (this.isClosed) return null;
    for (;;) {
      const socket = this.waiting.shift();
      if (socket === null) return null;
      if (!socket.destroyed) return new NodeStream(socket, peerOf(socket), this.poller);
    }
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    for (;;) {
      const socket = this.waiting.shift();
      if (socket === null) break;
      socket.destroy();
    }
    // Node removes the socket file itself.
    this.server.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function peerOf(socket: Socket): string {
  const { remoteAddress, remotePort, remoteFamily } = socket;
  if (remoteAddress === undefined) return "unix socket";
  return remoteFamily === "IPv6"
    ? `[${remoteAddress}]:${remotePort}`
    : `${remoteAddress}:${remotePort}`;
}

/** Listens on node:net; see `listenStream`. */
export async function listenNode(
  address: StreamAddress,
  options: StreamOptions,
): Promise<StreamListener> {
  if (address.kind === "unix") await removeStaleSocket(address.path);
  const waiting = new ObjectRing<Socket>(WAITING_COUNT_MAX);
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    socket.on("error", () => socket.destroy());
    if (waiting.push(socket)) options.poller.wake();
    else socket.destroy();
  });
  const backlog = options.backlog ?? BACKLOG_DEFAULT;
  const where =
    address.kind === "unix"
      ? { path: address.path, backlog }
      : { host: address.host, port: address.port, backlog };
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error) =>
      reject(nodeFailure(`listen on ${describeStreamAddress(address)}`, error)),
    );
    server.listen(where, resolve);
  });
  const bound = server.address();
  const isTcp = address.kind === "tcp" && typeof bound === "object" && bound !== null;
  const actual = isTcp ? { ...address, port: bound.port } : address;
  return new NodeListener(server, actual, waiting, options.poller);
}

/** Connects by node:net; see `connectStream`. */
export async function connectNode(
  address: StreamAddress,
  options: StreamOptions,
): Promise<OsStream> {
  const socket = await openSocket(address);
  return new NodeStream(socket, describeStreamAddress(address), options.poller);
}

function openSocket(address: StreamAddress): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const where =
      address.kind === "unix"
        ? { path: address.path, allowHalfOpen: true }
        : { host: address.host, port: address.port, allowHalfOpen: true };
    const socket = connect(where);
    const fail = (error: Error): void =>
      reject(nodeFailure(`connect to ${describeStreamAddress(address)}`, error));
    socket.once("error", fail);
    socket.once("connect", () => {
      socket.off("error", fail);
      resolve(socket);
    });
  });
}

/** As the native one: a socket file that nobody listens on is removed, nothing else is. */
async function removeStaleSocket(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new FarpageError("EEXIST", `"${path}" exists and is not a socket: it is left alone`);
  }
  try {
    const other = await openSocket({ kind: "unix", path });
    other.destroy();
  } catch (error) {
    if (error instanceof FarpageError && error.code === "ENOENT") return;
    if (!(error instanceof FarpageError) || error.code !== "ECONNREFUSED") throw error;
    unlinkSync(path);
    return;
  }
  throw new FarpageError("EADDRINUSE", `another program listens on the socket "${path}"`);
}

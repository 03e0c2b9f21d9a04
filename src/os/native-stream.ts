// SPDX-License-Identifier: MIT
// Stream sockets by foreign calls: non-blocking, bytes straight between the socket and native
// memory. Read first: unix(7), tcp(7), sendmsg(2).

import { lookup } from "node:dns/promises";
import { lstatSync, unlinkSync } from "node:fs";
import { assert, ERRNO, errnoName, FarpageError, IpAddress, type Memory } from "../base/index.js";
import type { IoVector } from "../nbd/index.js";
import type {
  OsStream,
  PolledDescriptor,
  Poller,
  StreamAddress,
  StreamListener,
  StreamOptions,
} from "./door.js";
import { failure, nodeFailure } from "./failure.js";
import { mapBlock, nativeAddressOf, unmapBlock } from "./memory-source.js";
import { loadNative, type NativeBlock } from "./native.js";
import {
  AF_UNIX,
  addressFamilyOf,
  readInetAddress,
  readInetPort,
  SOCKET_ADDRESS_BYTES_MAX,
  writeInetAddress,
  writeUnixAddress,
} from "./socket-address.js";
import { describeStreamAddress } from "./stream-address.js";

const SOCK_STREAM_NONBLOCK_CLOEXEC = 0x80801;
const SOCK_NONBLOCK_CLOEXEC = 0x80800;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_ERROR = 4;
const SO_SNDBUF = 7;
const SO_PEERCRED = 17;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const SOL_IPV6 = 41;
const IPV6_V6ONLY = 26;
const MSG_DONTWAIT_NOSIGNAL = 0x4040;
const EPOLL_CLOEXEC = 0x80000;
const BACKLOG_DEFAULT = 128;
/** Wanted of Unix sockets, whose buffers don't grow by themselves: a few large NBD replies. */
const UNIX_SEND_BUFFER_BYTES = 1024 * 1024;

/** Entries of one sendmsg; a longer vector is taken in parts, as a short write. */
const IOVEC_COUNT_MAX = 64;
const IOVEC_BYTES = 16;
const MSGHDR_BYTES = 56;
const TWO_32 = 0x1_0000_0000;

/** struct msghdr and its vector, shared by every stream: a call uses it from start to end. */
class SendHeader {
  readonly block: NativeBlock = mapBlock(MSGHDR_BYTES + IOVEC_COUNT_MAX * IOVEC_BYTES);
  private readonly words = new Uint32Array(this.block.bytes.buffer);

  constructor() {
    const vector = this.block.address + MSGHDR_BYTES;
    this.words[4] = vector >>> 0;
    this.words[5] = Math.floor(vector / TWO_32);
  }

  set(vector: IoVector): void {
    const count = Math.min(vector.count, IOVEC_COUNT_MAX);
    this.words[6] = count;
    let word = MSGHDR_BYTES / 4;
    for (let i = 0; i < count; i++, word += 4) {
      const memory = vector.memories[i] as Memory;
      const offset = vector.offsets[i] as number;
      const length = vector.lengths[i] as number;
      assert(offset >= 0 && offset + length <= memory.length, "the range is in memory");
      const base = nativeAddressOf(memory) + offset;
      this.words[word] = base >>> 0;
      this.words[word + 1] = Math.floor(base / TWO_32);
      this.words[word + 2] = length;
    }
  }
}

let sharedHeader: SendHeader | null = null;

class NativeStream implements OsStream {
  readonly peer: string;
  private readonly native = loadNative();
  private readonly header: SendHeader;
  private readonly polled: PolledDescriptor;
  private readonly descriptor: number;
  private isClosed = false;

  constructor(descriptor: number, peer: string, poller: Poller) {
    sharedHeader ??= new SendHeader();
    this.header = sharedHeader;
    this.descriptor = descriptor;
    this.peer = peer;
    this.polled = poller.add(descriptor);
  }

  get readable(): boolean {
    return this.polled.readable;
  }

  get writable(): boolean {
    return this.polled.writable;
  }

  setInterest(read: boolean, write: boolean): void {
    if (!this.isClosed) this.polled.setInterest(read, write);
  }

  read(memory: Memory, offset: number, length: number): number {
    if (this.isClosed) return -ERRNO.EBADF;
    assert(offset >= 0 && offset + length <= memory.length, "the range is in memory");
    const { libc } = this.native;
    const address = nativeAddressOf(memory) + offset;
    for (;;) {
      const count = libc.recv(this.descriptor, address, length, MSG_DONTWAIT_NOSIGNAL);
      if (count >= 0) return count;
      const errno = this.native.errno();
      if (errno !== ERRNO.EINTR) return -errno;
    }
  }

  write(vector: IoVector): number {
    if (this.isClosed) return -ERRNO.EBADF;
    if (vector.byteLength === 0) return 0;
    const { libc } = this.native;
    this.header.set(vector);
    for (;;) {
      const { address } = this.header.block;
      const count = libc.sendmsg(this.descriptor, address, MSG_DONTWAIT_NOSIGNAL);
      if (count >= 0) return count;
      const errno = this.native.errno();
      if (errno !== ERRNO.EINTR) return -errno;
    }
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.polled.remove();
    this.native.libc.close(this.descriptor);
  }

  detach(): number {
    assert(!this.isClosed, "an open stream is handed on");
    this.isClosed = true;
    this.polled.remove();
    return this.descriptor;
  }
}

/** The stream of a descriptor that `OsStream.detach` gave, on whichever thread this is. */
export function adoptStream(descriptor: number, peer: string, poller: Poller): OsStream {
  return new NativeStream(descriptor, peer, poller);
}

/** A socket address, an option value and their lengths, for one call at a time. */
class Scratch {
  readonly block = mapBlock(4096);

  /** Writes the address. @returns its length. */
  writeAddress(address: ResolvedAddress): number {
    return address.kind === "unix"
      ? writeUnixAddress(this.block.view, 0, address.path)
      : writeInetAddress(this.block.view, 0, address.ip, address.port, 0);
  }

  /** The port that a TCP socket is bound to. */
  boundPort(descriptor: number): number {
    this.block.view.setUint32(256, SOCKET_ADDRESS_BYTES_MAX, true);
    loadNative().libc.getsockname(descriptor, this.block.address, this.block.address + 256);
    return readInetPort(this.block.view, 0);
  }

  setOption(descriptor: number, level: number, option: number, value: number): void {
    this.block.view.setInt32(256, value, true);
    loadNative().libc.setsockopt(descriptor, level, option, this.block.address + 256, 4);
  }

  /** @returns the first word of the option's value, or 0 where it can't be had. */
  option(descriptor: number, level: number, option: number): number {
    const { view, address } = this.block;
    view.setInt32(256, 0, true);
    view.setUint32(272, 12, true);
    const { libc } = loadNative();
    return libc.getsockopt(descriptor, level, option, address + 256, address + 272) < 0
      ? 0
      : view.getInt32(256, true);
  }

  close(): void {
    unmapBlock(this.block);
  }
}

type ResolvedAddress =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly ip: IpAddress; readonly port: number };

class NativeListener implements StreamListener {
  readonly address: StreamAddress;
  private readonly native = loadNative();
  private readonly scratch: Scratch;
  private readonly descriptor: number;
  private readonly poller: Poller;
  private readonly polled: PolledDescriptor;
  /** Inode of the socket file that this listener made; null: none. */
  private readonly socketFile: bigint | null;
  /** An open descriptor of no use but to be closed when there are no others. */
  private spareDescriptor: number;
  private isClosed = false;

  constructor(descriptor: number, address: StreamAddress, poller: Poller, scratch: Scratch) {
    this.descriptor = descriptor;
    this.address = address;
    this.poller = poller;
    this.scratch = scratch;
    this.polled = poller.add(descriptor);
    this.socketFile = address.kind === "unix" ? inodeOf(address.path) : null;
    this.spareDescriptor = this.openSpare();
  }

  get readable(): boolean {
    return this.polled.readable;
  }

  get writable(): boolean {
    return false;
  }

  accept(): OsStream | null {
    const { libc } = this.native;
    const { view, address } = this.scratch.block;
    // A connection can be gone before it is taken; each try takes one off the queue, which is
    // bounded.
    for (let attempt = 0; attempt < 2 * BACKLOG_DEFAULT && !this.isClosed; attempt++) {
      view.setUint32(256, SOCKET_ADDRESS_BYTES_MAX, true);
      const accepted = libc.accept4(this.descriptor, address, address + 256, SOCK_NONBLOCK_CLOEXEC);
      if (accepted >= 0) return this.makeStream(accepted);
      const errno = this.native.errno();
      if (errno === ERRNO.EAGAIN) return null;
      if (errno === ERRNO.EMFILE || errno === ERRNO.ENFILE) this.refuseOne();
    }
    return null;
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.polled.remove();
    // The file goes first: nobody can find a socket that no longer accepts.
    const { address } = this;
    if (address.kind === "unix" && inodeOf(address.path) === this.socketFile) {
      unlinkQuietly(address.path);
    }
    this.native.libc.close(this.descriptor);
    this.native.libc.close(this.spareDescriptor);
    this.scratch.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Out of descriptors: a connection that stays in the queue would keep waking the poller, so it is
   * taken on the descriptor that was set aside for this, and closed.
   */
  private refuseOne(): void {
    const { libc } = this.native;
    libc.close(this.spareDescriptor);
    const accepted = libc.accept4(this.descriptor, 0, 0, SOCK_NONBLOCK_CLOEXEC);
    if (accepted >= 0) libc.close(accepted);
    this.spareDescriptor = this.openSpare();
  }

  private openSpare(): number {
    return this.native.libc.epoll_create1(EPOLL_CLOEXEC);
  }

  private makeStream(descriptor: number): OsStream {
    if (this.address.kind === "unix") {
      this.scratch.setOption(descriptor, SOL_SOCKET, SO_SNDBUF, UNIX_SEND_BUFFER_BYTES);
      const pid = this.scratch.option(descriptor, SOL_SOCKET, SO_PEERCRED);
      return new NativeStream(descriptor, pid > 0 ? `process ${pid}` : "unix socket", this.poller);
    }
    const { view } = this.scratch.block;
    const ip = readInetAddress(view, 0);
    const port = readInetPort(view, 0);
    this.scratch.setOption(descriptor, IPPROTO_TCP, TCP_NODELAY, 1);
    return new NativeStream(descriptor, formatPeer(ip, port), this.poller);
  }
}

function formatPeer(ip: IpAddress | null, port: number): string {
  if (ip === null) return "unknown";
  return ip.family === 4 ? `${ip}:${port}` : `[${ip}]:${port}`;
}

/** Listens by foreign calls; see `listenStream`. */
export async function listenNative(
  address: StreamAddress,
  options: StreamOptions,
): Promise<StreamListener> {
  const resolved = await resolve(address);
  const what = `listen on ${describeStreamAddress(address)}`;
  const { libc, errno } = loadNative();
  const scratch = new Scratch();
  const family = resolved.kind === "unix" ? AF_UNIX : addressFamilyOf(resolved.ip);
  const descriptor = libc.socket(family, SOCK_STREAM_NONBLOCK_CLOEXEC, 0);
  try {
    if (descriptor < 0) throw failure(what);
    if (resolved.kind === "tcp") {
      scratch.setOption(descriptor, SOL_SOCKET, SO_REUSEADDR, 1);
      if (resolved.ip.family === 6) scratch.setOption(descriptor, SOL_IPV6, IPV6_V6ONLY, 1);
    } else {
      scratch.writeAddress(resolved);
      await removeStaleSocket(resolved.path, options.poller);
    }
    const length = scratch.writeAddress(resolved);
    if (libc.bind(descriptor, scratch.block.address, length) < 0) throw failure(what, errno());
    if (libc.listen(descriptor, options.backlog ?? BACKLOG_DEFAULT) < 0) throw failure(what);
    const bound: StreamAddress =
      address.kind === "tcp" ? { ...address, port: scratch.boundPort(descriptor) } : address;
    return new NativeListener(descriptor, bound, options.poller, scratch);
  } catch (error) {
    if (descriptor >= 0) libc.close(descriptor);
    scratch.close();
    throw error;
  }
}

/** Connects by foreign calls; see `connectStream`. */
export async function connectNative(
  address: StreamAddress,
  options: StreamOptions,
): Promise<OsStream> {
  const resolved = await resolve(address);
  const what = `connect to ${describeStreamAddress(address)}`;
  const { libc, errno } = loadNative();
  const scratch = new Scratch();
  const family = resolved.kind === "unix" ? AF_UNIX : addressFamilyOf(resolved.ip);
  const descriptor = libc.socket(family, SOCK_STREAM_NONBLOCK_CLOEXEC, 0);
  try {
    if (descriptor < 0) throw failure(what);
    const length = scratch.writeAddress(resolved);
    if (libc.connect(descriptor, scratch.block.address, length) < 0) {
      if (errno() !== ERRNO.EINPROGRESS) throw failure(what, errno());
      await becomesWritable(descriptor);
      const result = scratch.option(descriptor, SOL_SOCKET, SO_ERROR);
      if (result !== 0) throw failure(what, result);
    }
    if (resolved.kind === "tcp") scratch.setOption(descriptor, IPPROTO_TCP, TCP_NODELAY, 1);
    return new NativeStream(descriptor, describeStreamAddress(address), options.poller);
  } catch (error) {
    if (descriptor >= 0) libc.close(descriptor);
    throw error;
  } finally {
    scratch.close();
  }
}

async function resolve(address: StreamAddress): Promise<ResolvedAddress> {
  if (address.kind === "unix") return address;
  const { host, port } = address;
  if (!Number.isInteger(port) || port < 0 || port > 0xffff) {
    throw new FarpageError("EINVAL", `${port} is not a TCP port`);
  }
  try {
    const found = await lookup(host, { verbatim: true });
    return { kind: "tcp", ip: IpAddress.parse(found.address), port };
  } catch (error) {
    throw nodeFailure(`find the address of "${host}"`, error);
  }
}

/** Node's event loop waits, not the caller's poller: that belongs to the lane, which goes on. */
function becomesWritable(descriptor: number): Promise<void> {
  return new Promise((done) => {
    const watch = loadNative().watch(descriptor);
    watch.start({ readable: false, writable: true }, () => {
      watch.close();
      setImmediate(done);
    });
  });
}

/**
 * Makes way for a socket file: one that nobody listens on is removed.
 * @throws FarpageError EADDRINUSE when somebody listens, EEXIST when something else is there.
 */
async function removeStaleSocket(path: string, poller: Poller): Promise<void> {
  const before = inodeOf(path);
  if (before === null) return;
  if (!lstatSync(path).isSocket()) {
    throw new FarpageError("EEXIST", `"${path}" exists and is not a socket: it is left alone`);
  }
  try {
    const other = await connectNative({ kind: "unix", path }, { poller });
    other.close();
  } catch (error) {
    const code = error instanceof FarpageError ? error.code : "";
    // Refused: the file is there, its listener is not. Anything else is no proof of that.
    if (code === errnoName(ERRNO.ECONNREFUSED) && inodeOf(path) === before) unlinkQuietly(path);
    if (code === errnoName(ERRNO.ECONNREFUSED) || code === errnoName(ERRNO.ENOENT)) return;
    // A full backlog (EAGAIN) is a listener too.
    if (code !== errnoName(ERRNO.EAGAIN)) throw error;
  }
  throw new FarpageError("EADDRINUSE", `another program listens on the socket "${path}"`);
}

function inodeOf(path: string): bigint | null {
  return lstatSync(path, { bigint: true, throwIfNoEntry: false })?.ino ?? null;
}

function unlinkQuietly(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Somebody else has removed it, or the directory no longer lets us; either way nothing to add.
  }
}

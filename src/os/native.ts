// SPDX-License-Identifier: MIT
// The C library and the event loop underneath Node, by foreign calls (koffi). Everything native in
// this room goes through here: which functions there are, what they take, and whether they can be
// had at all.
//
// Addresses travel as numbers (user space ends below 2^48), structures are laid out by hand in
// `NativeBlock`s, so that a call converts nothing: about 0.2 us each. Layouts and constants are
// those of 64-bit little-endian Linux with asm-generic numbers (x86-64, arm64, RISC-V).

import { createRequire } from "node:module";
import { endianness } from "node:os";
import type Koffi from "koffi";
import { FarpageError } from "../base/index.js";

type KoffiModule = typeof Koffi;
type Address = number;
type AsyncDone = (error: unknown, result: number) => void;

/** Functions of the C library; each returns -1 on failure, with the reason in `Native.errno`. */
export interface Libc {
  readonly socket: (domain: number, type: number, protocol: number) => number;
  readonly bind: (fd: number, name: Address, nameBytes: number) => number;
  readonly listen: (fd: number, backlog: number) => number;
  readonly accept4: (fd: number, name: Address, nameBytes: Address, flags: number) => number;
  readonly connect: (fd: number, name: Address, nameBytes: number) => number;
  readonly getsockname: (fd: number, name: Address, nameBytes: Address) => number;
  readonly getsockopt: (
    fd: number,
    level: number,
    option: number,
    value: Address,
    valueBytes: Address,
  ) => number;
  readonly setsockopt: (
    fd: number,
    level: number,
    option: number,
    value: Address,
    valueBytes: number,
  ) => number;
  readonly recv: (fd: number, buffer: Address, length: number, flags: number) => number;
  readonly sendmsg: (fd: number, message: Address, flags: number) => number;
  readonly recvmmsg: (
    fd: number,
    messages: Address,
    count: number,
    flags: number,
    timeout: Address,
  ) => number;
  readonly sendmmsg: (fd: number, messages: Address, count: number, flags: number) => number;
  readonly close: (fd: number) => number;
  readonly read: (fd: number, buffer: Address, length: number) => number;
  readonly write: (fd: number, buffer: Address, length: number) => number;
  readonly eventfd: (value: number, flags: number) => number;
  readonly memfd_create: ((name: string, flags: number) => number) | null;
  readonly epoll_create1: (flags: number) => number;
  readonly epoll_ctl: (set: number, operation: number, fd: number, event: Address) => number;
  readonly epoll_wait: (set: number, events: Address, count: number, timeoutMs: number) => number;
  readonly ppoll: (fds: Address, count: number, timeout: Address, mask: Address) => number;
  readonly timerfd_create: (clock: number, flags: number) => number;
  readonly timerfd_settime: (fd: number, flags: number, value: Address, old: Address) => number;
  readonly prctl: (option: number, a: number, b: number, c: number, d: number) => number;
  readonly munmap: (address: Address, length: number) => number;
  readonly madvise: (address: Address, length: number, advice: number) => number;
  readonly fcntl: (fd: number, command: number, argument: Address) => number;
  readonly ioctl: (fd: number, request: number, argument: Address) => number;
  readonly pread: (fd: number, buffer: Address, length: number, offset: number) => number;
  readonly pwrite: (fd: number, buffer: Address, length: number, offset: number) => number;
  /** Null where the C library is older than the call (glibc 2.26, musl 1.2.5). */
  readonly preadv2:
    | ((fd: number, vector: Address, count: number, offset: number, flags: number) => number)
    | null;
  readonly pwritev2:
    | ((fd: number, vector: Address, count: number, offset: number, flags: number) => number)
    | null;
}

/**
 * The same kind of functions on a thread of libuv's pool; `Native.errno` is right inside `done`.
 */
export interface LibcAsync {
  readonly fallocate: (
    fd: number,
    mode: number,
    offset: number,
    length: number,
    done: AsyncDone,
  ) => void;
  /** Returns its error, unlike the others. */
  readonly posix_fadvise: (
    fd: number,
    offset: number,
    length: number,
    advice: number,
    done: AsyncDone,
  ) => void;
  readonly lseek: (fd: number, offset: number, whence: number, done: AsyncDone) => void;
}

/** A range of memory outside JavaScript's heap, never moved. */
export interface NativeBlock {
  readonly address: Address;
  readonly bytes: Uint8Array;
  readonly view: DataView;
}

/**
 * libuv's watch on one descriptor. The callback runs outside any scope of Node's: do next to
 * nothing.
 */
export interface LoopWatch {
  start(options: { readable: boolean; writable?: boolean }, callback: () => void): void;
  stop(): void;
  close(): void;
}

export interface Native {
  readonly libc: Libc;
  readonly libcAsync: LibcAsync;
  /** Descriptor that is readable when libuv has work, see uv_backend_fd; -1 where Node hides it. */
  readonly loopDescriptor: number;
  /** The errno of the foreign call before. */
  errno(): number;
  /** Where the bytes are. Only for bytes that can't move: buffers of their own, above 64 bytes. */
  addressOf(bytes: Uint8Array): Address;
  /**
   * Maps `length` bytes (whole pages) of zeroes with mmap's `flags` beside PRIVATE and ANONYMOUS.
   * @returns null when the system has no more.
   */
  map(length: number, flags: number): NativeBlock | null;
  /** A watch, stopped at first. */
  watch(descriptor: number): LoopWatch;
}

const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;
const ARCHITECTURES = ["x64", "arm64", "riscv64", "loong64"];

let native: Native | null = null;
let unavailable: string | null = null;
let tried = false;

/** Why foreign calls can't be had here, in one sentence; null when they can. */
export function foreignCallsUnavailable(): string | null {
  if (!tried) {
    tried = true;
    unavailable = tryLoad();
  }
  return unavailable;
}

/**
 * The foreign functions, loaded at the first call.
 * @throws FarpageError EOPNOTSUPP where they can't be had.
 */
export function loadNative(): Native {
  const reason = foreignCallsUnavailable();
  if (native === null) {
    throw new FarpageError("EOPNOTSUPP", reason ?? "foreign calls can't be had here");
  }
  return native;
}

/** Whether `choice` means native. @throws FarpageError EOPNOTSUPP when it must be and can't. */
export function choosesNative(choice: "native" | "node" | "auto" | undefined): boolean {
  if (choice === "node") return false;
  if (choice === "native") loadNative();
  return foreignCallsUnavailable() === null;
}

function tryLoad(): string | null {
  if (process.env["FARPAGE_BACKEND"] === "node") {
    return "foreign calls are turned off by FARPAGE_BACKEND=node";
  }
  if (process.platform !== "linux")
    return `foreign calls are made on Linux, not ${process.platform}`;
  if (endianness() !== "LE" || !ARCHITECTURES.includes(process.arch)) {
    return `foreign calls are not made on the ${process.arch} architecture`;
  }
  try {
    const koffi = createRequire(import.meta.url)("koffi") as KoffiModule;
    native = bindNative(koffi);
    return null;
  } catch (error) {
    return `foreign calls don't work here: ${(error as Error).message}`;
  }
}

function bindNative(koffi: KoffiModule): Native {
  // Null is the program itself and what it has loaded: whichever C library Node runs on.
  const library = koffi.load(null);
  const mmap = library.func("mmap", "void *", [
    "uintptr_t",
    "size_t",
    "int",
    "int",
    "int",
    "int64_t",
  ]) as (a: number, length: number, p: number, f: number, fd: number, o: number) => unknown;
  const noop = () => {};
  return {
    libc: bindLibc(library),
    libcAsync: bindLibcAsync(library),
    loopDescriptor: findLoopDescriptor(koffi, library),
    errno: () => koffi.errno(),
    addressOf: (bytes) => Number(koffi.address(bytes)),
    map: (length, flags) => {
      const pointer = mmap(0, length, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS | flags, -1, 0);
      const address = koffi.address(pointer);
      if (address === 0xffff_ffff_ffff_ffffn || address === -1n) return null;
      const buffer = koffi.view(pointer, length);
      return {
        address: Number(address),
        bytes: new Uint8Array(buffer),
        view: new DataView(buffer),
      };
    },
    watch: (descriptor) => {
      const handle = koffi.node.poll(descriptor, { readable: true }, noop);
      handle.stop();
      return handle;
    },
  };
}

type Library = ReturnType<KoffiModule["load"]>;

function bindLibc(library: Library): Libc {
  const f = (name: string, result: string, ...parameters: string[]) =>
    library.func(name, result, parameters);
  const optional: typeof f = (name, result, ...parameters) => {
    try {
      return library.func(name, result, parameters);
    } catch {
      return null as never;
    }
  };
  return {
    socket: f("socket", "int", "int", "int", "int"),
    bind: f("bind", "int", "int", "uintptr_t", "uint"),
    listen: f("listen", "int", "int", "int"),
    accept4: f("accept4", "int", "int", "uintptr_t", "uintptr_t", "int"),
    connect: f("connect", "int", "int", "uintptr_t", "uint"),
    getsockname: f("getsockname", "int", "int", "uintptr_t", "uintptr_t"),
    getsockopt: f("getsockopt", "int", "int", "int", "int", "uintptr_t", "uintptr_t"),
    setsockopt: f("setsockopt", "int", "int", "int", "int", "uintptr_t", "uint"),
    recv: f("recv", "long", "int", "uintptr_t", "size_t", "int"),
    sendmsg: f("sendmsg", "long", "int", "uintptr_t", "int"),
    recvmmsg: f("recvmmsg", "int", "int", "uintptr_t", "uint", "int", "uintptr_t"),
    sendmmsg: f("sendmmsg", "int", "int", "uintptr_t", "uint", "int"),
    close: f("close", "int", "int"),
    read: f("read", "long", "int", "uintptr_t", "size_t"),
    write: f("write", "long", "int", "uintptr_t", "size_t"),
    eventfd: f("eventfd", "int", "uint", "int"),
    memfd_create: optional("memfd_create", "int", "str", "uint"),
    epoll_create1: f("epoll_create1", "int", "int"),
    epoll_ctl: f("epoll_ctl", "int", "int", "int", "int", "uintptr_t"),
    epoll_wait: f("epoll_wait", "int", "int", "uintptr_t", "int", "int"),
    ppoll: f("ppoll", "int", "uintptr_t", "ulong", "uintptr_t", "uintptr_t"),
    timerfd_create: f("timerfd_create", "int", "int", "int"),
    timerfd_settime: f("timerfd_settime", "int", "int", "int", "uintptr_t", "uintptr_t"),
    prctl: f("prctl", "int", "int", "ulong", "ulong", "ulong", "ulong"),
    munmap: f("munmap", "int", "uintptr_t", "size_t"),
    madvise: f("madvise", "int", "uintptr_t", "size_t", "int"),
    fcntl: f("fcntl", "int", "int", "int", "uintptr_t"),
    ioctl: f("ioctl", "int", "int", "ulong", "uintptr_t"),
    pread: f("pread", "long", "int", "uintptr_t", "size_t", "int64_t"),
    pwrite: f("pwrite", "long", "int", "uintptr_t", "size_t", "int64_t"),
    preadv2: optional("preadv2", "long", "int", "uintptr_t", "int", "int64_t", "int"),
    pwritev2: optional("pwritev2", "long", "int", "uintptr_t", "int", "int64_t", "int"),
  };
}

function bindLibcAsync(library: Library): LibcAsync {
  const f = (name: string, result: string, ...parameters: string[]) =>
    library.func(name, result, parameters).async;
  return {
    fallocate: f("fallocate", "int", "int", "int", "int64_t", "int64_t"),
    posix_fadvise: f("posix_fadvise", "int", "int", "int64_t", "int64_t", "int"),
    lseek: f("lseek", "int64_t", "int", "int64_t", "int"),
  };
}

/**
 * libuv's embedding interface (uv_backend_fd): its own epoll set, ready when the loop has events.
 */
function findLoopDescriptor(koffi: KoffiModule, library: Library): number {
  try {
    const getLoop = library.func("napi_get_uv_event_loop", "int", ["void *", "void *"]);
    const backend = library.func("uv_backend_fd", "int", ["uintptr_t"]);
    const out = new BigUint64Array(1);
    if (getLoop(koffi.node.env, out) !== 0) return -1;
    return backend(Number(out[0])) as number;
  } catch {
    return -1;
  }
}

// SPDX-License-Identifier: MIT
// What this room hands out, as interfaces: each has a native implementation (foreign calls into the
// C library, Linux) and one on Node's own modules where foreign calls are not to be had.
//
// The pattern of a turn, for `runtime/`:
//
//   poller.poll();                which sources are ready, one system call for all of them
//   ... receive, pump, send ...
//   poller.waitBriefly(ns);       when there was nothing to do, for a millisecond or two
//   await poller.wait(ns);        after that
//
// Two processes that answer each other, one small packet at a time (two cores, a virtual machine;
// round trip and the processor time it took): spinning on poll 8 us, but milliseconds when others
// want the cores; waitBriefly 12 us and 11 us; wait 21 us and 18 us; spinning for 30 us before each
// wait 80 us, since both sides just miss each other. A second of waitBriefly without traffic costs
// 5 % of a core, of wait nothing.

import type { MemorySource } from "../base/index.js";
import type { BlockFile } from "../block/index.js";
import type { PhysicalMemory } from "../mm/index.js";
import type { ByteStream } from "../nbd/index.js";
import type { Link } from "../transport/index.js";
import type { Steering } from "../wire/index.js";
import type { BoundSocket } from "./udp-socket.js";

/** How something of this room is built: by foreign calls, or on Node's own modules. */
export type Backend = "native" | "node";

/** Which one to take: `"auto"` is native where it works. */
export type BackendChoice = Backend | "auto";

/** Something that can become ready; its owner looks at the two flags after `Poller.poll`. */
export interface ReadySource {
  /**
   * Bytes, datagrams, a connection, the end of the stream or an error can be had; as of the last
   * `Poller.poll`. A hint: acting without it is allowed and harmless.
   */
  readonly readable: boolean;
  /** The same for room to write; only kept up while interest in it is set. */
  readonly writable: boolean;
}

/** A descriptor in a native poller's set. */
export interface PolledDescriptor extends ReadySource {
  /** What the descriptor wakes for from now on. Free of charge when nothing changes. */
  setInterest(read: boolean, write: boolean): void;
  /**
   * Takes it out of the set. To be called before the descriptor is closed; a second call does
   * nothing.
   */
  remove(): void;
}

/** Waits for descriptors, time and `wake`; one per lane. All calls are made on one thread. */
export interface Poller extends Disposable {
  readonly backend: Backend;
  /** Descriptors in the set. */
  readonly descriptorCount: number;
  /**
   * As of the last `waitBriefly`: callbacks of libuv (threads, signals, sockets) wait to be run.
   */
  readonly eventLoopIsReady: boolean;
  /**
   * Adds a descriptor, interested in reading.
   * @throws FarpageError EOPNOTSUPP on the node backend, which can't watch descriptors.
   */
  add(descriptor: number): PolledDescriptor;
  /** Looks, never blocks; brings the flags of all sources up to date.
   * @returns how many are ready; above 0 on the node backend when anything woke it since the last
   *   call.
   */
  poll(): number;
  /**
   * Blocks this thread until a source is ready, libuv has work to do (a timer aside), or some time
   * is over: at most `timeoutNs` and at most one millisecond, often less; then does as `poll`. The
   * node backend does not block: it is `poll`.
   *
   * Node's event loop stands still meanwhile. The caller lets it turn (setImmediate) when
   * `eventLoopIsReady`, and every millisecond or so in any case, for Node's timers.
   */
  waitBriefly(timeoutNs: number): number;
  /**
   * Sleeps without using a processor until a source is ready, `wake` is called, or `timeoutNs`
   * (`Infinity`: no bound) is over. Node's event loop turns meanwhile. One waiter at a time. The
   * flags of the sources are as of some time during the wait: `poll` afterwards.
   */
  wait(timeoutNs: number): Promise<void>;
  /** Ends a `wait`, or the next one at once when none is under way. */
  wake(): void;
  /**
   * Ends a `wait` and frees the poller; its descriptors remain the property of those who added
   * them.
   */
  close(): void;
}

export interface LinkOptions {
  /** Local addresses; index = port index of the link. At least one, each once. */
  readonly addresses: readonly string[];
  /** Woken by what arrives. */
  readonly poller: Poller;
  /** UDP port, 4791 by default; 0 lets the system choose (tests). */
  readonly port?: number;
  /**
   * Wanted for the receive buffers, in bytes of payload; by default what the system grants, up to 8
   * MiB.
   */
  readonly receiveBufferBytes?: number;
  /** Bursts that one `receive` brings at most, each 64 KiB of memory; 16 by default. */
  readonly burstCount?: number;
  readonly backend?: BackendChoice;
  /**
   * Whether packets may be handed over in bursts for the system to cut up (GSO); default true. To
   * be turned off for a network device that numbers the packets of a burst by a rule of its own,
   * against peers that check the ICRC with the IP identification (facts page, section 7.1).
   */
  readonly segmentation?: boolean;
  /** Told once, in a sentence, when something works less well than it could. */
  readonly onNotice?: (message: string) => void;
  /**
   * Native alone: one lane's of `bindLaneSockets`, for the same addresses in the same order; they
   * stay open when the link closes.
   */
  readonly sockets?: readonly BoundSocket[];
}

export interface LaneSocketOptions {
  readonly addresses: readonly string[];
  readonly steering: Steering;
  /** 4791 by default; 0 lets the system choose (tests). */
  readonly port?: number;
}

/** Sockets of all lanes of a host. Plain data but for `close`: they can be posted to threads. */
export interface LaneSockets {
  /** By lane, then by address. */
  readonly lanes: readonly (readonly BoundSocket[])[];
  /** Preconditions: no lane uses them any more. */
  close(): void;
}

/** What a link has counted since it was opened. */
export interface LinkCounters {
  receiveCalls: number;
  receivedBursts: number;
  receivedBytes: number;
  sendCalls: number;
  sentMessages: number;
  sentBytes: number;
  /** Times that the system took no more for now. */
  sendStalls: number;
  /** Messages that could not be sent at all (no route, refused, too long): counted as sent. */
  sendFailures: number;
  /** Errors that ICMP reported on a socket and that were put aside. */
  pendingErrors: number;
  /** Datagrams that were cut off or malformed on their way through the socket. */
  receiveDrops: number;
  /** Bursts with packets of another lane: handed on to it, and those it had no room for. */
  handedOn: number;
  handedOnLost: number;
}

/** An open link. Its bursts are mapped memory: not to be touched after `close`. */
export interface OsLink extends Link, ReadySource, Disposable {
  readonly backend: Backend;
  /** What this backend can't do, in one sentence for a person; null when nothing. */
  readonly limitation: string | null;
  /** The UDP port that was bound. */
  readonly port: number;
  readonly counters: Readonly<LinkCounters>;
  /** Asks the poller to wake when sockets take datagrams again; for a `send` that stopped early. */
  setWantsWrite(wanted: boolean): void;
  close(): void;
}

/**
 * Where a stream listens or connects: a Unix socket's path, or a TCP host (name or address) and
 * port.
 */
export type StreamAddress =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

export interface StreamOptions {
  readonly poller: Poller;
  readonly backend?: BackendChoice;
  /** Connections that wait for `accept`; 128 by default. */
  readonly backlog?: number;
}

/** A connected stream socket. */
export interface OsStream extends ByteStream, ReadySource {
  /** What wakes the poller from now on. */
  setInterest(read: boolean, write: boolean): void;
  /**
   * Lets go of the socket without closing it, for `adoptStream` on another thread.
   * @returns its descriptor, or -1 where it has none; the stream is closed then, too.
   */
  detach(): number;
}

/** A listening stream socket. */
export interface StreamListener extends ReadySource, Disposable {
  /** Where it listens, with the port that was really bound. */
  readonly address: StreamAddress;
  /**
   * The next connection, or null when none waits. A connection that failed meanwhile is skipped.
   */
  accept(): OsStream | null;
  /** Closes the socket and, where it made one, removes its socket file. */
  close(): void;
}

export interface BlockFileOptions {
  readonly readOnly?: boolean;
  /** Makes the file, sparse and `sizeBytes` long, when there is none. */
  readonly create?: boolean;
  /** Size of a file that `create` makes; a multiple of 512. */
  readonly sizeBytes?: number;
  /** Woken when a started operation finishes. */
  readonly poller: Poller;
  readonly backend?: BackendChoice;
  /**
   * Of the same file, open in this process, with the lock where there is one: opened is what it
   * stands for, and the path only names it. For further lanes of a host. Linux alone.
   */
  readonly descriptor?: number;
}

/** An open file or block special file that frees itself. */
export interface OsBlockFile extends BlockFile, Disposable {
  readonly backend: Backend;
  /** For `BlockFileOptions.descriptor`, as long as this file is open. */
  readonly descriptor: number;
}

export interface MemorySourceOptions {
  /** Bytes that may be allocated in all; unlimited by default. */
  readonly limitBytes?: number;
  /** Touch every page at once, so that the first use doesn't fault. */
  readonly populate?: boolean;
  /** Advise the kernel to use transparent huge pages (default true). */
  readonly hugePages?: boolean;
  /**
   * Take pages of 2 MiB that the administrator has set aside (`vm.nr_hugepages`), while there are
   * some (default false: they are meant for somebody).
   */
  readonly hugetlb?: boolean;
  readonly backend?: BackendChoice;
}

/** What the system has given for an arena's sections. */
export interface SystemPages {
  readonly mappedBytes: number;
  /** In memory now: what has been touched. */
  readonly residentBytes: number;
  /** Of those, in transparent huge pages. */
  readonly transparentHugeBytes: number;
  /** In pages of hugetlbfs. */
  readonly hugetlbBytes: number;
}

/** A host's memory: buffers out of an arena of frames. */
export interface OsMemorySource extends MemorySource, Disposable {
  readonly backend: Backend;
  /** Bytes allocated and not freed, in whole pages. */
  readonly allocatedBytes: number;
  /** Bytes that are mapped for the arena, touched or not. */
  readonly sectionBytesTotal: number;
  /** The frames behind it. */
  readonly memory: PhysicalMemory;
  /** What pages it got; null where the system doesn't tell. Reads a file: not for hot paths. */
  systemPages(): SystemPages | null;
  /** Frees everything that is still allocated. */
  close(): void;
}

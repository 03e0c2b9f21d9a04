// SPDX-License-Identifier: MIT
// The TCP connection over which programs without a connection manager tell each other their queue
// pairs. What comes over it is checked by who reads it; here is only the reading of so many bytes.

import { createServer, connect as netConnect, type Server, type Socket } from "node:net";
import { FarpageError } from "../runtime/index.js";
import { interruptible } from "./environment.js";

/** Bytes that may wait unread; a peer that sends more than any of these protocols is none. */
const WAITING_MAX = 1 << 20;

/** A TCP connection read in exact pieces. One reader at a time. */
export class SideChannel implements Disposable {
  readonly remoteAddress: string;
  /** The local address of the connection; IPv4 without the IPv6 prefix. */
  readonly localAddress: string;
  /** Settles when the peer has ended the connection or it broke; what came before can be read. */
  readonly ended: Promise<FarpageError>;
  private readonly socket: Socket;
  private readonly signal: AbortSignal;
  private waiting = Buffer.alloc(0);
  private endedBy: FarpageError | null = null;
  private settleEnded: (reason: FarpageError) => void = () => {};
  private notify: (() => void) | null = null;

  /** Internal: use `connect`, or `SideListener.accept`. */
  constructor(socket: Socket, signal: AbortSignal) {
    this.socket = socket;
    this.signal = signal;
    this.remoteAddress = (socket.remoteAddress ?? "").replace(/^::ffff:/, "");
    this.localAddress = (socket.localAddress ?? "").replace(/^::ffff:/, "");
    this.ended = new Promise((resolve) => {
      this.settleEnded = resolve;
    });
    socket.setNoDelay(true);
    socket.on("data", (bytes) => {
      this.waiting = Buffer.concat([this.waiting, bytes]);
      if (this.waiting.length > WAITING_MAX) {
        this.end(new FarpageError("EPROTO", "the peer sends more over TCP than makes sense"));
        socket.destroy();
      }
      this.notify?.();
    });
    socket.on("end", () => this.end(closedByPeer()));
    socket.on("close", () => this.end(closedByPeer()));
    socket.on("error", (error: NodeJS.ErrnoException) => {
      this.end(
        new FarpageError(error.code ?? "EIO", `TCP to ${this.remoteAddress}: ${error.message}`),
      );
    });
    // One that broke while nobody had taken it has told so already.
    if (socket.destroyed) this.end(closedByPeer());
  }

  /**
   * Connects to a program that listens.
   * @param options.timeoutMs default 10,000.
   * @throws FarpageError ECONNREFUSED, EHOSTUNREACH, ETIMEDOUT and the like, EINTR.
   */
  static async connect(options: {
    readonly address: string;
    readonly port: number;
    /** Local address to connect from; default: what the routes say. */
    readonly source?: string;
    readonly timeoutMs?: number;
    readonly signal: AbortSignal;
  }): Promise<SideChannel> {
    const { address, port, signal } = options;
    const timeoutMs = options.timeoutMs ?? 10_000;
    const socket = netConnect({
      host: address,
      port,
      ...(options.source === undefined ? {} : { localAddress: options.source }),
    });
    let timer: NodeJS.Timeout | undefined;
    const connected = new Promise<void>((resolve, reject) => {
      socket.once("connect", () => resolve());
      socket.once("error", (error) => reject(connectFailure(error, address, port)));
      timer = setTimeout(() => {
        reject(new FarpageError("ETIMEDOUT", `${address} TCP port ${port} does not answer`));
      }, timeoutMs);
    });
    try {
      await interruptible(signal, connected);
    } catch (error) {
      socket.on("error", () => {});
      socket.destroy();
      throw error;
    } finally {
      clearTimeout(timer);
    }
    return new SideChannel(socket, signal);
  }

  /**
   * Exactly `length` bytes, or fewer when the peer ended the connection and `options.orEnd` says
   * that this is no error.
   * @throws FarpageError ECONNRESET when the peer ends before; ETIMEDOUT; EINTR.
   */
  async read(
    length: number,
    options: { readonly timeoutMs?: number; readonly orEnd?: boolean } = {},
  ): Promise<Uint8Array> {
    const deadlineMs = performance.now() + (options.timeoutMs ?? Number.POSITIVE_INFINITY);
    while (this.waiting.length < length) {
      if (this.endedBy !== null) {
        if (options.orEnd !== true) throw this.endedBy;
        break;
      }
      await this.wait(deadlineMs);
    }
    const bytes = Uint8Array.from(this.waiting.subarray(0, length));
    this.waiting = this.waiting.subarray(bytes.length);
    return bytes;
  }

  /** Sends; text as UTF-8. What can't be sent shows at the next `read`. */
  write(bytes: Uint8Array | string): void {
    if (this.endedBy === null) this.socket.write(bytes);
  }

  /** Ends this side after what was written; no-op when it is over. */
  close(): void {
    this.socket.end();
  }

  [Symbol.dispose](): void {
    this.close();
    // Whatever the peer still says is of no interest, but must not keep the process.
    this.socket.unref();
  }

  private async wait(deadlineMs: number): Promise<void> {
    const leftMs = deadlineMs - performance.now();
    let timer: NodeJS.Timeout | undefined;
    const moved = new Promise<void>((resolve, reject) => {
      this.notify = resolve;
      if (!Number.isFinite(leftMs)) return;
      const late = new FarpageError("ETIMEDOUT", `${this.remoteAddress} says nothing over TCP`);
      timer = setTimeout(() => reject(late), Math.max(0, leftMs));
    });
    try {
      await interruptible(this.signal, moved);
    } finally {
      this.notify = null;
      clearTimeout(timer);
    }
  }

  private end(error: FarpageError): void {
    this.endedBy ??= error;
    this.settleEnded(this.endedBy);
    this.notify?.();
  }
}

function closedByPeer(): FarpageError {
  return new FarpageError("ECONNRESET", "the peer closed the TCP connection");
}

function connectFailure(error: NodeJS.ErrnoException, address: string, port: number): FarpageError {
  const code = error.code ?? "EIO";
  const why = code === "ECONNREFUSED" ? "nobody listens there" : error.message;
  return new FarpageError(code, `${address} TCP port ${port}: ${why}`);
}

/** A TCP port on which peers connect. */
export class SideListener implements Disposable {
  readonly port: number;
  private readonly server: Server;
  private readonly signal: AbortSignal;
  private readonly accepted: Socket[] = [];
  private notify: (() => void) | null = null;

  private constructor(server: Server, signal: AbortSignal) {
    this.server = server;
    this.signal = signal;
    const bound = server.address();
    this.port = bound !== null && typeof bound === "object" ? bound.port : 0;
    server.on("connection", (socket) => {
      // Until somebody takes it, its end is of no interest.
      socket.on("error", () => {});
      this.accepted.push(socket);
      this.notify?.();
    });
  }

  /**
   * @param options.port 0 takes a free one.
   * @param options.address one local address; default: all.
   * @throws FarpageError EADDRINUSE, EADDRNOTAVAIL, EACCES.
   */
  static async listen(options: {
    readonly port: number;
    readonly address?: string;
    readonly signal: AbortSignal;
  }): Promise<SideListener> {
    const server = createServer();
    const { address, port } = options;
    await new Promise<void>((resolve, reject) => {
      server.once("error", (error: NodeJS.ErrnoException) => {
        const place = `TCP port ${port}${address === undefined ? "" : ` of ${address}`}`;
        const why = error.code === "EADDRINUSE" ? "another program listens there" : error.message;
        reject(new FarpageError(error.code ?? "EIO", `${place}: ${why}`));
      });
      server.listen({ port, ...(address === undefined ? {} : { host: address }) }, resolve);
    });
    return new SideListener(server, options.signal);
  }

  /** The next peer's connection. @throws FarpageError EINTR. */
  async accept(): Promise<SideChannel> {
    for (;;) {
      const socket = this.accepted.shift();
      if (socket !== undefined) return new SideChannel(socket, this.signal);
      const moved = new Promise<void>((resolve) => {
        this.notify = resolve;
      });
      await interruptible(this.signal, moved).finally(() => {
        this.notify = null;
      });
    }
  }

  /** Stops listening; connections that nobody took are closed. */
  close(): void {
    this.server.close();
    for (const socket of this.accepted.splice(0)) socket.destroy();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

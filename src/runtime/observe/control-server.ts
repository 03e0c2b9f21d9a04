// SPDX-License-Identifier: MIT
// The control socket of a running instance: a Unix socket that its user alone can open. Whoever
// connects may be anything: lines are bounded and checked, connections are few, and one that says
// nothing is closed.

import { chmodSync, unlinkSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { FarpageError } from "../../base/index.js";
import { isAnswering } from "./control-client.js";
import { type ControlRequest, REQUEST, REQUEST_BYTES_MAX } from "./protocol.js";
import { makeRuntimeFolder, SOCKET_PATH_BYTES_MAX } from "./runtime-folder.js";

const CONNECTION_COUNT_MAX = 16;
/** How long a connection may be without a request or a stream. */
const IDLE_MS = 10_000;
/** Instances of one process that are told apart. */
const INSTANCE_COUNT_MAX = 64;

/** What a request is answered with. */
export interface ControlAnswer {
  /** Fields of the answer. */
  readonly reply: Readonly<Record<string, unknown>>;
  /** The connection is this stream's from now on, once the answer has been sent. */
  readonly stream?: (connection: ControlConnection) => void;
}

export type ControlHandler = (request: ControlRequest) => ControlAnswer | Promise<ControlAnswer>;

/** One connection. */
export class ControlConnection {
  /** Called for each further request while a stream runs, and when the asker is gone. */
  onRequest: ((request: ControlRequest) => void) | null = null;
  onGone: (() => void) | null = null;
  private readonly socket: Socket;
  private readonly answer: ControlHandler;
  private line = "";
  private isStreaming = false;
  /** What it says further is not listened to. */
  private isRefused = false;
  /** It has not taken its last answers: further requests wait, and it may say no more. */
  private isFull = false;

  constructor(socket: Socket, answer: ControlHandler) {
    this.socket = socket;
    this.answer = answer;
    socket.setEncoding("utf8");
    socket.setTimeout(IDLE_MS, () => {
      if (!this.isStreaming) socket.destroy();
    });
    socket.on("data", (text) => this.take(String(text)));
    // An asker that goes is nothing to report.
    socket.on("error", () => {});
    socket.on("close", () => this.onGone?.());
  }

  /** Sends bytes of a stream. Rejects when the asker is gone. */
  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.socket.destroyed) {
        reject(new FarpageError("EPIPE", "the reader is gone"));
        return;
      }
      this.socket.write(bytes, (error) => {
        if (error) reject(error);
        else resolve();
      });
    });
  }

  /** Ends the connection. @returns when all is sent, or the asker is gone. */
  end(): Promise<void> {
    return new Promise((resolve) => {
      if (this.socket.destroyed) resolve();
      this.socket.once("close", () => resolve());
      this.socket.end(() => resolve());
    });
  }

  destroy(): void {
    this.socket.destroy();
  }

  private take(text: string): void {
    if (!this.isRefused) this.line += text;
    while (!this.isRefused && !this.isFull) {
      const end = this.line.indexOf("\n");
      if ((end < 0 ? this.line.length : end) > REQUEST_BYTES_MAX) {
        this.refuse("EMSGSIZE", `a request has at most ${REQUEST_BYTES_MAX} characters`);
      }
      if (end < 0 || this.isRefused) return;
      const line = this.line.slice(0, end);
      this.line = this.line.slice(end + 1);
      this.takeLine(line);
    }
  }

  private takeLine(line: string): void {
    let request: ControlRequest;
    try {
      request = REQUEST.parse(JSON.parse(line));
    } catch {
      this.refuse("EINVAL", "not a request that this version knows");
      return;
    }
    if (this.isStreaming) {
      this.onRequest?.(request);
      return;
    }
    try {
      const answer = this.answer(request);
      if (answer instanceof Promise) this.waitForAnswer(answer);
      else this.send(answer);
    } catch (error) {
      this.refuseWith(error);
    }
  }

  private send({ reply, stream }: ControlAnswer): void {
    const hasRoom = this.socket.write(`${JSON.stringify({ ok: true, ...reply })}\n`);
    if (stream === undefined) {
      if (!hasRoom) this.waitForRoom();
      return;
    }
    this.isStreaming = true;
    stream(this);
  }

  /** Other threads are asked: what comes meanwhile waits. */
  private waitForAnswer(answer: Promise<ControlAnswer>): void {
    this.isFull = true;
    this.socket.pause();
    answer
      .then((own) => {
        this.isFull = false;
        this.send(own);
        if (!this.isFull) this.goOn();
      })
      .catch((error) => this.refuseWith(error));
  }

  /** It may say more, and what it has said already is looked at. */
  private goOn(): void {
    this.isFull = false;
    this.socket.resume();
    this.take("");
  }

  private refuseWith(error: unknown): void {
    const code = error instanceof FarpageError ? error.code : "EBUG";
    this.refuse(code, error instanceof Error ? error.message : String(error));
  }

  private waitForRoom(): void {
    this.isFull = true;
    this.socket.pause();
    this.socket.once("drain", () => this.goOn());
  }

  private refuse(code: string, text: string): void {
    this.isRefused = true;
    this.line = "";
    if (this.isStreaming) this.socket.destroy();
    else this.socket.end(`${JSON.stringify({ ok: false, code, text })}\n`);
  }
}

/** See the head of the file. */
export class ControlServer {
  readonly path: string;
  private readonly server: Server;
  private readonly connections: ReadonlySet<ControlConnection>;

  private constructor(path: string, server: Server, connections: ReadonlySet<ControlConnection>) {
    this.path = path;
    this.server = server;
    this.connections = connections;
  }

  /**
   * Listens in `folder`, at `PID.sock` or, where another host of this process is there, at
   * `PID-N.sock`. A socket that a former process of this number has left is replaced.
   * @throws FarpageError EACCES, ENAMETOOLONG and others, naming the path.
   */
  static async open(folder: string, answer: ControlHandler): Promise<ControlServer> {
    makeRuntimeFolder(folder);
    const path = await freePath(folder);
    const connections = new Set<ControlConnection>();
    const server = createServer((socket) => {
      const connection = new ControlConnection(socket, answer);
      connections.add(connection);
      socket.on("close", () => connections.delete(connection));
    });
    server.maxConnections = CONNECTION_COUNT_MAX;
    await new Promise<void>((resolve, reject) => {
      server.once("error", (cause: NodeJS.ErrnoException) => {
        const code = cause.code ?? "EIO";
        reject(new FarpageError(code, `can't listen on ${path}: ${code}`, { cause }));
      });
      server.listen(path, resolve);
    });
    server.on("error", () => {});
    // Nobody else could have connected before: the folder is this user's.
    chmodSync(path, 0o600);
    server.unref();
    return new ControlServer(path, server, connections);
  }

  /** Ends all connections and removes the socket. */
  async close(): Promise<void> {
    for (const connection of this.connections) connection.destroy();
    await new Promise<void>((resolve) => this.server.close(() => resolve()));
  }
}

async function freePath(folder: string): Promise<string> {
  for (let index = 0; index < INSTANCE_COUNT_MAX; index++) {
    const name = index === 0 ? `${process.pid}.sock` : `${process.pid}-${index}.sock`;
    const path = join(folder, name);
    if (Buffer.byteLength(path) > SOCKET_PATH_BYTES_MAX) {
      throw new FarpageError(
        "ENAMETOOLONG",
        `${path} is too long for a Unix socket; set XDG_RUNTIME_DIR to a shorter folder`,
      );
    }
    const state = await isAnswering(path);
    if (state === "answers") continue;
    if (state === "stale") unlinkSync(path);
    return path;
  }
  throw new FarpageError("ENFILE", `this process has ${INSTANCE_COUNT_MAX} hosts already`);
}

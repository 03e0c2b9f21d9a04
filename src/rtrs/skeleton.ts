// SPDX-License-Identifier: MIT
// The signatures of the door while the bodies are being written.
import type { IpAddress, Machine, Memory } from "../base/index.js";
import type { ClientRequest } from "./client-request.js";
import type { RtrsClientUser } from "./client-user.js";
import type { RtrsEnvironment } from "./environment.js";
import type { RtrsClientOptions, RtrsServerOptions } from "./options.js";
import type { ServerSession } from "./server-session.js";
import type { RtrsServerUser } from "./server-user.js";

export type RtrsClientState =
  | "IDLE"
  | "CONNECTING"
  | "CONNECTED"
  | "RECONNECTING"
  | "CLOSING"
  | "CLOSED";

export declare class RtrsClient implements Machine {
  constructor(environment: RtrsEnvironment, options: RtrsClientOptions, user: RtrsClientUser);
  readonly sessionName: string;
  readonly state: RtrsClientState;
  /** Permits of the session, 0 before it first connected. */
  readonly queueDepth: number;
  /** Largest data length of a request, 0 before it first connected. */
  readonly maxIoBytes: number;
  readonly chunkBytes: number;
  readonly userBytesMax: number;
  /** Requests submitted and not completed. */
  readonly inflight: number;
  connect(): void;
  close(): void;
  acquire(): ClientRequest | null;
  acquireReserved(): ClientRequest | null;
  submitRead(request: ClientRequest, dataLength: number): void;
  submitWrite(request: ClientRequest, dataLength: number): void;
  release(request: ClientRequest): void;
  reissue(): void;
  failWaiting(errno: number): void;
  registerMemory(memory: Memory): void;
  unregisterMemory(memory: Memory): void;
  pump(nowNs: number): void;
  deadlineNs(): number;
  checkInvariants(): void;
}

export declare class RtrsServer implements Machine {
  constructor(environment: RtrsEnvironment, options: RtrsServerOptions, user: RtrsServerUser);
  readonly queueDepth: number;
  readonly chunkBytes: number;
  readonly maxIoBytes: number;
  readonly memoryBytesMax: number;
  readonly addresses: readonly IpAddress[] | null;
  sessions(): readonly ServerSession[];
  close(): void;
  readonly isClosed: boolean;
  pump(nowNs: number): void;
  deadlineNs(): number;
  checkInvariants(): void;
}

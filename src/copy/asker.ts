// SPDX-License-Identifier: MIT
// Who wants to be sent files: one PULL on a session of its own, which stays up while they come. The
// files themselves come by a session the other way (docs/rtrs.md).

import { ERRNO, errnoName, FarpageError, type Machine } from "../base/index.js";
import {
  type ClientRequest,
  RtrsClient,
  type RtrsClientOptions,
  type RtrsClientUser,
  type RtrsEnvironment,
} from "../rtrs/index.js";
import { showByteText } from "./byte-text.js";
import { COPY_TYPE, CopyHeader, writeCopyHeader } from "./messages.js";
import type { CopyPull } from "./sink.js";
import { COPY_SESSION, type CopySession } from "./source-link.js";

export interface CopyAskerOptions {
  readonly rtrs: Omit<RtrsClientOptions, "userBytesMax">;
  readonly pull: Omit<CopyPull, "key">;
  readonly run: { readonly high: number; readonly low: number };
}

export class CopyAsker implements Machine, RtrsClientUser {
  /** The other end has agreed. */
  isAccepted = false;
  error: FarpageError | null = null;
  readonly session: CopySession;
  private readonly options: CopyAskerOptions;

  /** @throws FarpageError E2BIG when the paths don't fit a request; as `RtrsClient`. */
  constructor(
    environment: RtrsEnvironment,
    options: CopyAskerOptions,
    createSession: (user: RtrsClientUser) => CopySession = (user) =>
      new RtrsClient(environment, { ...options.rtrs, ...COPY_SESSION }, user),
  ) {
    this.options = options;
    const { paths } = options.pull;
    if (paths.reduce((sum, path) => sum + path.length + 1, 0) > PATHS_BYTES_MAX) {
      throw new FarpageError("E2BIG", "so many names do not fit one request: ask for their folder");
    }
    this.session = createSession(this);
  }

  connect(): void {
    this.session.connect();
  }

  close(): void {
    if (this.session.state !== "CLOSED") this.session.close();
  }

  get isClosed(): boolean {
    return this.session.state === "CLOSED";
  }

  pump(nowNs: number): void {
    if (this.session.state !== "CLOSED") this.session.pump(nowNs);
  }

  deadlineNs(): number {
    return this.session.state === "CLOSED" ? Infinity : this.session.deadlineNs();
  }

  checkInvariants(): void {
    this.session.checkInvariants();
  }

  onSessionUp(): void {
    // Asked again, since the server may have begun anew: one that has not knows the run.
    this.session.reissue();
    const request = this.session.acquire();
    if (request === null) return;
    request.retry = false;
    const { pull, run } = this.options;
    const header = new CopyHeader();
    header.type = COPY_TYPE.PULL;
    header.argument = pull.port;
    header.runHigh = run.high;
    header.runLow = run.low;
    header.path = `${pull.token}${pull.paths.map((path) => `${path}\0`).join("")}`;
    request.userLength = writeCopyHeader(header, request.userMessage, request.userView);
    request.memory = null;
    this.session.submitRead(request, 0);
  }

  onSessionDown(): void {
    // What was agreed stays agreed.
  }

  onSessionFailed(error: FarpageError): void {
    this.error ??= error;
  }

  onRequestReissue(_request: ClientRequest): number {
    return 0;
  }

  onRequestComplete(request: ClientRequest): void {
    const { errno } = request;
    this.session.release(request);
    if (errno === 0) this.isAccepted = true;
    // Lost on the way: asked again when the session is back.
    if (errno === 0 || errno === ERRNO.ECONNRESET || errno === ERRNO.ESHUTDOWN) return;
    const name = errnoName(errno);
    const what = this.options.pull.paths.map(showByteText).join(", ");
    this.error ??= new FarpageError(name, `the server does not send "${what}": ${name}`);
  }

  onPermitAvailable(): void {
    // One request is all there is.
  }
}

/** What is left of a user message. */
const PATHS_BYTES_MAX = 3_900;

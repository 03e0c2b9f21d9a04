// SPDX-License-Identifier: MIT
import type { FarpageError } from "../../base/index.js";
import type { ClientRequest } from "./client-request.js";
import type { RtrsClientPath } from "./path-context.js";

/**
 * What a client session tells the protocol on top of it. All are called from `RtrsClient.pump`
 * alone, and may call any method of the client but `pump`.
 */
export interface RtrsClientUser {
  /**
   * The session is connected, for the first time or again. The first time requests pass at once.
   * After a reconnect they wait (those that were in flight, and those submitted since) until
   * `RtrsClient.reissue` is called; only requests with `retry = false` pass, so that the user can
   * open its things anew first, and settle what `RtrsClient.unsettledCount` counts.
   */
  onSessionUp(): void;
  /** The last path is lost; the session will try to come back until `close`. */
  onSessionDown(): void;
  /**
   * A path takes requests, or takes none any more (`path.lastError` says why); its requests have
   * gone on by another path then, if there is one. Before `onSessionUp` and `onSessionDown`.
   */
  onPathUp?(path: RtrsClientPath): void;
  onPathDown?(path: RtrsClientPath): void;
  /**
   * The session has given up for good: never connected within the attempts it was given, or refused
   * for a reason that no later attempt can mend. Every request has completed by then.
   */
  onSessionFailed(error: FarpageError): void;
  /**
   * `request` is about to be sent (again) by `reissue`: the user may rewrite its user message,
   * which may name things that the server has forgotten.
   * @returns 0 to send it, or the errno to complete it with instead.
   */
  onRequestReissue(request: ClientRequest): number;
  /** `request.errno` tells how it went. The request and its memory are the caller's again. */
  onRequestComplete(request: ClientRequest): void;
  /** `acquire` returned null before; now a permit is free. */
  onPermitAvailable(): void;
}

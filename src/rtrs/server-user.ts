// SPDX-License-Identifier: MIT
import type { IpAddress } from "../base/index.js";
import type { ServerRequest } from "./server-request.js";
import type { ServerSession } from "./server-session.js";

/**
 * What an RTRS server tells the protocol on top of it. All are called from `RtrsServer.pump` alone,
 * and may call any method of the server, its sessions and its requests but `pump`.
 */
export interface RtrsServerUser {
  /**
   * A client asks for a path, before anything is made for it. Default: all are let in.
   * @param client the address that its packets come from, and answers go to.
   * @param session the session that the path would join; null for a new one.
   * @returns 0, or the errno to refuse with.
   */
  admit?(client: IpAddress, session: ServerSession | null): number;
  /** The first path of a session is connected; requests of it follow. */
  onSessionUp(session: ServerSession): void;
  /**
   * The last path of a session is gone and every request of it is complete: nothing of the session
   * is in a device any more, and only now can the client connect again.
   */
  onSessionDown(session: ServerSession): void;
  /**
   * A request. The user answers by `request.complete`, here or later, exactly once, even after the
   * session has lost its connections.
   */
  onRequest(request: ServerRequest): void;
}

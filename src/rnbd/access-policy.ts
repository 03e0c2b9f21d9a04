// SPDX-License-Identifier: MIT
// A server's access rules, as they apply to sessions and to opens of volumes.

import { ERRNO, errnoName, type IpAddress } from "../base/index.js";
import type { AccessRules } from "../rtrs/index.js";
import { RNBD_ACCESS } from "../wire/index.js";
import type { OpenAttempt, OpenVerdict, RnbdServerOptions } from "./rnbd-server.js";

/** A refusal, for logs: what makes it the same as another, and the whole of it in words. */
export type RefusalSink = (kind: string, text: string) => void;

/**
 * The options that make a server keep `rules`.
 * @param onRefused hears of each refusal with the rule behind it, since a client hears an errno
 *   alone.
 */
export function accessPolicy(
  rules: AccessRules,
  onRefused: RefusalSink = () => {},
): Required<RnbdServerOptions> {
  return {
    admit(client: IpAddress): number {
      if (rules.admits(client)) return 0;
      onRefused(`session ${client}`, `client ${client} refused with EACCES: no rule is for it`);
      return ERRNO.EACCES;
    },
    authorize(attempt: OpenAttempt): OpenVerdict {
      const rule = rules.find(attempt.clientAddress, attempt.sessionName, attempt.volumeName);
      const level = rule?.level ?? "none";
      const isRead = attempt.access === RNBD_ACCESS.RO;
      if (level === "rw" || level === "exclusive" || (level === "ro" && isRead)) {
        return { errno: 0, exclusive: level === "exclusive" };
      }
      const errno = level === "ro" ? ERRNO.EROFS : ERRNO.EACCES;
      const reason = rule === null ? "no rule is for it" : `rule "${rule.text}"`;
      const { clientAddress, sessionName, volumeName } = attempt;
      onRefused(
        `open ${clientAddress} ${volumeName} ${errno}`,
        `client ${clientAddress}, session "${sessionName}", refused with ${errnoName(errno)} ` +
          `when it ${isRead ? "reads" : "writes"} volume "${volumeName}": ${reason}`,
      );
      return { errno, exclusive: false };
    },
  };
}

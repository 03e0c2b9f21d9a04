// SPDX-License-Identifier: MIT
// The folders that a server gives, and who may have them: the access rules of volumes, an export's
// name standing where a volume's would.

import { ERRNO, errnoName, type IpAddress } from "../../base/index.js";
import { checkCopyPath } from "../../copy/index.js";
import type { AccessRules, ServerSession } from "../../rtrs/index.js";

/** A folder that is served. */
export interface ExportSpec {
  readonly name: string;
  readonly path: string;
  readonly readOnly: boolean;
}

/** Of a refusal: what makes it the same as another, and the whole of it in words. */
export type SayRefusal = (kind: string, text: string) => void;

export class ExportRules<Export extends { readonly spec: ExportSpec }> {
  private readonly exports: ReadonlyMap<string, Export>;
  private readonly rules: AccessRules;
  private readonly say: SayRefusal;

  /** @param exports by name; may be filled later. */
  constructor(exports: ReadonlyMap<string, Export>, rules: AccessRules, say: SayRefusal) {
    this.exports = exports;
    this.rules = rules;
    this.say = say;
  }

  /** @returns 0 where a client at this address may have anything at all, or EACCES. */
  admit(client: IpAddress): number {
    if (this.rules.admits(client)) return 0;
    this.say(`copy session ${client}`, `client ${client} refused with EACCES: no rule is for it`);
    return ERRNO.EACCES;
  }

  /**
   * The export that a path begins with, if the client may have it.
   * @returns it and what follows of the path; EINVAL, ENAMETOOLONG, EPERM for the path; ENOENT,
   *   EACCES, EROFS.
   */
  find(
    path: string,
    session: ServerSession,
    writes: boolean,
  ): { readonly opened: Export; readonly rest: string } | number {
    const errno = checkCopyPath(path);
    if (errno !== 0) return errno;
    const slash = path.indexOf("/");
    const name = slash < 0 ? path : path.slice(0, slash);
    const opened = this.exports.get(name);
    if (opened === undefined) return ERRNO.ENOENT;
    const refused = this.refusal(opened.spec, session, writes);
    if (refused !== 0) return refused;
    return { opened, rest: slash < 0 ? "" : path.slice(slash + 1) };
  }

  private refusal(spec: ExportSpec, session: ServerSession, writes: boolean): number {
    // A request is still to be judged when its session has lost all paths: by where it came from.
    const clients = session.clients.length === 0 ? [session.peer] : session.clients;
    for (const client of clients) {
      const rule = this.rules.find(client, session.name, spec.name);
      const level = rule?.level ?? "none";
      if (level !== "none" && !(writes && level === "ro")) continue;
      const errno = level === "ro" ? ERRNO.EROFS : ERRNO.EACCES;
      const reason = rule === null ? "no rule is for it" : `rule "${rule.text}"`;
      const verb = writes ? "writes" : "reads";
      this.say(
        `copy ${client} ${spec.name} ${errno}`,
        `client ${client} refused with ${errnoName(errno)} when it ${verb} export ` +
          `"${spec.name}": ${reason}`,
      );
      return errno;
    }
    return writes && spec.readOnly ? ERRNO.EROFS : 0;
  }
}

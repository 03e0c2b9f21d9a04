// SPDX-License-Identifier: MIT
// Has people told what the paths of a session go through, while it has several.

import type { RnbdClient } from "../../rnbd/index.js";
import type { RtrsClient, RtrsClientPath } from "../../rtrs/index.js";
import type { Log } from "../log.js";
import { pathName } from "./path-spec.js";

/** Hears of a path; `path` is its name, `text` a sentence. */
export type PathListener = (up: boolean, path: string, text: string) => void;

/** @param listener where nobody listens the log says it. */
export function tellOfPaths(
  client: RnbdClient,
  session: RtrsClient,
  log: Log,
  listener: PathListener | undefined,
): void {
  const tell = (up: boolean, path: RtrsClientPath, text: string) => {
    if (listener !== undefined) listener(up, pathName(path), text);
    else if (up) log.info(text);
    else log.warn(text);
  };
  const downNumbers = new Set<number>();
  client.onPathDown = (path) => {
    // At its own end a session takes leave of all its paths: nothing to be told.
    if (session.paths.length < 2 || session.state === "CLOSING") return;
    downNumbers.add(path.number);
    const connected = session.paths.filter(({ state }) => state === "CONNECTED").length;
    const rest = connected === 0 ? "no other is left" : `${connected} left`;
    const reason = path.lastError === null ? "" : ` (${path.lastError.message})`;
    const ends = `the path from ${path.source} to ${path.destination}`;
    const what = path.isLeaving ? `${ends} is removed` : `lost ${ends}${reason}`;
    tell(false, path, `${what}; ${rest}`);
  };
  client.onPathUp = (path) => {
    if (!downNumbers.delete(path.number)) return;
    tell(true, path, `the path from ${path.source} to ${path.destination} is back`);
  };
}

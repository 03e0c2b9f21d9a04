// SPDX-License-Identifier: MIT
import type { Connection } from "../connection.js";
import type { RtrsPathPolicy } from "../options.js";
import type { ClientPath } from "./client-path.js";

/**
 * Chooses the path of each request (facts page, section 11): the best connected one by the policy
 * that has room; of those that are equally good, the next in turn.
 */
export class PathPicker {
  policy: RtrsPathPolicy;
  /** Index of the path that was chosen last. */
  private cursor = 0;
  /** Tells the paths that were looked at for one choice from those of earlier ones. */
  private stamp = 0;

  constructor(policy: RtrsPathPolicy) {
    this.policy = policy;
  }

  /** @returns the connection to send the next request by; null when none has room. */
  pick(paths: readonly ClientPath[]): Connection | null {
    this.stamp++;
    for (let tries = 0; tries < paths.length; tries++) {
      const index = this.best(paths);
      if (index < 0) return null;
      const path = paths[index] as ClientPath;
      path.triedStamp = this.stamp;
      const connection = path.pickConnection();
      if (connection === null) continue;
      this.cursor = index;
      return connection;
    }
    return null;
  }

  private best(paths: readonly ClientPath[]): number {
    const count = paths.length;
    let bestIndex = -1;
    let bestScore = Infinity;
    for (let i = 1; i <= count; i++) {
      const index = (this.cursor + i) % count;
      const path = paths[index] as ClientPath;
      if (path.state !== "CONNECTED" || path.triedStamp === this.stamp) continue;
      const score = this.scoreOf(path);
      if (bestIndex >= 0 && score >= bestScore) continue;
      bestIndex = index;
      bestScore = score;
      if (this.policy === "round-robin") break;
    }
    return bestIndex;
  }

  private scoreOf(path: ClientPath): number {
    if (this.policy === "min-inflight") return path.inflight;
    // One that was not measured yet comes last; it is measured as soon as it is connected.
    if (this.policy === "min-latency") return path.latencyNs === 0 ? Infinity : path.latencyNs;
    return 0;
  }
}

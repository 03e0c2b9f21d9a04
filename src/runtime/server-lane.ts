// SPDX-License-Identifier: MIT
// One lane of a server host: volumes, exported by RNBD over RTRS. A host has one or more; each is
// whole in itself.

import type { IpAddress } from "../base/index.js";
import { accessPolicy, RnbdServer, type VolumeRights } from "../rnbd/index.js";
import { type AccessRules, RtrsServer, type SessionRoster } from "../rtrs/index.js";
import type { RepeatedWarning } from "./repeated-warning.js";
import type { Stack } from "./stack.js";
import { warnOfErrors } from "./volume-errors.js";
import type { OpenVolume } from "./volumes.js";

export interface ServerLaneOptions {
  readonly addresses: readonly IpAddress[];
  readonly port: number;
  readonly queueDepth: number;
  readonly chunkBytes: number;
  readonly sessionCountMax: number;
  readonly pathCountMax: number;
  readonly alwaysInvalidate: boolean;
  readonly rules: AccessRules;
  readonly warnings: RepeatedWarning;
  /** What it shares with other lanes; null when there are none. */
  readonly roster: SessionRoster | null;
  /** By volume. */
  readonly rights: readonly VolumeRights[] | null;
}

/** How long sessions get to end in order when the server closes. */
const CLOSE_TIMEOUT_MS = 5_000;

export class ServerLane {
  readonly rtrs: RtrsServer;
  private readonly stack: Stack;
  private readonly open: readonly OpenVolume[];

  /** Listens at once. The volumes are its own from here on. */
  constructor(stack: Stack, open: readonly OpenVolume[], options: ServerLaneOptions) {
    this.stack = stack;
    this.open = open;
    const { addresses, port, queueDepth, chunkBytes, rules, warnings } = options;
    const { sessionCountMax, pathCountMax, alwaysInvalidate, roster, rights } = options;
    const rnbd = new RnbdServer(accessPolicy(rules, (kind, text) => warnings.say(kind, text)));
    for (const [index, { spec, device, epoch }] of open.entries()) {
      const own = rights?.[index];
      const shared = own === undefined ? {} : { rights: own };
      const settings = { readOnly: spec.readOnly, epoch, ...shared };
      warnOfErrors(rnbd.addVolume(spec.name, device, settings), spec.path, warnings);
    }
    const sizes = { queueDepth, chunkBytes, sessionCountMax, pathCountMax };
    this.rtrs = new RtrsServer(
      {
        context: stack.context,
        cm: stack.cm,
        memory: stack.memory,
        random: stack.random.fork("rtrs"),
      },
      { addresses, port, ...sizes, alwaysInvalidate, roster },
      rnbd,
    );
    stack.lane.add(this.rtrs);
    stack.lane.add(rnbd);
  }

  /** Takes no more clients, finishes the requests under way and ends the sessions. */
  async closeSessions(): Promise<void> {
    this.rtrs.close();
    this.stack.lane.wake();
    await this.stack.until(() => this.rtrs.isClosed, CLOSE_TIMEOUT_MS);
  }

  /**
   * Makes everything durable, stops the lane and closes files and stack. All that can be closed is.
   * The memory and files of requests that a disk does not give back stay, until the process ends:
   * another thread may still be at work on them.
   * @throws FarpageError when a volume could not be made durable.
   */
  async close(): Promise<void> {
    const flushes = this.open.map(({ device }) => this.stack.flush(device, Infinity));
    const failed = (await Promise.allSettled(flushes)).find(({ status }) => status === "rejected");
    await this.stack.lane.stop();
    for (const { device } of this.open) if (device.inflight === 0) device.close();
    const keepsMemory = this.open.some(({ device }) => device.inflight > 0);
    await this.stack.close({ keepsMemory });
    if (failed?.status === "rejected") throw failed.reason;
  }
}

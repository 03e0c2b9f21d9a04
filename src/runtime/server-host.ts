// SPDX-License-Identifier: MIT
// A server host: volumes, exported by RNBD over RTRS, on this machine's addresses, and folders to
// copy to and from.

import type { IpAddress } from "../base/index.js";
import type { Backend, BackendChoice } from "../os/index.js";
import { accessPolicy, RnbdServer } from "../rnbd/index.js";
import { type AccessRule, AccessRules, RtrsServer } from "../rtrs/index.js";
import { CopyServer, type ExportSpec } from "./copy/index.js";
import { Failure } from "./failure.js";
import type { Log } from "./log.js";
import { type ObserveOptions, observed } from "./observe/index.js";
import { RepeatedWarning } from "./repeated-warning.js";
import { Stack } from "./stack.js";
import { COPY_PORT_DEFAULT, type VolumeSpec } from "./uri.js";
import { warnOfErrors } from "./volume-errors.js";
import { type OpenVolume, openVolumes } from "./volumes.js";

export interface ServerHostOptions extends ObserveOptions {
  readonly addresses: readonly IpAddress[];
  /** RTRS port. */
  readonly port: number;
  readonly volumes: readonly VolumeSpec[];
  /** Folders for `farpage copy`, and the RTRS port of copies, default 1235. */
  readonly exports?: readonly ExportSpec[];
  readonly copyPort?: number;
  /**
   * Who may open which volume and how, in order: the first that fits decides. Behind them stands
   * one for loopback; everybody else is refused.
   */
  readonly allow?: readonly AccessRule[];
  /**
   * Requests in flight per session, bytes of each one's buffer, sessions, paths of each: the bound
   * of memory.
   */
  readonly queueDepth: number;
  readonly chunkBytes: number;
  readonly sessionCountMax: number;
  readonly pathCountMax: number;
  readonly alwaysInvalidate: boolean;
  readonly backend?: BackendChoice;
  /** Let the kernel cut bursts into packets (UDP GSO), default true. */
  readonly segmentation?: boolean;
  readonly log: Log;
}

/** What a started server exports. */
export interface ExportedVolume {
  readonly name: string;
  /** null: in memory. */
  readonly path: string | null;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
}

/** Regions for everything but chunks: receive buffers, messages. */
const REGIONS_BESIDE_CHUNKS = 8192;
/** How long sessions get to end in order when the server closes. */
const CLOSE_TIMEOUT_MS = 5_000;

export class ServerHost {
  readonly addresses: readonly IpAddress[];
  readonly port: number;
  readonly backend: Backend;
  readonly volumes: readonly ExportedVolume[];
  readonly exports: readonly ExportSpec[];
  readonly copyPort: number;
  /** Sessions x paths x requests x buffer, and the same of copies. */
  readonly memoryBytesMax: number;
  /** Rejects when the server has stopped by a bug of ours. */
  readonly failed: Promise<never>;
  private readonly stack: Stack;
  private readonly rtrs: RtrsServer;
  private readonly copies: CopyServer | null;
  private readonly open: readonly OpenVolume[];
  private readonly errors: RepeatedWarning;

  private constructor(
    options: ServerHostOptions,
    stack: Stack,
    open: readonly OpenVolume[],
    failure: Failure,
  ) {
    this.stack = stack;
    this.failed = failure.promise;
    this.addresses = options.addresses;
    this.port = options.port;
    this.backend = stack.backend;
    this.open = open;
    this.errors = new RepeatedWarning(options.log);
    const rules = new AccessRules(options.allow);
    const rnbd = new RnbdServer(accessPolicy(rules, (kind, text) => this.errors.say(kind, text)));
    for (const { spec, device, epoch } of this.open) {
      const volume = rnbd.addVolume(spec.name, device, { readOnly: spec.readOnly, epoch });
      warnOfErrors(volume, spec.path, this.errors);
    }
    this.rtrs = new RtrsServer(
      {
        context: stack.context,
        cm: stack.cm,
        memory: stack.memory,
        random: stack.random.fork("rtrs"),
      },
      {
        addresses: options.addresses,
        port: options.port,
        queueDepth: options.queueDepth,
        chunkBytes: options.chunkBytes,
        sessionCountMax: options.sessionCountMax,
        pathCountMax: options.pathCountMax,
        alwaysInvalidate: options.alwaysInvalidate,
      },
      rnbd,
    );
    this.exports = options.exports ?? [];
    this.copyPort = options.copyPort ?? COPY_PORT_DEFAULT;
    this.copies =
      this.exports.length === 0
        ? null
        : new CopyServer(stack, {
            addresses: options.addresses,
            port: this.copyPort,
            exports: this.exports,
            rules,
            sessionCountMax: options.sessionCountMax,
            log: options.log,
            warnings: this.errors,
          });
    this.memoryBytesMax = this.rtrs.memoryBytesMax + (this.copies?.rtrs.memoryBytesMax ?? 0);
    this.volumes = this.open.map(({ spec, device }) => ({
      name: spec.name,
      path: spec.path,
      sizeBytes: device.limits.sizeBytes,
      readOnly: device.limits.readOnly,
    }));
    stack.lane.add(this.rtrs);
    stack.lane.add(rnbd);
    if (this.copies !== null) stack.lane.add(this.copies);
  }

  /**
   * Opens the volumes, binds the addresses and listens.
   * @throws FarpageError as `Stack.open` and `openVolumes` do.
   */
  static async start(options: ServerHostOptions): Promise<ServerHost> {
    const failure = new Failure();
    const stack = await Stack.open({
      // With rotating keys every chunk is a region of its own.
      regionCountMax:
        REGIONS_BESIDE_CHUNKS +
        options.sessionCountMax * options.pathCountMax * options.queueDepth +
        (options.exports === undefined ? 0 : CopyServer.regionCount(options.sessionCountMax)),
      addresses: options.addresses,
      log: options.log,
      onFailure: (error) => failure.fail(error),
      backend: options.backend ?? "auto",
      segmentation: options.segmentation ?? true,
      ...observed(options),
    });
    let open: readonly OpenVolume[] = [];
    try {
      open = await openVolumes(options.volumes, stack, options.log);
      return new ServerHost(options, stack, open, failure);
    } catch (error) {
      for (const { device } of open) device.close();
      await stack.close();
      throw error;
    }
  }

  /**
   * Finishes the requests under way, ends the sessions, makes everything durable and closes the
   * files.
   * @throws FarpageError when a volume could not be made durable; all that can be closed is, then
   *   too. The memory and files of requests that a disk does not give back stay, until the process
   *   ends: another thread may still be at work on them.
   */
  async close(): Promise<void> {
    this.rtrs.close();
    this.copies?.close();
    this.stack.lane.wake();
    const isClosed = () => this.rtrs.isClosed && this.copies?.isClosed !== false;
    await this.stack.until(isClosed, CLOSE_TIMEOUT_MS);
    await this.stack.until(() => this.copies?.free() !== false, CLOSE_TIMEOUT_MS);
    const flushes = this.open.map(({ device }) => this.stack.flush(device, Infinity));
    const failed = (await Promise.allSettled(flushes)).find(({ status }) => status === "rejected");
    await this.stack.lane.stop();
    for (const { device } of this.open) if (device.inflight === 0) device.close();
    const keepsMemory = this.open.some(({ device }) => device.inflight > 0);
    await this.stack.close({ keepsMemory });
    this.errors.flush();
    if (failed?.status === "rejected") throw failed.reason;
  }
}

// SPDX-License-Identifier: MIT
// `farpage copy`, from its flags on: opens a host, copies, and tells how it went.

import { lstatSync } from "node:fs";
import { hostname } from "node:os";
import { basename, dirname, resolve } from "node:path";
import { errnoName, FarpageError, type IpAddress, type Machine } from "../../base/index.js";
import { type CopyOperand, nameOf, showByteText } from "../../copy/index.js";
import {
  type BackendChoice,
  localAddressTowards,
  makeFolder,
  openCopyTree,
} from "../../os/index.js";
import type { RtrsEnvironment } from "../../rtrs/index.js";
import { Failure } from "../failure.js";
import type { Log } from "../log.js";
import { type ObserveOptions, observed } from "../observe/index.js";
import { Stack } from "../stack.js";
import type { RtrsUri } from "../uri.js";
import type { CopyJob, CopyStatus } from "./copy-job.js";
import { PullJob } from "./pull-job.js";
import { PushJob } from "./push-job.js";

export interface CopyClientOptions extends ObserveOptions {
  /** Local address; default the one that leads to the server. */
  readonly address?: IpAddress;
  readonly server: RtrsUri;
  /** Local files and folders to copy to the server, or a local folder to copy to from there. */
  readonly what:
    | { readonly kind: "push"; readonly paths: readonly string[]; readonly target: string }
    | { readonly kind: "pull"; readonly targets: readonly string[]; readonly folder: string };
  /** RC connections that carry requests, default 1. */
  readonly connectionCount?: number;
  /** How long the server may be out of reach, at the start and later, default 30,000. */
  readonly timeoutMs?: number;
  /** Called about five times a second. */
  readonly onProgress?: (status: CopyStatus) => void;
  /** A file that can't be copied; the copy goes on. */
  readonly onProblem?: (path: string, code: string, isRemote: boolean) => void;
  /** Stops the copy; what is there stays, and running it again goes on. */
  readonly stopped?: Promise<unknown>;
  readonly backend?: BackendChoice;
  readonly segmentation?: boolean;
  readonly log: Log;
}

const TIMEOUT_MS = 30_000;
const PROGRESS_MS = 200;
/** How often a copy begins again because the server has. */
const RESTARTS_MAX = 10;

/**
 * Copies.
 * @returns how it went; `problems` above 0 means that files are missing.
 * @throws FarpageError ENOENT, EACCES, EROFS (of the server's folder), ETIMEDOUT (server out of
 *   reach), ENOSPC, EEXIST (two operands of one name), ECANCELED (stopped); as `Stack.open`.
 */
export async function runCopyClient(options: CopyClientOptions): Promise<CopyStatus> {
  const destination = options.server.addresses[0] as IpAddress;
  const source = options.address ?? (await localAddressTowards(destination));
  const failure = new Failure();
  const stack = await Stack.open({
    addresses: [source],
    log: options.log,
    onFailure: (error) => failure.fail(error),
    backend: options.backend ?? "auto",
    segmentation: options.segmentation ?? true,
    ...observed(options),
  });
  try {
    const client = new CopyClient(options, stack, source, destination);
    return await Promise.race([client.run(), failure.promise]);
  } finally {
    await stack.close();
  }
}

class CopyClient {
  private readonly options: CopyClientOptions;
  private readonly stack: Stack;
  private readonly environment: RtrsEnvironment;
  private readonly source: IpAddress;
  private readonly destination: IpAddress;

  constructor(options: CopyClientOptions, stack: Stack, source: IpAddress, destination: IpAddress) {
    this.options = options;
    this.stack = stack;
    this.source = source;
    this.destination = destination;
    this.environment = {
      context: stack.context,
      cm: stack.cm,
      memory: stack.memory,
      random: stack.random.fork("copy"),
    };
  }

  async run(): Promise<CopyStatus> {
    for (let restarts = 0; ; restarts++) {
      const job = this.open();
      const ending = new Ending(job, this.stack);
      this.stack.lane.add(ending);
      try {
        await this.watch(job, ending);
      } finally {
        this.stack.lane.remove(ending);
        if (job.isOver) job.free();
      }
      const { error } = job;
      if (error === null) return job.status();
      // The server is another than before, or has waited for too long: it has what is on its disk.
      if (error.code !== "ESTALE" || restarts >= RESTARTS_MAX) throw this.explain(error);
      this.options.log.warn("the server has begun anew; the copy goes on from what is there");
    }
  }

  private open(): CopyJob {
    const { what } = this.options;
    const onProblem = (path: string, errno: number, isRemote: boolean): void => {
      this.options.onProblem?.(showByteText(path), errnoName(errno), isRemote);
    };
    const { environment, stack } = this;
    const rtrs = {
      sessionName: sessionName(stack.random.nextU32()),
      paths: [{ source: this.source, destination: this.destination }],
      port: this.options.server.port,
      connectionCount: this.options.connectionCount ?? 1,
    };
    if (what.kind === "push") {
      const operands = openOperands(what.paths, stack);
      const target = toBytes(what.target);
      return new PushJob(environment, { rtrs, operands, target, onProblem });
    }
    checkTargets(what.targets);
    makeFolder(what.folder);
    const tree = openCopyTree(resolve(what.folder), stack.poller);
    const paths = what.targets.map(toBytes);
    const { source: local, destination: peer } = this;
    return new PullJob(environment, { rtrs, tree, paths, local, peer, onProblem });
  }

  private async watch(job: CopyJob, ending: Ending): Promise<void> {
    const timeoutMs = this.options.timeoutMs ?? TIMEOUT_MS;
    let seenMs = performance.now();
    const look = setInterval(() => {
      this.options.onProgress?.(job.status());
      const nowMs = performance.now();
      if (job.isConnected) seenMs = nowMs;
      else if (nowMs - seenMs > timeoutMs) job.stop(this.lateError(job));
      // What its rules refuse now they will refuse again.
      else if (!job.hasConnected && job.lastError?.code === "EACCES") job.stop(this.lateError(job));
    }, PROGRESS_MS);
    // A lane that has failed never ends the job: that must not keep the process.
    look.unref();
    void this.options.stopped?.then(() => {
      job.stop(new FarpageError("ECANCELED", "stopped; run it again and it goes on"));
      this.stack.lane.wake();
    });
    try {
      await ending.ended;
    } finally {
      clearInterval(look);
      this.options.onProgress?.(job.status());
    }
  }

  private lateError(job: CopyJob): FarpageError {
    const { port } = this.options.server;
    const server = `${this.destination} port ${port}`;
    const reason = job.lastError === null ? "" : ` (${job.lastError.message})`;
    if (job.lastError?.code === "EACCES") {
      return new FarpageError("EACCES", `${server} refuses this client${reason}`);
    }
    const hint = job.hasConnected
      ? "run the copy again when it is back: it goes on where it was"
      : "is farpage serve --copy running there, and UDP port 4791 open?";
    return new FarpageError("ETIMEDOUT", `${server} can't be reached${reason}: ${hint}`);
  }

  /** The server's errno in the words of somebody who copies. */
  private explain(error: FarpageError): FarpageError {
    const { what } = this.options;
    const names = what.kind === "push" ? [what.target] : what.targets;
    const name = names.join(", ");
    const server = `${this.destination}`;
    const reasons: Readonly<Record<string, string>> = {
      ENOENT:
        `${server} has no "${name}": ` +
        "neither an export of that first part (serve --copy), or no such file in it",
      EACCES: `no access rule of ${server} gives "${name}" to this client (its --allow)`,
      EROFS: `"${name}" of ${server} can only be read`,
      ENOSPC: `the disk of ${what.kind === "push" ? server : "this machine"} is full`,
      EBUSY: `${server} has too many copies under way; try again later`,
    };
    const reason = reasons[error.code];
    return reason === undefined ? error : new FarpageError(error.code, reason, { cause: error });
  }
}

/** Runs a job in the lane, and tells when it is over. */
class Ending implements Machine {
  readonly ended: Promise<void>;
  private readonly job: CopyJob;
  private readonly stack: Stack;
  private resolve: (() => void) | null = null;

  constructor(job: CopyJob, stack: Stack) {
    this.job = job;
    this.stack = stack;
    this.ended = new Promise((resolve) => {
      this.resolve = resolve;
    });
  }

  pump(nowNs: number): void {
    this.job.pump(nowNs);
    if (!this.job.isOver || this.resolve === null) return;
    this.resolve();
    this.resolve = null;
    this.stack.lane.yieldToNode();
  }

  deadlineNs(): number {
    return this.job.deadlineNs();
  }

  checkInvariants(): void {
    this.job.checkInvariants();
  }
}

/** Paths of the system are bytes; those that come as text are UTF-8. */
function toBytes(text: string): string {
  return Buffer.from(text).toString("latin1");
}

/**
 * What is named on the command line, each in the tree of its folder. As for rsync, a slash at the
 * end means what is in the folder, else the folder itself.
 * @throws FarpageError EEXIST for two of one name; EINVAL for none; ENOENT and others of the
 *   folders.
 */
function openOperands(paths: readonly string[], stack: Stack): CopyOperand[] {
  const operands: CopyOperand[] = [];
  const names = new Set<string>();
  try {
    for (const path of paths) {
      // Out of an empty variable, mostly; it would mean all of the working directory.
      if (path === "") throw new FarpageError("EINVAL", "one of the things to copy has no name");
      const isInside = /(?:^|\/)\.{0,2}$/.test(path);
      const full = resolve(path);
      mustBeThere(path, full);
      const name = isInside ? "" : basename(full);
      if (names.has(name) && name !== "") {
        throw new FarpageError("EEXIST", `two of the things to copy are called "${name}"`);
      }
      names.add(name);
      const tree = openCopyTree(isInside ? full : dirname(full), stack.poller);
      operands.push({ tree, path: toBytes(name), name: toBytes(name) });
    }
  } catch (error) {
    for (const { tree } of operands) tree.close();
    throw error;
  }
  return operands;
}

/** Before anything is sent: a name that was mistyped is no file that could not be read. */
function mustBeThere(path: string, full: string): void {
  try {
    lstatSync(full);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "EIO";
    const why =
      code === "ENOENT" ? `there is no "${path}" here` : `can't look at "${path}": ${code}`;
    throw new FarpageError(code, why, { cause: error });
  }
}

/** @throws FarpageError EEXIST when two of the things to fetch have one name. */
function checkTargets(targets: readonly string[]): void {
  const names = targets.map(nameOf);
  const twice = names.find((name, at) => name !== "" && names.indexOf(name) < at);
  if (twice === undefined) return;
  throw new FarpageError("EEXIST", `two of the things to copy are called "${twice}"`);
}

/** Unique on the server and telling people whose it is; RTRS allows neither "." nor "/". */
function sessionName(random: number): string {
  const name = hostname()
    .replace(/[^\w-]/g, "-")
    .slice(0, 200);
  return `copy-${name}-${random.toString(16).padStart(8, "0")}`;
}

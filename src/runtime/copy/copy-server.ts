// SPDX-License-Identifier: MIT
// The serving end of `farpage copy`: folders that clients may copy to and from, by an RTRS server
// of its own, with buffers of its own size. Who may do what, the same access rules say as for
// volumes: an export's name stands where a volume's would.

import { ERRNO, errnoName, FarpageError, type IpAddress, type Machine } from "../../base/index.js";
import {
  COPY_SESSION,
  COPY_USER_BYTES_MAX,
  type CopyEnd,
  type CopyOperand,
  type CopyPull,
  CopySink,
  type CopySinkCounters,
  type CopySinkHost,
  CopySource,
  CopyStat,
  type CopyTell,
  type CopyTree,
  nameOf,
  showByteText,
} from "../../copy/index.js";
import { createCrc32, type OsCopyTree, openCopyTree } from "../../os/index.js";
import {
  type AccessRules,
  callBack,
  type RtrsEnvironment,
  RtrsServer,
  type RtrsServerUser,
  type ServerRequest,
  type ServerSession,
} from "../../rtrs/index.js";
import type { Log } from "../log.js";
import type { RepeatedWarning } from "../repeated-warning.js";
import type { Stack } from "../stack.js";
import { ExportRules, type ExportSpec } from "./export-rules.js";

export interface CopyServerOptions {
  readonly addresses: readonly IpAddress[];
  readonly port: number;
  readonly exports: readonly ExportSpec[];
  readonly rules: AccessRules;
  readonly sessionCountMax: number;
  readonly log: Log;
  readonly warnings: RepeatedWarning;
}

/** Requests in flight of one session, and bytes of each one's buffer. */
export const COPY_QUEUE_DEPTH = 32;
export const COPY_CHUNK_BYTES = 262_144;
/** Copies to clients at a time, and to one address with those that are ending. */
const PULLS_MAX = 16;
const PULLS_PER_CLIENT_MAX = 4;
/** A client that asked for files and can't be reached for about a minute is given up. */
const CONNECT_ATTEMPTS_MAX = 16;

interface OpenExport {
  readonly spec: ExportSpec;
  readonly tree: OsCopyTree;
}

interface Pull {
  readonly source: CopySource;
  readonly peer: IpAddress;
}

export class CopyServer implements Machine, RtrsServerUser, CopySinkHost {
  readonly rtrs: RtrsServer;
  private readonly options: CopyServerOptions;
  private readonly environment: RtrsEnvironment;
  private readonly sink: CopySink;
  private readonly exports = new Map<string, OpenExport>();
  private readonly rules: ExportRules<OpenExport>;
  private readonly pulls = new Map<string, Pull>();

  /** @throws FarpageError ENOENT, ENOTDIR, EACCES of a folder; EEXIST for a name that is there
   *   twice; as `RtrsServer`. */
  constructor(stack: Stack, options: CopyServerOptions) {
    this.options = options;
    this.environment = {
      context: stack.context,
      cm: stack.cm,
      memory: stack.memory,
      random: stack.random.fork("copy"),
    };
    this.rules = new ExportRules(this.exports, options.rules, (kind, text) =>
      options.warnings.say(kind, text),
    );
    try {
      for (const spec of options.exports) {
        this.exports.set(spec.name, { spec, tree: openCopyTree(spec.path, stack.poller) });
      }
      this.rtrs = new RtrsServer(
        this.environment,
        {
          addresses: options.addresses,
          port: options.port,
          queueDepth: COPY_QUEUE_DEPTH,
          chunkBytes: COPY_CHUNK_BYTES,
          sessionCountMax: options.sessionCountMax,
          pathCountMax: 1,
          userBytesMax: COPY_USER_BYTES_MAX,
        },
        this,
      );
    } catch (error) {
      for (const { tree } of this.exports.values()) tree.close();
      throw error;
    }
    const { maxIoBytes } = this.rtrs;
    this.sink = new CopySink({ crc32: createCrc32(), memory: stack.memory, maxIoBytes }, this);
  }

  /** Regions that its chunks take of a device. */
  static regionCount(sessionCountMax: number): number {
    return sessionCountMax * COPY_QUEUE_DEPTH;
  }

  /** Ends sessions and copies; pump until `isClosed`. */
  close(): void {
    this.rtrs.close();
    for (const { source } of this.pulls.values()) source.cancel();
  }

  get isClosed(): boolean {
    return this.rtrs.isClosed && this.pulls.size === 0;
  }

  /** Closes the folders. @returns false when I/O is still under way. Preconditions: `isClosed`. */
  free(): boolean {
    this.sink.close();
    if (!this.sink.isIdle) return false;
    for (const { tree } of this.exports.values()) tree.close();
    this.exports.clear();
    return true;
  }

  pump(nowNs: number): void {
    this.rtrs.pump(nowNs);
    this.sink.pump(nowNs);
    for (const [key, pull] of this.pulls) {
      pull.source.pump(nowNs);
      if (pull.source.isClosed) this.endPull(key, pull);
    }
  }

  deadlineNs(): number {
    let deadlineNs = Math.min(this.rtrs.deadlineNs(), this.sink.deadlineNs());
    for (const { source } of this.pulls.values()) {
      deadlineNs = Math.min(deadlineNs, source.deadlineNs());
    }
    return deadlineNs;
  }

  checkInvariants(): void {
    this.rtrs.checkInvariants();
    this.sink.checkInvariants();
  }

  // -------------------------------------------------------------------------------- RtrsServerUser

  admit(client: IpAddress): number {
    return this.rules.admit(client);
  }

  onSessionUp(session: ServerSession): void {
    this.sink.onSessionUp(session);
  }

  onSessionDown(session: ServerSession): void {
    this.sink.onSessionDown(session);
  }

  onRequest(request: ServerRequest): void {
    this.sink.onRequest(request);
  }

  // ---------------------------------------------------------------------------------- CopySinkHost

  open(path: string, session: ServerSession): CopyTree | number {
    const found = this.rules.find(path, session, true);
    if (typeof found === "number") return found;
    const tree = found.opened.tree.below(found.rest, true);
    return typeof tree === "number" ? -tree : tree;
  }

  pull(pull: CopyPull, session: ServerSession): number {
    const known = this.pulls.get(pull.key);
    if (known !== undefined) return known.peer.equals(session.peer) ? 0 : ERRNO.EBUSY;
    if (!this.makeRoomFor(session.peer)) return ERRNO.EBUSY;
    const operands: CopyOperand[] = [];
    for (const path of pull.paths) {
      const operand = this.operandOf(path, session);
      if (typeof operand === "number") return operand;
      operands.push(operand);
    }
    try {
      const source = this.sourceFor(pull, session, operands);
      source.connect();
      this.pulls.set(pull.key, { source, peer: session.peer });
    } catch (error) {
      if (!(error instanceof FarpageError)) throw error;
      this.options.log.warn(`client ${session.peer} gets no copy: ${error.message}`);
      return ERRNO.ENOMEM;
    }
    const what = pull.paths.map(showByteText).join(", ");
    this.options.log.info(`client ${session.peer} copies ${what}`);
    return 0;
  }

  tell(_tell: CopyTell): void {
    // What a source tells is for whoever asked for the files: here nobody did.
  }

  failed(_path: string, _errno: number): void {
    // The source tells whoever copies.
  }

  ended(counters: CopySinkCounters, end: CopyEnd): void {
    const { files, bytes, failures } = counters;
    const how = end === "DONE" ? "a copy is complete" : "a copy has ended before it was complete";
    this.options.log.info(`${how}: ${files} files, ${bytes} bytes, ${failures} failures`);
  }

  // ---------------------------------------------------------------------------------------- inside

  /**
   * Whether one more copy may go to this address. Of those that go there the older end, for their
   * client has mostly been killed; and it can't have many, so that nobody keeps the others out.
   */
  private makeRoomFor(client: IpAddress): boolean {
    const own = [...this.pulls.values()].filter(({ peer }) => peer.equals(client));
    for (const { source } of own) source.cancel();
    return own.length < PULLS_PER_CLIENT_MAX && this.pulls.size < PULLS_MAX;
  }

  /** @throws FarpageError ENOMEM: the device has no more objects. */
  private sourceFor(
    pull: CopyPull,
    session: ServerSession,
    operands: readonly CopyOperand[],
  ): CopySource {
    const client = `client ${session.peer}`;
    return new CopySource(
      this.environment,
      {
        // Made by `callBack`, which knows whom to call.
        rtrs: { sessionName: pull.token, paths: [] },
        crc32: createCrc32(),
        random: this.environment.random,
        operands,
        target: "",
        tells: true,
        onProblem: ({ path: at, errno }) => {
          const text = `${client}: "${showByteText(at)}": ${errnoName(errno)}`;
          this.options.warnings.say(`copy to ${session.peer}`, text);
        },
      },
      (user) =>
        callBack(this.environment, session, pull, user, {
          ...COPY_SESSION,
          connectAttemptsMax: CONNECT_ATTEMPTS_MAX,
        }),
    );
  }

  private endPull(key: string, { source, peer }: Pull): void {
    this.pulls.delete(key);
    const { filesDone, bytesDone } = source.progress;
    const why = source.error === null ? "complete" : `ended: ${source.error.message}`;
    this.options.log.info(`copy to ${peer}: ${filesDone} files, ${bytesDone} bytes, ${why}`);
  }

  private operandOf(text: string, session: ServerSession): CopyOperand | number {
    // As for rsync: with a slash at its end, what is in the folder; else the folder itself.
    const isInside = text.endsWith("/");
    const path = isInside ? text.replace(/\/+$/, "") : text;
    const found = this.rules.find(path, session, false);
    if (typeof found === "number") return found;
    const { opened, rest } = found;
    const result = opened.tree.stat(rest, new CopyStat());
    if (result < 0) return -result;
    const name = isInside ? "" : rest === "" ? path : nameOf(rest);
    return { tree: opened.tree, path: rest, name };
  }
}

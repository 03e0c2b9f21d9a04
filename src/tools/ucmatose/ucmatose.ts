// SPDX-License-Identifier: MIT
// `ucmatose`: many connections at once; the server speaks first on each, the client answers, the
// server disconnects (rocev2 facts section 25).

import { FarpageError, type IpAddress } from "../../runtime/index.js";
import type { ProtectionDomain } from "../../verbs/index.js";
import { CmDesk, type CmLink } from "../cm-desk.js";
import type { ToolEnvironment } from "../environment.js";
import { firstDifference } from "../pattern.js";
import { Queues } from "../queues.js";
import { checkFirstWords, checkSize, Slots } from "../slots.js";

/** Port of RDMA CM's TCP port space. */
export const UCMATOSE_PORT = 7471;

export interface UcmatoseOptions {
  /** Whom to connect to; null: be the server. */
  readonly server: IpAddress | null;
  readonly port: number;
  /** Connections, the same on both sides; 1 .. 4,096. */
  readonly connections: number;
  /** Messages each way on each connection, the same on both sides; 0: only connect. */
  readonly count: number;
  /** Bytes of a message, the same on both sides; 0: no messages. */
  readonly size: number;
  /** Check every byte that can be checked. */
  readonly validate: boolean;
  readonly timeoutMs: number;
}

export interface UcmatoseResult {
  readonly connections: number;
  /** Both ways, on all connections. */
  readonly messages: number;
  readonly bytes: number;
  readonly seconds: number;
}

const WR = { RECEIVE: 1, SEND: 2 } as const;
const CONNECTIONS_MAX = 4096;
const RETRY_COUNT = 5;

/**
 * Runs one round with a stock program or ours.
 * @throws FarpageError ECONNREFUSED, ETIMEDOUT, ENOTCONN when the peer leaves early, EMSGSIZE,
 *   EILSEQ for other bytes than expected, EINVAL, EINTR; a completion status' name.
 */
export async function runUcmatose(
  environment: ToolEnvironment,
  options: UcmatoseOptions,
): Promise<UcmatoseResult> {
  const { connections } = options;
  if (!(connections >= 1 && connections <= CONNECTIONS_MAX)) {
    throw new FarpageError("EINVAL", `connections are 1 .. ${CONNECTIONS_MAX}`);
  }
  // As the stock program has it: messages of no bytes are none.
  const count = options.size === 0 ? 0 : options.count;
  using round = new Round(environment, { ...options, count });
  return await round.run();
}

/** One connection with its messages. */
interface Talk {
  readonly link: CmLink;
  readonly inbox: Slots;
  readonly outbox: Slots;
}

class Round implements Disposable {
  private readonly environment: ToolEnvironment;
  private readonly options: UcmatoseOptions;
  private readonly desk: CmDesk;
  private readonly pd: ProtectionDomain;
  private readonly talks: Talk[] = [];
  private startMs = 0;

  constructor(environment: ToolEnvironment, options: UcmatoseOptions) {
    this.environment = environment;
    this.options = options;
    this.desk = new CmDesk(environment);
    this.pd = environment.host.openDevice().allocPd();
  }

  async run(): Promise<UcmatoseResult> {
    const { connections, count, size, validate } = this.options;
    if (this.options.server === null) await this.accept();
    else await this.connect(this.options.server);
    this.environment.report(
      "connected",
      { connections },
      `${connections} connections are up, ${count} messages of ${size} bytes each way on each`,
    );
    this.startMs = performance.now();
    if (this.options.server === null) await this.speakFirst();
    else await this.answer();
    const seconds = (performance.now() - this.startMs) / 1000;
    const messages = 2 * connections * count;
    const result = { connections, messages, bytes: messages * size, seconds };
    await this.part();
    this.environment.report(
      "done",
      { ...result, size, verified: validate },
      `${connections} connections, ${messages} messages, ${result.bytes} bytes in ` +
        `${seconds.toFixed(3)} s, ${validate ? "compared" : "not compared"}; disconnected`,
    );
    return result;
  }

  [Symbol.dispose](): void {
    this.desk.close();
    for (const talk of this.talks) {
      talk.inbox[Symbol.dispose]();
      talk.outbox[Symbol.dispose]();
    }
  }

  private async accept(): Promise<void> {
    const { host, report } = this.environment;
    const listener = this.desk.listen({ port: this.options.port });
    const { addresses } = host;
    const { port } = listener;
    const text = `ucmatose server on ${addresses.join(", ")}, port ${port}`;
    report("ready", { addresses, port }, text);
    const accepted: Promise<unknown>[] = [];
    const { connections, timeoutMs } = this.options;
    while (accepted.length < connections) {
      const request = await this.desk.requestOf(connections, accepted.length, timeoutMs);
      const talk = this.enter(this.desk.take(request, this.makeQueues()));
      const up = talk.link.accept({ responderResources: 1, initiatorDepth: 1 });
      up.catch(() => {});
      accepted.push(up);
    }
    listener.close();
    await Promise.all(accepted);
  }

  private async connect(destination: IpAddress): Promise<void> {
    const { connections, port, timeoutMs } = this.options;
    const connected: Promise<unknown>[] = [];
    for (let i = 0; i < connections; i++) {
      const makeQueues = () => this.makeQueues();
      const talk = this.enter(this.desk.open({ destination, port, makeQueues }));
      const up = talk.link.connect({
        responderResources: 1,
        initiatorDepth: 1,
        retryCount: RETRY_COUNT,
        timeoutNs: timeoutMs * 1e6,
      });
      up.catch(() => {});
      connected.push(up);
    }
    await Promise.all(connected);
  }

  /** The server: sends, and compares the answers. */
  private async speakFirst(): Promise<void> {
    const { count, validate } = this.options;
    for (const talk of this.talks) {
      talk.outbox.fill(count);
      this.postSends(talk);
    }
    for (const talk of this.talks) {
      await this.take(talk, WR.SEND);
      await this.take(talk, WR.RECEIVE);
      if (validate) this.checkAnswers(talk);
    }
  }

  /** The client: gives back what came. */
  private async answer(): Promise<void> {
    const { count, validate } = this.options;
    for (const talk of this.talks) {
      await this.take(talk, WR.RECEIVE);
      if (validate) checkFirstWords(talk.inbox, count);
    }
    for (const talk of this.talks) {
      for (let i = 0; i < count; i++) talk.outbox.message(i).set(talk.inbox.message(i));
      this.postSends(talk);
    }
    for (const talk of this.talks) await this.take(talk, WR.SEND);
  }

  /** The server ends the connections, the client waits for that. */
  private async part(): Promise<void> {
    const { server, timeoutMs } = this.options;
    const partings = this.talks.map(({ link }) =>
      server === null ? link.disconnect() : link.gone({ timeoutMs }),
    );
    await Promise.all(partings);
  }

  /** All completions of one kind. */
  private async take(talk: Talk, wrId: number): Promise<void> {
    const { count, size, timeoutMs } = this.options;
    for (let i = 0; i < count; i++) {
      const wc = await talk.link.queues.reader.of(wrId, { timeoutMs });
      if (wrId === WR.RECEIVE) checkSize(wc.byteLength, size);
    }
  }

  /** A stock client answers everything with what came last, ours each message with itself. */
  private checkAnswers(talk: Talk): void {
    const { count } = this.options;
    for (let i = 0; i < count; i++) {
      const answer = talk.inbox.message(i);
      const at = firstDifference(answer, talk.outbox.message(i));
      if (at < 0 || firstDifference(answer, talk.outbox.message(count - 1)) < 0) continue;
      const should = talk.outbox.message(i)[at];
      const what = `answer ${i} of ${talk.link.peer} is wrong`;
      throw new FarpageError("EILSEQ", `${what}: byte ${at} is ${answer[at]}, should be ${should}`);
    }
  }

  private enter(link: CmLink): Talk {
    const { count, size } = this.options;
    const inbox = new Slots(this.environment, this.pd, { count, size });
    const talk = { link, inbox, outbox: new Slots(this.environment, this.pd, { count, size }) };
    this.talks.push(talk);
    for (let i = 0; i < count; i++) link.queues.poster.receive(inbox.piece(i, WR.RECEIVE));
    return talk;
  }

  private postSends(talk: Talk): void {
    for (let i = 0; i < this.options.count; i++) {
      talk.link.queues.poster.send(talk.outbox.piece(i, WR.SEND));
    }
    this.environment.host.wake();
  }

  private makeQueues(): Queues {
    const depth = Math.max(1, this.options.count);
    return new Queues(this.environment, this.pd, {
      type: "RC",
      sendDepth: depth,
      receiveDepth: depth,
      describe: (wrId) => (wrId === WR.SEND ? "a SEND" : "a receive"),
    });
  }
}

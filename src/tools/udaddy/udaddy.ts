// SPDX-License-Identifier: MIT
// `udaddy`: RDMA CM resolves a UDP port to a datagram queue pair (SIDR); the client sends datagrams
// whose immediate is its queue pair's number, the server answers there (rocev2 facts section 25).

import { FarpageError, type IpAddress } from "../../runtime/index.js";
import { decodeGrh, GRH_BYTES, type ProtectionDomain, WC_FLAG } from "../../verbs/index.js";
import type { Recipient } from "../area.js";
import { CmDesk, type CmLink } from "../cm-desk.js";
import type { ToolEnvironment } from "../environment.js";
import { firstDifference } from "../pattern.js";
import { Queues } from "../queues.js";
import { checkFirstWords, checkSize, Slots } from "../slots.js";

/** Port of RDMA CM's UDP port space; the stock program knows no other. */
export const UDADDY_PORT = 7174;

export interface UdaddyOptions {
  /** Whom to ask; null: be the server. */
  readonly server: IpAddress | null;
  readonly port: number;
  /** Queue pairs on each side, the same on both; 1 .. 4,096. */
  readonly connections: number;
  /** Datagrams each way for each, the same on both sides; 0: only resolve. */
  readonly count: number;
  /** Bytes of a datagram, the same on both sides, at most the port's MTU; 0: no datagrams. */
  readonly size: number;
  /** Check every byte that can be checked. */
  readonly validate: boolean;
  readonly timeoutMs: number;
}

export interface UdaddyResult {
  readonly connections: number;
  /** Both ways, of all. */
  readonly messages: number;
  readonly bytes: number;
  readonly seconds: number;
}

const WR = { RECEIVE: 1, SEND: 2 } as const;
const CONNECTIONS_MAX = 4096;

/**
 * Runs one round with a stock program or ours.
 * @throws FarpageError ECONNREFUSED, ETIMEDOUT when no answer or too few datagrams come, EMSGSIZE,
 *   EPROTO for a datagram that says no queue pair, EILSEQ for other bytes than expected, EINVAL for
 *   a size that does not fit, EINTR.
 */
export async function runUdaddy(
  environment: ToolEnvironment,
  options: UdaddyOptions,
): Promise<UdaddyResult> {
  const { connections } = options;
  if (!(connections >= 1 && connections <= CONNECTIONS_MAX)) {
    throw new FarpageError("EINVAL", `connections are 1 .. ${CONNECTIONS_MAX}`);
  }
  // As the stock program has it: messages of no bytes are none.
  const count = options.size === 0 ? 0 : options.count;
  using round = new Round(environment, { ...options, count });
  return await round.run();
}

/** One queue pair and whom it talks to. */
interface Talk {
  readonly link: CmLink;
  readonly inbox: Slots;
  readonly outbox: Slots;
  /** Client: known when the server has told; server: from the first datagram. */
  to: Recipient | null;
}

class Round implements Disposable {
  private readonly environment: ToolEnvironment;
  private readonly options: UdaddyOptions;
  private readonly desk: CmDesk;
  private readonly pd: ProtectionDomain;
  private readonly talks: Talk[] = [];

  constructor(environment: ToolEnvironment, options: UdaddyOptions) {
    this.environment = environment;
    this.options = options;
    this.desk = new CmDesk(environment);
    this.pd = environment.host.openDevice().allocPd();
  }

  async run(): Promise<UdaddyResult> {
    const { connections, count, size, validate } = this.options;
    if (this.options.server === null) await this.accept();
    else await this.connect(this.options.server);
    this.environment.report(
      "connected",
      { connections },
      `${connections} queue pairs, ${count} datagrams of ${size} bytes each way for each`,
    );
    const startMs = performance.now();
    if (this.options.server === null) await this.answer();
    else await this.speakFirst();
    const seconds = (performance.now() - startMs) / 1000;
    const messages = 2 * connections * count;
    const result = { connections, messages, bytes: messages * size, seconds };
    this.environment.report(
      "done",
      { ...result, size, verified: validate },
      `${connections} queue pairs, ${messages} datagrams, ${result.bytes} bytes in ` +
        `${seconds.toFixed(3)} s, ${validate ? "compared" : "not compared"}`,
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
    const listener = this.desk.listen({ port: this.options.port, portSpace: "UDP" });
    const { addresses } = host;
    const { port } = listener;
    const text = `udaddy server on ${addresses.join(", ")}, port ${port}`;
    report("ready", { addresses, port }, text);
    const { connections, timeoutMs } = this.options;
    while (this.talks.length < connections) {
      const request = await this.desk.requestOf(connections, this.talks.length, timeoutMs);
      const queues = this.makeQueues(request.id.devicePort);
      await this.enter(this.desk.take(request, queues)).link.accept();
    }
    listener.close();
  }

  private async connect(destination: IpAddress): Promise<void> {
    const { connections, port, timeoutMs } = this.options;
    const resolved: Promise<unknown>[] = [];
    for (let i = 0; i < connections; i++) {
      const makeQueues = (portIndex: number) => this.makeQueues(portIndex);
      const link = this.desk.open({ destination, port, portSpace: "UDP", makeQueues });
      const talk = this.enter(link);
      const answered = link.connect({ timeoutNs: timeoutMs * 1e6 }).then((event) => {
        const ah = this.pd.createAh({ port: link.id.devicePort, destination });
        talk.to = { destination: ah, qpn: event.remoteQpn, qkey: event.remoteQkey };
      });
      answered.catch(() => {});
      resolved.push(answered);
    }
    await Promise.all(resolved);
  }

  private async speakFirst(): Promise<void> {
    const { count, validate } = this.options;
    for (const talk of this.talks) {
      talk.outbox.fill(count);
      this.postSends(talk);
    }
    for (const talk of this.talks) {
      await this.receive(talk);
      if (validate) this.checkAnswers(talk);
    }
  }

  private async answer(): Promise<void> {
    const { count, validate } = this.options;
    for (const talk of this.talks) {
      await this.receive(talk);
      if (validate) checkFirstWords(talk.inbox, count);
    }
    for (const talk of this.talks) {
      for (let i = 0; i < count; i++) talk.outbox.message(i).set(talk.inbox.message(i));
      this.postSends(talk);
    }
    for (const talk of this.talks) {
      for (let i = 0; i < count; i++) await this.completed(talk, WR.SEND, i);
    }
  }

  private async receive(talk: Talk): Promise<void> {
    const { count, size } = this.options;
    for (let i = 0; i < count; i++) {
      const wc = await this.completed(talk, WR.RECEIVE, i);
      checkSize(wc.byteLength - GRH_BYTES, size);
      if (talk.to === null) talk.to = this.sender(talk, i, wc.flags, wc.immediate);
    }
  }

  /** Where the answers go: the address is in the GRH, the queue pair in the immediate. */
  private sender(talk: Talk, index: number, flags: number, immediate: number): Recipient {
    const grh = decodeGrh(talk.inbox.view, talk.inbox.offset(index));
    if (grh === null || (flags & WC_FLAG.WITH_IMM) === 0 || immediate > 0xff_ffff) {
      throw new FarpageError("EPROTO", "a datagram came that does not say who wants the answer");
    }
    const port = talk.link.id.devicePort;
    const destination = this.pd.createAh({ port, destination: grh.source });
    const { qkey } = talk.link.queues.qp.queryQp();
    return { destination, qpn: immediate, qkey };
  }

  private async completed(talk: Talk, wrId: number, index: number) {
    const { count, timeoutMs } = this.options;
    try {
      return await talk.link.queues.reader.of(wrId, { timeoutMs });
    } catch (error) {
      if (!(error instanceof FarpageError) || error.code !== "ETIMEDOUT") throw error;
      const late = `${index} of ${count} datagrams came, then nothing for ${timeoutMs / 1000} s`;
      throw new FarpageError("ETIMEDOUT", `${talk.link.peer}: ${late}`, { cause: error });
    }
  }

  /**
   * Our server gives each datagram back. A stock one answers everything with the first bytes of its
   * buffer, which are the GRH and then what came last.
   */
  private checkAnswers(talk: Talk): void {
    const { count, size } = this.options;
    const last = talk.outbox.message(Math.max(0, count - 1));
    const rest = Math.max(0, size - GRH_BYTES);
    for (let i = 0; i < count; i++) {
      const answer = talk.inbox.message(i);
      const at = firstDifference(answer, talk.outbox.message(i));
      if (at < 0) continue;
      const shifted = answer.subarray(Math.min(GRH_BYTES, size));
      if (firstDifference(shifted, last.subarray(0, rest)) < 0) continue;
      const should = talk.outbox.message(i)[at];
      const what = `answer ${i} of ${talk.link.peer} is wrong`;
      throw new FarpageError("EILSEQ", `${what}: byte ${at} is ${answer[at]}, should be ${should}`);
    }
  }

  private enter(link: CmLink): Talk {
    const { count, size } = this.options;
    const { environment, pd } = this;
    const inbox = new Slots(environment, pd, { count, size, head: GRH_BYTES });
    const outbox = new Slots(environment, pd, { count, size });
    const talk: Talk = { link, inbox, outbox, to: null };
    this.talks.push(talk);
    for (let i = 0; i < count; i++) link.queues.poster.receive(inbox.piece(i, WR.RECEIVE));
    return talk;
  }

  private postSends(talk: Talk): void {
    const { to } = talk;
    if (to === null) return;
    const { poster, qp } = talk.link.queues;
    for (let i = 0; i < this.options.count; i++) {
      poster.send(talk.outbox.piece(i, WR.SEND), { immediate: qp.qpn, to });
    }
    this.environment.host.wake();
  }

  /** @throws FarpageError EINVAL when a datagram does not fit the port. */
  private makeQueues(portIndex: number): Queues {
    const { count, size } = this.options;
    const { activeMtu, gid } = this.pd.context.queryPort(portIndex);
    if (count > 0 && size > activeMtu) {
      const what = `a datagram of ${size} bytes`;
      throw new FarpageError("EINVAL", `${what} does not fit: ${gid} carries ${activeMtu}`);
    }
    const depth = Math.max(1, count);
    return new Queues(this.environment, this.pd, {
      type: "UD",
      sendDepth: depth,
      receiveDepth: depth,
      describe: (wrId) => (wrId === WR.SEND ? "a SEND" : "a receive"),
    });
  }
}

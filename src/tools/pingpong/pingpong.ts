// SPDX-License-Identifier: MIT
// `ibv_rc_pingpong` and `ibv_ud_pingpong`: two queue pairs that a TCP connection introduces, one
// message to and fro.

import { FarpageError, IpAddress } from "../../runtime/index.js";
import { GRH_BYTES, type PathMtu, type ProtectionDomain, WC_STATUS } from "../../verbs/index.js";
import { Area, type Recipient } from "../area.js";
import { completionFailure } from "../completions.js";
import { interruptible, type ToolEnvironment } from "../environment.js";
import { bringUpRc, bringUpUd } from "../queue-pairs.js";
import { Queues } from "../queues.js";
import { SideChannel, SideListener } from "../side-channel.js";
import { Ball } from "./ball.js";
import {
  decodePingpongLine,
  encodePingpongLine,
  PINGPONG_DONE,
  PINGPONG_LINE_BYTES,
  PINGPONG_QKEY,
  type PingpongEnd,
} from "./protocol.js";

export interface PingpongOptions {
  readonly kind: "rc" | "ud";
  /** Whom to connect to; null: be the server, of one client. */
  readonly server: string | null;
  /** TCP port; a server takes a free one for 0. */
  readonly port: number;
  /** Bytes of a message: rc 0 .. 256 MiB, ud 0 .. the port's MTU. Both sides say the same. */
  readonly size: number;
  /** Messages each way, 1 or more. Both sides say the same. */
  readonly iterations: number;
  /** rc: path MTU. Both sides say the same. */
  readonly mtu: PathMtu;
  /** Receives posted at a time. */
  readonly receiveDepth: number;
  /** Check every byte; see `Ball`. */
  readonly validate: boolean;
  /** How long the peer may stay silent. */
  readonly timeoutMs: number;
  /** rc: how long the end answers a peer that missed the last acknowledgement; default 200. */
  readonly lingerMs?: number;
}

export interface PingpongResult {
  readonly iterations: number;
  /** Both ways. */
  readonly bytes: number;
  readonly seconds: number;
}

const SIZE_MAX = 256 << 20;
const WR = { RECEIVE: 1, SEND: 2 } as const;
const LINGER_MS = 200;

/**
 * Plays one game with a stock program or ours.
 * @throws FarpageError ECONNREFUSED and others of TCP, EPROTO when the peer is something else,
 *   EINVAL for what this side can't do, ETIMEDOUT, EILSEQ for other bytes than expected, EMSGSIZE
 *   for another size; a completion status' name; EINTR.
 */
export async function runPingpong(
  environment: ToolEnvironment,
  options: PingpongOptions,
): Promise<PingpongResult> {
  check(options);
  const pd = environment.host.openDevice().allocPd();
  const game = options.server === null ? await serve(environment, options, pd) : null;
  using own = game ?? (await join(environment, options, pd));
  return await own.play();
}

function check(options: PingpongOptions): void {
  const { size, iterations, receiveDepth } = options;
  if (!(size >= 0 && size <= SIZE_MAX)) {
    throw new FarpageError("EINVAL", `messages have 0 .. ${SIZE_MAX} bytes, not ${size}`);
  }
  if (!(iterations >= 1)) throw new FarpageError("EINVAL", "at least one message is played");
  if (!(receiveDepth >= 1)) throw new FarpageError("EINVAL", "at least one receive is needed");
}

/** The server's part over TCP: the client tells first. */
async function serve(
  environment: ToolEnvironment,
  options: PingpongOptions,
  pd: ProtectionDomain,
): Promise<Game> {
  const { host, signal, report } = environment;
  using listener = await SideListener.listen({ port: options.port, signal });
  report(
    "ready",
    { addresses: host.addresses, port: listener.port },
    `${options.kind} pingpong server on ${host.addresses.join(", ")}, TCP port ${listener.port}`,
  );
  using channel = await listener.accept();
  const { timeoutMs } = options;
  const peer = decodePingpongLine(await channel.read(PINGPONG_LINE_BYTES, { timeoutMs }));
  const game = new Game(environment, options, pd, localAddress(environment, channel, peer.gid));
  try {
    game.connect(peer);
    channel.write(encodePingpongLine(game.end));
    await channel.read(PINGPONG_DONE.length, { timeoutMs, orEnd: true });
    return game;
  } catch (error) {
    game.close();
    throw error;
  }
}

/** The client's. */
async function join(
  environment: ToolEnvironment,
  options: PingpongOptions,
  pd: ProtectionDomain,
): Promise<Game> {
  const { signal } = environment;
  const { port, timeoutMs } = options;
  const server = IpAddress.parse(options.server ?? "");
  const source = sourceTowards(environment, server);
  const game = new Game(environment, options, pd, source);
  try {
    using channel = await SideChannel.connect({
      address: String(server),
      port,
      ...(source.family === server.family ? { source: String(source) } : {}),
      timeoutMs,
      signal,
    });
    channel.write(encodePingpongLine(game.end));
    game.connect(decodePingpongLine(await channel.read(PINGPONG_LINE_BYTES, { timeoutMs })));
    channel.write(PINGPONG_DONE);
    return game;
  } catch (error) {
    game.close();
    throw error;
  }
}

/**
 * The local address that a client names: the TCP address' family first. A stock server listens on
 * TCP over IPv4 alone, whatever its GID, so that a host of IPv6 addresses must make do with that.
 */
function sourceTowards(environment: ToolEnvironment, server: IpAddress): IpAddress {
  const own = environment.host.stack.addresses;
  const same = own.find((address) => address.family === server.family);
  return same ?? (own[0] as IpAddress);
}

/** The local address for a peer's GID: the one that its TCP reached, else one of its family. */
function localAddress(
  environment: ToolEnvironment,
  channel: SideChannel,
  gid: IpAddress,
): IpAddress {
  const own = environment.host.addresses;
  const reached = own.find((address) => address === channel.localAddress);
  if (reached !== undefined && IpAddress.parse(reached).family === gid.family) {
    return IpAddress.parse(reached);
  }
  const same = environment.host.stack.addresses.find((address) => address.family === gid.family);
  if (same === undefined) throw otherFamily(gid, own.join(", "));
  return same;
}

/** @param own what this side has instead. */
function otherFamily(gid: IpAddress, own: string): FarpageError {
  return new FarpageError(
    "EPROTO",
    `the peer names ${gid}, and this side has ${own}: start the peer with -g and the index of ` +
      "its IP address's GID (0 is link-local), or this side with another --address",
  );
}

/** One side of a game. */
class Game implements Disposable {
  /** What the peer is told. */
  readonly end: PingpongEnd;
  private readonly environment: ToolEnvironment;
  private readonly options: PingpongOptions;
  private readonly portIndex: number;
  private readonly queues: Queues;
  private readonly received: Area;
  private readonly sent: Area;
  private readonly ball: Ball;
  private recipient: Recipient | null = null;

  constructor(
    environment: ToolEnvironment,
    options: PingpongOptions,
    pd: ProtectionDomain,
    source: IpAddress,
  ) {
    this.environment = environment;
    this.options = options;
    this.portIndex = pd.context.portOf(source);
    if (this.portIndex < 0) {
      throw new FarpageError("EADDRNOTAVAIL", `${source} is not an address of this host`);
    }
    const { activeMtu } = pd.context.queryPort(this.portIndex);
    const most = options.kind === "ud" ? options.size : options.mtu;
    if (most > activeMtu) {
      const what = options.kind === "ud" ? `a datagram of ${most} bytes` : `path MTU ${most}`;
      throw new FarpageError("EINVAL", `${what} does not fit: ${source} carries ${activeMtu}`);
    }
    this.received = new Area(environment, pd, this.headBytes + options.size);
    this.sent = new Area(environment, pd, options.size);
    this.queues = new Queues(environment, pd, {
      type: options.kind === "ud" ? "UD" : "RC",
      sendDepth: 1,
      receiveDepth: options.receiveDepth,
      describe: (wrId) => (wrId === WR.SEND ? "the SEND" : "the receive"),
    });
    const arrived = this.received.bytes.subarray(this.headBytes, this.headBytes + options.size);
    const leaving = this.sent.bytes.subarray(0, options.size);
    this.ball = new Ball(options.server !== null, arrived, leaving);
    const psn = environment.host.stack.random.nextU32() >>> 8;
    this.end = { qpn: this.queues.qp.qpn, psn, gid: source };
  }

  /** Brings the queue pair up; receives are posted then, so that the peer can begin. */
  connect(peer: PingpongEnd): void {
    const { qp } = this.queues;
    const [port, sqPsn] = [this.portIndex, this.end.psn];
    if (peer.gid.family !== this.end.gid.family) {
      throw otherFamily(peer.gid, String(this.end.gid));
    }
    if (this.options.kind === "ud") {
      bringUpUd(qp, { port, qkey: PINGPONG_QKEY, sqPsn });
      const destination = qp.pd.createAh({ port, destination: peer.gid });
      this.recipient = { destination, qpn: peer.qpn, qkey: PINGPONG_QKEY };
    } else {
      const { mtu } = this.options;
      const [destinationQpn, rqPsn] = [peer.qpn, peer.psn];
      const ends = { port, destination: peer.gid, destinationQpn, rqPsn, sqPsn, pathMtu: mtu };
      bringUpRc(qp, { ...ends, accessFlags: 0 });
    }
    for (let i = 0; i < this.options.receiveDepth; i++) this.postReceive();
    this.environment.report(
      "exchanged",
      { local: told(this.end), remote: told(peer) },
      `local  ${line(this.end)}\nremote ${line(peer)}`,
    );
  }

  async play(): Promise<PingpongResult> {
    const { environment, options } = this;
    const startMs = performance.now();
    await this.volley();
    const seconds = (performance.now() - startMs) / 1000;
    const { iterations, size, validate } = options;
    const bytes = 2 * size * iterations;
    const usPerIteration = Number(((seconds * 1e6) / iterations).toFixed(2));
    const result = { iterations, bytes, seconds };
    environment.report(
      "done",
      { ...result, size, usPerIteration, verified: validate },
      `${bytes} bytes in ${seconds.toFixed(3)} s, ${iterations} messages each way, ` +
        `${usPerIteration} us each, ${validate ? "every byte checked" : "not checked"}`,
    );
    await this.linger();
    return result;
  }

  close(): void {
    this.queues.destroy();
    this.received.free();
    this.sent.free();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Sends when the last send has completed and the peer's message is here. */
  private async volley(): Promise<void> {
    const { iterations, timeoutMs } = this.options;
    let sentCount = 0;
    let receivedCount = 0;
    let startedCount = 0;
    const isClient = this.options.server !== null;
    while (receivedCount < iterations || sentCount < iterations) {
      // A client is one message ahead; a server answers.
      const mayStart = isClient ? receivedCount === startedCount : receivedCount > startedCount;
      if (mayStart && sentCount === startedCount && startedCount < iterations) {
        this.serveBall(startedCount++);
      }
      const wc = await this.queues.reader.next({ timeoutMs });
      if (wc.status !== WC_STATUS.SUCCESS) {
        throw completionFailure(wc, wc.wrId === WR.SEND ? "the SEND" : "the receive");
      }
      if (wc.wrId === WR.SEND) {
        sentCount++;
        continue;
      }
      this.take(wc.byteLength - this.headBytes, receivedCount++);
    }
  }

  private serveBall(number: number): void {
    this.ball.leave(number);
    const to = this.recipient;
    const piece = { area: this.sent, length: this.options.size, wrId: WR.SEND };
    this.queues.poster.send(piece, to === null ? {} : { to });
  }

  private take(byteLength: number, number: number): void {
    const { size, validate } = this.options;
    if (byteLength !== size) {
      throw new FarpageError(
        "EMSGSIZE",
        `the peer sends ${byteLength} bytes, this side ${size}: give both the same size`,
      );
    }
    if (validate) this.ball.check(number);
    this.ball.arrive();
    this.postReceive();
  }

  private postReceive(): void {
    const length = this.headBytes + this.options.size;
    this.queues.poster.receive({ area: this.received, length, wrId: WR.RECEIVE });
  }

  /** A lost acknowledgement makes the peer repeat its last message: it must not find nobody. */
  private async linger(): Promise<void> {
    if (this.options.kind === "ud") return;
    const lingerMs = this.options.lingerMs ?? LINGER_MS;
    const passed = new Promise<void>((resolve) => setTimeout(resolve, lingerMs));
    await interruptible(this.environment.signal, passed);
  }

  private get headBytes(): number {
    return this.options.kind === "ud" ? GRH_BYTES : 0;
  }
}

function told(end: PingpongEnd): Readonly<Record<string, unknown>> {
  return { qpn: end.qpn, psn: end.psn, gid: String(end.gid) };
}

function line(end: PingpongEnd): string {
  return `${end.gid}, queue pair 0x${end.qpn.toString(16)}, PSN 0x${end.psn.toString(16)}`;
}

// SPDX-License-Identifier: MIT
// How two sides of perftest find each other, and what they agree on before either makes a queue
// pair.

import { IpAddress } from "../../runtime/index.js";
import type { ProtectionDomain } from "../../verbs/index.js";
import { CmDesk } from "../cm-desk.js";
import type { ToolEnvironment } from "../environment.js";
import { SideChannel, SideListener } from "../side-channel.js";
import { CmExchange, CmExchangeEnd } from "./cm-exchange.js";
import { acceptPeer, connectPatiently, type PerfLink } from "./cm-links.js";
import { type Exchange, TcpExchange } from "./exchange.js";
import {
  CACHE_LINE_BYTES,
  decodeCacheLineBytes,
  decodeMtu,
  decodePageBytes,
  decodeVersion,
  encodeMtu,
  encodeU32,
  encodeVersion,
  PAGE_BYTES,
} from "./messages.js";
import { type PerfOptions, stockName } from "./options.js";

/** A peer that was found. */
export interface Conversation {
  readonly exchange: Exchange;
  /** By RDMA CM: the way to more connections with it. */
  readonly desk: CmDesk | null;
  /** The local address that the peer knows, where it is one of the host's. */
  readonly local: IpAddress | null;
}

/** What both sides agreed on. */
export interface Agreement {
  readonly remoteVersion: string;
  /** Small messages may go anywhere in the first so many bytes of the other side's memory. */
  readonly cycleBytes: number;
  /** Path MTU. */
  readonly mtu: number;
}

/**
 * Waits for a client or connects to a server.
 * @throws FarpageError ECONNREFUSED, ETIMEDOUT, EADDRINUSE, EINVAL, EINTR.
 */
export async function converse(
  environment: ToolEnvironment,
  options: PerfOptions,
  pd: ProtectionDomain,
): Promise<Conversation> {
  if (options.cm) return converseByCm(environment, options, pd);
  return options.server === null
    ? awaitTcp(environment, options)
    : connectTcp(environment, options, options.server);
}

/** @throws FarpageError EPROTO, EPROTONOSUPPORT, and what `Exchange.swap` throws. */
export async function agree(exchange: Exchange, mtuMax: number): Promise<Agreement> {
  const remoteVersion = decodeVersion(await exchange.swap(encodeVersion()));
  const pageBytes = decodePageBytes(await exchange.swap(encodeU32(PAGE_BYTES)));
  decodeCacheLineBytes(await exchange.swap(encodeU32(CACHE_LINE_BYTES)));
  const remoteMtu = decodeMtu(await exchange.swap(encodeMtu(mtuMax)));
  return {
    remoteVersion,
    cycleBytes: Math.max(PAGE_BYTES, pageBytes),
    mtu: Math.min(mtuMax, remoteMtu),
  };
}

async function awaitTcp(environment: ToolEnvironment, options: PerfOptions): Promise<Conversation> {
  const { signal } = environment;
  using listener = await SideListener.listen({ port: options.port, signal });
  tellListening(environment, options, listener.port);
  const channel = await listener.accept();
  return {
    exchange: new TcpExchange(channel, false),
    desk: null,
    local: ownAddress(environment, channel.localAddress),
  };
}

async function connectTcp(
  environment: ToolEnvironment,
  options: PerfOptions,
  server: string,
): Promise<Conversation> {
  const channel = await SideChannel.connect({
    address: server,
    port: options.port,
    ...sourceTowards(environment, server),
    signal: environment.signal,
  });
  return {
    exchange: new TcpExchange(channel, true),
    desk: null,
    local: ownAddress(environment, channel.localAddress),
  };
}

async function converseByCm(
  environment: ToolEnvironment,
  options: PerfOptions,
  pd: ProtectionDomain,
): Promise<Conversation> {
  const desk = new CmDesk(environment);
  const end = new CmExchangeEnd(environment, pd);
  try {
    const link =
      options.server === null
        ? await awaitCm(environment, options, desk, end)
        : await connectCm(environment, options, desk, end);
    const exchange = new CmExchange(link, end, options.server !== null);
    return { exchange, desk, local: link.id.localAddress };
  } catch (error) {
    desk.close();
    end.area.free();
    throw error;
  }
}

async function awaitCm(
  environment: ToolEnvironment,
  options: PerfOptions,
  desk: CmDesk,
  end: CmExchangeEnd,
): Promise<PerfLink> {
  const { port } = desk.listen({ port: options.port });
  if (options.connection === "UD") desk.listen({ port, portSpace: "UDP" });
  tellListening(environment, options, port);
  return acceptPeer(desk, await desk.request({ portSpace: "TCP" }), end, options.ackTimeout);
}

function connectCm(
  environment: ToolEnvironment,
  options: PerfOptions,
  desk: CmDesk,
  end: CmExchangeEnd,
): Promise<PerfLink> {
  const destination = IpAddress.parse(options.server ?? "");
  const source = sourceFor(environment, destination);
  const target = { portSpace: "TCP", source, destination, port: options.port } as const;
  const { ackTimeout } = options;
  const depths = { responderResources: 0, initiatorDepth: 0, ackTimeout };
  return connectPatiently(environment, desk, target, end, depths);
}

function tellListening(environment: ToolEnvironment, options: PerfOptions, port: number): void {
  const where = options.cm ? `RDMA CM port ${port}` : `TCP port ${port}`;
  const text = `waiting for ${stockName(options)} on ${where}`;
  environment.report("listening", { port, cm: options.cm }, text);
}

/** A local address for connections to `destination`: the first of the family. */
function sourceFor(environment: ToolEnvironment, destination: IpAddress): IpAddress {
  const { addresses } = environment.host.stack;
  return addresses.find((own) => own.family === destination.family) ?? destination;
}

/** Talks from a local address that the host has, where one can reach the server. */
function sourceTowards(environment: ToolEnvironment, server: string): { source?: string } {
  const family = server.includes(":") ? 6 : /^[\d.]+$/.test(server) ? 4 : 0;
  const source = environment.host.stack.addresses.find((own) => own.family === family);
  return source === undefined ? {} : { source: String(source) };
}

function ownAddress(environment: ToolEnvironment, text: string): IpAddress | null {
  const own = environment.host.stack.addresses.find((address) => String(address) === text);
  return own ?? null;
}

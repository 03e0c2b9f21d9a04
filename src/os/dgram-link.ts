// SPDX-License-Identifier: MIT
// A link on node:dgram, for systems without foreign calls. One datagram per call and event, and no
// say in what the kernel puts into the IP header: farpage peers cope (facts page, section 7.3),
// Linux's rxe and hardware discard what this link sends on IPv4, and on IPv6 this link never sees
// what rxe sends.

import { createSocket, type RemoteInfo, type Socket } from "node:dgram";
import { assert, type FarpageError, IpAddress, ObjectRing } from "../base/index.js";
import { RxBurst, type TxBatch, type TxFlow } from "../transport/index.js";
import type { LinkCounters, OsLink, Poller } from "./door.js";
import { nodeFailure } from "./failure.js";
import { interfaceOf, isLinkLocal } from "./interfaces.js";
import { newLinkCounters } from "./native-link.js";
import { explainBindFailure, RECEIVE_PAYLOAD_FRACTION } from "./udp-socket.js";

const LIMITATION =
  "UDP by Node's own sockets: slower, and it can talk to farpage only, not to Linux's rxe or to " +
  "hardware (it has no control over what the packet checksum covers)";

/** A datagram is at most this long; each has a burst of its own. */
const BURST_BYTES = 65_536;
/** Datagrams that wait for `receive`; more are dropped, as by a full socket buffer. */
const QUEUE_COUNT_MAX = 4096;
/** Sends that libuv has not finished; then `send` stops until some have. */
const SEND_COUNT_MAX = 256;

export interface DgramLinkOptions {
  readonly addresses: readonly IpAddress[];
  readonly poller: Poller;
  readonly port: number;
  /** As for `UdpSocketOptions`. */
  readonly receiveBufferValue: number;
  readonly burstCount: number;
  readonly onNotice: (message: string) => void;
}

interface Arrival {
  readonly bytes: Uint8Array;
  readonly port: number;
  readonly source: IpAddress;
  readonly sourcePort: number;
}

/**
 * Binds and opens the link.
 * @throws FarpageError as `openLink`.
 */
export async function openDgramLink(options: DgramLinkOptions): Promise<DgramLink> {
  const sockets: Socket[] = [];
  let port = options.port;
  try {
    for (const address of options.addresses) {
      const socket = await bindSocket(address, port, options.receiveBufferValue);
      sockets.push(socket);
      port = socket.address().port;
    }
  } catch (error) {
    for (const socket of sockets) socket.close();
    throw error;
  }
  return new DgramLink(options, sockets, port);
}

function bindSocket(address: IpAddress, port: number, bufferValue: number): Promise<Socket> {
  const socket = createSocket({
    type: address.family === 4 ? "udp4" : "udp6",
    ipv6Only: address.family === 6,
    // Destinations are addresses: nothing to look up, so the datagram leaves in the same turn.
    lookup: (host, _options, callback) => callback(null, host, address.family),
  });
  return new Promise((resolve, reject) => {
    const fail = (cause: Error): void => {
      socket.close();
      const error = nodeFailure(`bind UDP port ${port} on ${address}`, cause);
      reject("code" in error ? explainBindFailure(error as FarpageError, address, port) : error);
    };
    socket.once("error", fail);
    socket.bind({ address: scopedText(address), port, exclusive: true }, () => {
      socket.off("error", fail);
      try {
        socket.setRecvBufferSize(bufferValue);
      } catch {
        // Some systems refuse rather than clamp; what is granted is read back.
      }
      resolve(socket);
    });
  });
}

/** With the zone that a link-local address needs: "fe80::1%eth0". */
function scopedText(address: IpAddress): string {
  const { name } = interfaceOf(address);
  return isLinkLocal(address) && name !== null ? `${address}%${name}` : address.toString();
}

export class DgramLink implements OsLink {
  readonly backend = "node";
  readonly limitation = LIMITATION;
  readonly addresses: readonly IpAddress[];
  readonly linkMtus: readonly number[];
  readonly receiveBufferBytes: number;
  readonly port: number;
  readonly bursts: RxBurst[];
  readonly counters: LinkCounters = newLinkCounters();

  private readonly poller: Poller;
  private readonly sockets: readonly Socket[];
  private readonly onNotice: (message: string) => void;
  private readonly noticed = new Set<string>();
  private readonly arrivals = new ObjectRing<Arrival>(QUEUE_COUNT_MAX);
  /** Parsed sender addresses by their text; a peer sends from few. */
  private readonly sources = new Map<string, IpAddress>();
  private sendsUnderWay = 0;
  private wantsWrite = false;
  private isClosed = false;

  private readonly onSent = (error: Error | null): void => {
    this.sendsUnderWay--;
    if (error !== null) {
      this.counters.sendFailures++;
      this.notice(`packets can't be sent: ${error.message}`);
    }
    if (this.wantsWrite && this.writable) this.poller.wake();
  };

  constructor(options: DgramLinkOptions, sockets: readonly Socket[], port: number) {
    this.addresses = options.addresses;
    this.poller = options.poller;
    this.onNotice = options.onNotice;
    this.sockets = sockets;
    this.port = port;
    this.linkMtus = options.addresses.map((address) => interfaceOf(address).mtu);
    const granted = Math.min(...sockets.map((socket) => socket.getRecvBufferSize()));
    // Datagrams also wait in this process, but that queue is no larger than the event loop is slow.
    this.receiveBufferBytes = Math.floor(granted * RECEIVE_PAYLOAD_FRACTION);
    this.bursts = Array.from(
      { length: options.burstCount },
      () => new RxBurst(new Uint8Array(BURST_BYTES)),
    );
    sockets.forEach((socket, index) => {
      socket.on("message", (bytes, remote) => this.arrive(index, bytes, remote));
      // An ICMP error: the next datagram may fare better.
      socket.on("error", () => {
        this.counters.pendingErrors++;
      });
    });
  }

  get readable(): boolean {
    return this.arrivals.count > 0;
  }

  get writable(): boolean {
    return this.sendsUnderWay < SEND_COUNT_MAX;
  }

  setWantsWrite(wanted: boolean): void {
    this.wantsWrite = wanted;
  }

  receive(): number {
    assert(!this.isClosed, "the link is open");
    this.counters.receiveCalls++;
    let count = 0;
    while (count < this.bursts.length) {
      const arrival = this.arrivals.shift();
      if (arrival === null) break;
      fillBurst(this.bursts[count] as RxBurst, arrival);
      this.counters.receivedBytes += arrival.bytes.length;
      count++;
    }
    this.counters.receivedBursts += count;
    return count;
  }

  send(batch: TxBatch): number {
    assert(!this.isClosed, "the link is open");
    // Each datagram is sent by itself, so that its IP identification is not its place in a message.
    batch.segmentsMax = 1;
    const before = batch.sentCount;
    while (batch.sentCount < batch.messageCount) {
      if (!this.writable) {
        this.counters.sendStalls++;
        break;
      }
      this.sendMessage(batch, batch.sentCount);
      batch.sentCount++;
    }
    return batch.sentCount - before;
  }

  close(): void {
    if (this.isClosed) return;
    this.isClosed = true;
    for (const socket of this.sockets) socket.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  private sendMessage(batch: TxBatch, index: number): void {
    const flow = batch.flows[index] as TxFlow;
    const socket = this.sockets[flow.port] as Socket;
    const destination = flow.destination.toString();
    const start = batch.offsets[index] as number;
    const end = start + (batch.lengths[index] as number);
    const segmentLength = batch.segmentLengths[index] as number;
    this.counters.sentMessages++;
    for (let offset = start; offset < end; offset += segmentLength) {
      // A copy: libuv may send it later, when the batch has been filled anew.
      const bytes = batch.bytes.slice(offset, Math.min(end, offset + segmentLength));
      this.sendsUnderWay++;
      this.counters.sendCalls++;
      this.counters.sentBytes += bytes.length;
      socket.send(bytes, flow.destinationPort, destination, this.onSent);
    }
  }

  private arrive(port: number, bytes: Uint8Array, remote: RemoteInfo): void {
    const source = this.sourceOf(remote.address);
    const arrival = { bytes, port, source, sourcePort: remote.port };
    const isUseful = bytes.length > 0 && bytes.length <= BURST_BYTES;
    if (this.arrivals.count >= QUEUE_COUNT_MAX || !isUseful || !this.arrivals.push(arrival)) {
      this.counters.receiveDrops++;
      return;
    }
    this.poller.wake();
  }

  private sourceOf(text: string): IpAddress {
    const known = this.sources.get(text);
    if (known !== undefined) return known;
    const source = IpAddress.parse(text.split("%")[0] as string);
    // Anybody can send from anywhere: the table starts anew rather than grow.
    if (this.sources.size >= 1024) this.sources.clear();
    this.sources.set(text, source);
    return source;
  }

  private notice(message: string): void {
    if (this.noticed.has(message) || this.noticed.size >= 100) return;
    this.noticed.add(message);
    this.onNotice(message);
  }
}

function fillBurst(burst: RxBurst, arrival: Arrival): void {
  burst.bytes.set(arrival.bytes);
  burst.offset = 0;
  burst.length = arrival.bytes.length;
  burst.segmentLength = arrival.bytes.length;
  burst.port = arrival.port;
  burst.source0 = arrival.source.word0;
  burst.source1 = arrival.source.word1;
  burst.source2 = arrival.source.word2;
  burst.source3 = arrival.source.word3;
  burst.sourcePort = arrival.sourcePort;
  burst.trafficClass = 0;
}

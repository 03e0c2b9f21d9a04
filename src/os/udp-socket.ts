// SPDX-License-Identifier: MIT
// One UDP socket, bound to one local address and set up for RoCEv2: see the facts page, sections 7
// and 8. IPv4: unconnected with path MTU discovery on, which fixes the IP identification that the
// ICRC covers; IPv6: accepts checksum 0, which is what the kernel's rxe sends. Both: GRO, TOS,
// buffers as large as the system grants.

import { assert, FarpageError, IpAddress } from "../base/index.js";
import { describeUdpPortHolder } from "./diagnosis.js";
import type { PolledDescriptor, Poller } from "./door.js";
import { failure } from "./failure.js";
import { interfaceOf, localAddresses } from "./interfaces.js";
import { mapBlock, unmapBlock } from "./memory-source.js";
import { loadNative } from "./native.js";
import { addressFamilyOf, readInetPort, writeInetAddress } from "./socket-address.js";
import { BPF_INSTRUCTION_BYTES, type BpfInstruction } from "./steering-program.js";

const SOCK_DGRAM_NONBLOCK_CLOEXEC = 0x80802;
const SOL_IP = 0;
const SOL_SOCKET = 1;
const SOL_UDP = 17;
const SOL_IPV6 = 41;
const SO_REUSEPORT = 15;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SO_RXQ_OVFL = 40;
const SO_ATTACH_REUSEPORT_CBPF = 51;
const IP_MTU_DISCOVER = 10;
const IP_RECVTOS = 13;
const IP_PMTUDISC_DO = 2;
const IPV6_MTU_DISCOVER = 23;
const IPV6_V6ONLY = 26;
const IPV6_RECVTCLASS = 66;
const UDP_NO_CHECK6_RX = 102;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;

/**
 * The part of SO_RCVBUF's granted value that payload surely fills; the rest is the kernel's
 * overhead (a packet is charged with the memory that it sits in). Measured on loopback, Linux 6.18,
 * by filling a buffer that nobody reads: 0.45 with separate datagrams of 1 to 4 KiB, 0.87 to 0.98
 * with GSO bursts of 60 KiB, 0.2 at 256 bytes, 0.02 at 20 (bare acknowledgements: few, if they are
 * coalesced). A NIC driver that gives each 1,500-byte frame a page of its own comes to 0.35. So: a
 * third.
 */
export const RECEIVE_PAYLOAD_FRACTION = 1 / 3;

/** Wanted for sending: enough for several GSO bursts in a device's queue. */
const SEND_BUFFER_BYTES = 4 * 1024 * 1024;

export interface UdpSocketOptions {
  readonly address: IpAddress;
  readonly port: number;
  /** Value for SO_RCVBUF; the kernel doubles it for its own overhead. */
  readonly receiveBufferValue: number;
  /**
   * Whether other sockets of this process will have the same address and port. `FIRST` takes the
   * port as if not, and lets others in afterwards: so that only those of one process ever share it.
   */
  readonly sharing?: "NONE" | "FIRST" | "FURTHER";
}

/** A socket that is bound, as plain data: every thread of the process can use it. */
export interface BoundSocket {
  readonly address: string;
  readonly descriptor: number;
  /** The port that is bound. */
  readonly port: number;
  readonly mtu: number;
  /** For link-local destinations. */
  readonly scopeId: number;
  /** Bytes that the kernel accounts to received packets at most, its overhead included. */
  readonly receiveBufferGranted: number;
  readonly receivesGro: boolean;
  readonly sendsGso: boolean;
}

/**
 * Opens, sets up and binds a socket.
 * @throws FarpageError EADDRNOTAVAIL, EADDRINUSE (naming the holder), EACCES, EAFNOSUPPORT ...
 */
export function bindUdpSocket(options: UdpSocketOptions): BoundSocket {
  const { libc } = loadNative();
  const { address, sharing = "NONE" } = options;
  const { mtu, scopeId } = interfaceOf(address);
  const descriptor = libc.socket(addressFamilyOf(address), SOCK_DGRAM_NONBLOCK_CLOEXEC, 0);
  if (descriptor < 0) throw failure(`open a UDP socket for ${address}`);
  const configurator = new Configurator(descriptor);
  try {
    configurator.setPathMtuDiscovery(address.family);
    const receivesGro = configurator.trySet(SOL_UDP, UDP_GRO, 1);
    const sendsGso = configurator.tryGet(SOL_UDP, UDP_SEGMENT) !== null;
    const receiveBufferGranted = configurator.setBuffers(options.receiveBufferValue);
    if (sharing === "FURTHER") configurator.set(SOL_SOCKET, SO_REUSEPORT, 1);
    const port = configurator.bind(address, options.port, scopeId);
    if (sharing === "FIRST") configurator.set(SOL_SOCKET, SO_REUSEPORT, 1);
    const granted = { receiveBufferGranted, receivesGro, sendsGso };
    return { address: address.toString(), descriptor, port, mtu, scopeId, ...granted };
  } catch (error) {
    libc.close(descriptor);
    throw error;
  } finally {
    configurator.close();
  }
}

/** Binds one socket per address, all with the same port; all or none. @throws as for one. */
export function bindUdpSockets(options: {
  readonly addresses: readonly IpAddress[];
  readonly port: number;
  readonly receiveBufferValue: number;
}): BoundSocket[] {
  const { addresses, receiveBufferValue } = options;
  const sockets: BoundSocket[] = [];
  let port = options.port;
  try {
    for (const address of addresses) {
      const socket = bindUdpSocket({ address, port, receiveBufferValue });
      sockets.push(socket);
      port = socket.port;
    }
  } catch (error) {
    for (const socket of sockets) closeSocket(socket);
    throw error;
  }
  return sockets;
}

/**
 * Has the kernel choose by `program` among the sockets that share the port of `socket`.
 * Preconditions: there are two of them.
 * @throws FarpageError with the kernel's errno where it has no such thing.
 */
export function steerSockets(socket: BoundSocket, program: readonly BpfInstruction[]): void {
  const block = mapBlock(4096);
  const { view, address } = block;
  // struct sock_fprog: length, padding, pointer; the instructions behind it.
  const at = 16;
  view.setUint16(0, program.length, true);
  view.setBigUint64(8, BigInt(address + at), true);
  program.forEach(({ code, jt, jf, k }, index) => {
    const to = at + index * BPF_INSTRUCTION_BYTES;
    view.setUint16(to, code, true);
    view.setUint8(to + 2, jt);
    view.setUint8(to + 3, jf);
    view.setUint32(to + 4, k, true);
  });
  const { libc, errno } = loadNative();
  const { descriptor } = socket;
  const failed = libc.setsockopt(descriptor, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, address, 16) < 0;
  const code = failed ? errno() : 0;
  unmapBlock(block);
  if (failed) throw failure(`steer packets among the sockets of ${socket.address}`, code);
}

/** Closes a socket of `bindUdpSocket`. Preconditions: nobody uses it any more. */
export function closeSocket(socket: BoundSocket): void {
  loadNative().libc.close(socket.descriptor);
}

/** A bound socket in the hands of one thread. */
export class UdpSocket {
  readonly address: IpAddress;
  readonly descriptor: number;
  readonly polled: PolledDescriptor;
  readonly scopeId: number;
  /** False once a GSO send has been refused for good. */
  sendsGso: boolean;
  /** The kernel's running count of datagrams that found the buffer full, modulo 2^32. */
  overflowCount = 0;

  constructor(bound: BoundSocket, poller: Poller) {
    this.address = IpAddress.parse(bound.address);
    this.descriptor = bound.descriptor;
    this.scopeId = bound.scopeId;
    this.sendsGso = bound.sendsGso;
    this.polled = poller.add(bound.descriptor);
  }

  /** The socket itself stays open. */
  release(): void {
    this.polled.remove();
  }
}

/** Sets options by calls whose values need an address. */
class Configurator {
  private readonly block = mapBlock(4096);
  private readonly descriptor: number;

  constructor(descriptor: number) {
    this.descriptor = descriptor;
  }

  close(): void {
    unmapBlock(this.block);
  }

  setPathMtuDiscovery(family: 4 | 6): void {
    if (family === 4) {
      this.set(SOL_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO);
      this.set(SOL_IP, IP_RECVTOS, 1);
    } else {
      this.set(SOL_IPV6, IPV6_V6ONLY, 1);
      this.set(SOL_IPV6, IPV6_MTU_DISCOVER, IP_PMTUDISC_DO);
      this.set(SOL_IPV6, IPV6_RECVTCLASS, 1);
      // Without this the kernel discards rxe's packets unseen. Since Linux 3.16.
      this.set(SOL_UDP, UDP_NO_CHECK6_RX, 1);
    }
    // A count of what was lost for want of room; informative only.
    this.trySet(SOL_SOCKET, SO_RXQ_OVFL, 1);
  }

  /** @returns the granted receive buffer. */
  setBuffers(receiveValue: number): number {
    // The forced kind ignores net.core.rmem_max but needs CAP_NET_ADMIN.
    if (!this.trySet(SOL_SOCKET, SO_RCVBUFFORCE, receiveValue)) {
      this.set(SOL_SOCKET, SO_RCVBUF, receiveValue);
    }
    if (!this.trySet(SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES)) {
      this.set(SOL_SOCKET, SO_SNDBUF, SEND_BUFFER_BYTES);
    }
    const granted = this.tryGet(SOL_SOCKET, SO_RCVBUF);
    assert(granted !== null, "every socket tells its receive buffer");
    return granted;
  }

  /** @returns the port that was bound. */
  bind(address: IpAddress, port: number, scopeId: number): number {
    const { libc, errno } = loadNative();
    const { view, address: at } = this.block;
    const length = writeInetAddress(view, 0, address, port, scopeId);
    if (libc.bind(this.descriptor, at, length) < 0) {
      const error = failure(`bind UDP port ${port} on ${address}`, errno());
      throw explainBindFailure(error, address, port);
    }
    view.setUint32(256, 128, true);
    libc.getsockname(this.descriptor, at, at + 256);
    return readInetPort(view, 0);
  }

  set(level: number, option: number, value: number): void {
    if (!this.trySet(level, option, value)) {
      throw failure(`set option ${option} at level ${level} of a UDP socket`);
    }
  }

  trySet(level: number, option: number, value: number): boolean {
    const { view, address } = this.block;
    view.setInt32(0, value, true);
    return loadNative().libc.setsockopt(this.descriptor, level, option, address, 4) === 0;
  }

  tryGet(level: number, option: number): number | null {
    const { view, address } = this.block;
    view.setInt32(0, 0, true);
    view.setUint32(8, 4, true);
    const { libc } = loadNative();
    const result = libc.getsockopt(this.descriptor, level, option, address, address + 8);
    return result < 0 ? null : view.getInt32(0, true);
  }
}

/** The same error with what the user can do about it. */
export function explainBindFailure(error: FarpageError, address: IpAddress, port: number): Error {
  if (error.code === "EADDRNOTAVAIL") {
    return new FarpageError(
      error.code,
      `${address} is not an address of this machine; it has ${localAddresses().join(", ")}`,
      { cause: error },
    );
  }
  if (error.code === "EADDRINUSE") {
    return new FarpageError(
      error.code,
      `UDP port ${port} on ${address} is taken: ${describeUdpPortHolder(address, port)}`,
      { cause: error },
    );
  }
  return error;
}

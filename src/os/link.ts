// SPDX-License-Identifier: MIT
// Opens a link: checks what was asked for and takes the native one or the one on node:dgram.

import { FarpageError, IpAddress } from "../base/index.js";
import { openDgramLink } from "./dgram-link.js";
import type { LaneSocketOptions, LaneSockets, LinkOptions, OsLink } from "./door.js";
import { choosesNative } from "./native.js";
import { NativeLink } from "./native-link.js";
import { steeringProgram } from "./steering-program.js";
import {
  type BoundSocket,
  bindUdpSocket,
  bindUdpSockets,
  closeSocket,
  RECEIVE_PAYLOAD_FRACTION,
  steerSockets,
} from "./udp-socket.js";

/** RoCEv2's UDP port (IANA "roce"). */
const ROCE_PORT = 4791;
/** Asked for where nobody says how much: several bursts of several peers. */
const RECEIVE_BUFFER_BYTES_DEFAULT = 8 * 1024 * 1024;
/** SO_RCVBUF is a positive int that the kernel doubles. */
const RECEIVE_BUFFER_VALUE_MAX = 0x3fff_ffff;
/** Below this the window that a peer may fill is too small for the speed of a fast network. */
const RECEIVE_BUFFER_BYTES_WANTED = 1024 * 1024;
const BURST_COUNT_DEFAULT = 16;
/** recvmmsg and this link's memory (64 KiB each) both want a bound. */
const BURST_COUNT_MAX = 256;

/**
 * Binds UDP sockets to local addresses.
 * @throws FarpageError EINVAL (no or bad address, one twice), EADDRNOTAVAIL (says which addresses
 *   are local), EADDRINUSE (says by whom), EACCES, EAFNOSUPPORT, ENOMEM; EOPNOTSUPP when `backend:
 *   "native"` can't be had.
 */
export async function openLink(options: LinkOptions): Promise<OsLink> {
  const addresses = parseAddresses(options.addresses);
  const burstCount = options.burstCount ?? BURST_COUNT_DEFAULT;
  if (!Number.isInteger(burstCount) || burstCount < 1 || burstCount > BURST_COUNT_MAX) {
    throw new FarpageError("EINVAL", `burstCount is ${burstCount}, not 1 to ${BURST_COUNT_MAX}`);
  }
  const port = options.port ?? ROCE_PORT;
  if (!Number.isInteger(port) || port < 0 || port > 0xffff) {
    throw new FarpageError("EINVAL", `${port} is not a UDP port`);
  }
  const wantedBytes = options.receiveBufferBytes ?? RECEIVE_BUFFER_BYTES_DEFAULT;
  const receiveBufferValue = receiveBufferValueOf(wantedBytes);
  const onNotice = options.onNotice ?? (() => {});
  const { poller, segmentation = true } = options;
  const binding = { addresses, port, receiveBufferValue };
  const common = { addresses, poller, burstCount, segmentation, onNotice };
  const link = choosesNative(options.backend)
    ? new NativeLink({
        ...common,
        sockets: options.sockets ?? bindUdpSockets(binding),
        ownsSockets: options.sockets === undefined,
      })
    : await openDgramLink({ ...common, ...binding });
  if (link.limitation !== null) onNotice(link.limitation);
  if (link.receiveBufferBytes < Math.min(wantedBytes, RECEIVE_BUFFER_BYTES_WANTED)) {
    onNotice(
      `the system grants receive buffers for ${link.receiveBufferBytes} bytes in flight only; ` +
        "for more speed raise the sysctl net.core.rmem_max (to 16777216, say)",
    );
  }
  return link;
}

/**
 * Binds the addresses' sockets of each of several lanes of one host. They share the port, and the
 * kernel brings each packet to the lane that `steering` says. No other process can share it with
 * them, unless it is this user's and tries hard.
 * @throws FarpageError as `openLink`, and with the kernel's errno where it can't steer.
 */
export function bindLaneSockets(options: LaneSocketOptions): LaneSockets {
  const addresses = parseAddresses(options.addresses);
  const { steering, port = ROCE_PORT } = options;
  const receiveBufferValue = receiveBufferValueOf(RECEIVE_BUFFER_BYTES_DEFAULT);
  const lanes: BoundSocket[][] = Array.from({ length: steering.laneCount }, () => []);
  const close = () => {
    for (const socket of lanes.flat()) closeSocket(socket);
  };
  try {
    let bound = port;
    for (const address of addresses) {
      // In the order of the lanes, by which the kernel will number them.
      for (const [index, sockets] of lanes.entries()) {
        const sharing = index === 0 ? "FIRST" : "FURTHER";
        const socket = bindUdpSocket({ address, port: bound, receiveBufferValue, sharing });
        sockets.push(socket);
        bound = socket.port;
      }
      const first = lanes[0]?.at(-1) as BoundSocket;
      if (steering.laneCount > 1) steerSockets(first, steeringProgram(steering));
    }
  } catch (error) {
    close();
    throw error;
  }
  return { lanes, close };
}

/** @throws FarpageError EINVAL for none, a bad one, one twice. */
function parseAddresses(texts: readonly string[]): IpAddress[] {
  const addresses = texts.map((text) => IpAddress.parse(text));
  checkAddresses(addresses);
  return addresses;
}

function receiveBufferValueOf(wantedBytes: number): number {
  const value = Math.ceil(wantedBytes / RECEIVE_PAYLOAD_FRACTION / 2);
  return Math.min(RECEIVE_BUFFER_VALUE_MAX, value);
}

function checkAddresses(addresses: readonly IpAddress[]): void {
  if (addresses.length === 0) {
    throw new FarpageError("EINVAL", "a link needs at least one local address");
  }
  const texts = new Set<string>();
  for (const address of addresses) {
    const text = address.toString();
    if (texts.has(text)) throw new FarpageError("EINVAL", `${text} is given twice`);
    if (text === "0.0.0.0" || text === "::") {
      throw new FarpageError("EINVAL", `${text} is every address: name the ones to use`);
    }
    texts.add(text);
  }
}

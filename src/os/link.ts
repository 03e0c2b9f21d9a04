// SPDX-License-Identifier: MIT
// Opens a link: checks what was asked for and takes the native one or the one on node:dgram.

import { FarpageError, IpAddress } from "../base/index.js";
import { openDgramLink } from "./dgram-link.js";
import type { LinkOptions, OsLink } from "./door.js";
import { choosesNative } from "./native.js";
import { NativeLink } from "./native-link.js";
import { RECEIVE_PAYLOAD_FRACTION } from "./udp-socket.js";

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
  const addresses = options.addresses.map((text) => IpAddress.parse(text));
  checkAddresses(addresses);
  const burstCount = options.burstCount ?? BURST_COUNT_DEFAULT;
  if (!Number.isInteger(burstCount) || burstCount < 1 || burstCount > BURST_COUNT_MAX) {
    throw new FarpageError("EINVAL", `burstCount is ${burstCount}, not 1 to ${BURST_COUNT_MAX}`);
  }
  const port = options.port ?? ROCE_PORT;
  if (!Number.isInteger(port) || port < 0 || port > 0xffff) {
    throw new FarpageError("EINVAL", `${port} is not a UDP port`);
  }
  const wantedBytes = options.receiveBufferBytes ?? RECEIVE_BUFFER_BYTES_DEFAULT;
  const receiveBufferValue = Math.min(
    RECEIVE_BUFFER_VALUE_MAX,
    Math.ceil(wantedBytes / RECEIVE_PAYLOAD_FRACTION / 2),
  );
  const onNotice = options.onNotice ?? (() => {});
  const { poller, segmentation = true } = options;
  const common = {
    addresses,
    poller,
    port,
    receiveBufferValue,
    burstCount,
    segmentation,
    onNotice,
  };
  const link = choosesNative(options.backend)
    ? new NativeLink(common)
    : await openDgramLink(common);
  if (link.limitation !== null) onNotice(link.limitation);
  if (link.receiveBufferBytes < Math.min(wantedBytes, RECEIVE_BUFFER_BYTES_WANTED)) {
    onNotice(
      `the system grants receive buffers for ${link.receiveBufferBytes} bytes in flight only; ` +
        "for more speed raise the sysctl net.core.rmem_max (to 16777216, say)",
    );
  }
  return link;
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

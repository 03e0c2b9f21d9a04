// SPDX-License-Identifier: MIT
// Which local address packets to a peer leave from: the system's routes know.

import { createSocket } from "node:dgram";
import { FarpageError, IpAddress } from "../base/index.js";

/** Any port will do: nothing is sent. */
const DISCARD_PORT = 9;

/**
 * The local address that this machine's routes choose for packets to `destination`. Nothing is
 * sent: a datagram socket is connected and asked for its own end.
 * @throws FarpageError ENETUNREACH, EHOSTUNREACH and the like when there is no route.
 */
export async function localAddressTowards(destination: IpAddress): Promise<IpAddress> {
  const socket = createSocket(destination.family === 4 ? "udp4" : "udp6");
  try {
    await new Promise<void>((resolve, reject) => {
      // Node's types know the callback without its error.
      const done = (error?: Error): void => (error == null ? resolve() : reject(error));
      socket.connect(DISCARD_PORT, String(destination), done);
    });
    return IpAddress.parse(socket.address().address.replace(/%.*$/, ""));
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new FarpageError(code ?? "EIO", `no way to ${destination}: ${message}`, { cause: error });
  } finally {
    socket.close();
  }
}

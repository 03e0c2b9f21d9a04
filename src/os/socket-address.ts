// SPDX-License-Identifier: MIT
// Socket addresses as the kernel lays them out: struct sockaddr_in, sockaddr_in6, sockaddr_un.

import { FarpageError, IpAddress } from "../base/index.js";

export const AF_UNIX = 1;
export const AF_INET = 2;
const AF_INET6 = 10;

/** Room for any of the three. */
export const SOCKET_ADDRESS_BYTES_MAX = 112;

const SOCKADDR_IN_BYTES = 16;
const SOCKADDR_IN6_BYTES = 28;
/** sun_path, its closing zero included. */
const UNIX_PATH_BYTES_MAX = 108;

export function addressFamilyOf(address: IpAddress): number {
  return address.family === 4 ? AF_INET : AF_INET6;
}

/**
 * Writes an IP address and port at `offset`.
 * @param scopeId index of the interface that a link-local IPv6 address is on, else 0.
 * @returns bytes written: 16 or 28.
 */
export function writeInetAddress(
  view: DataView,
  offset: number,
  address: IpAddress,
  port: number,
  scopeId: number,
): number {
  view.setUint16(offset, addressFamilyOf(address), true);
  view.setUint16(offset + 2, port);
  if (address.family === 4) {
    view.setUint32(offset + 4, address.word3);
    view.setUint32(offset + 8, 0);
    view.setUint32(offset + 12, 0);
    return SOCKADDR_IN_BYTES;
  }
  view.setUint32(offset + 4, 0);
  address.writeGid(view, offset + 8);
  view.setUint32(offset + 24, scopeId, true);
  return SOCKADDR_IN6_BYTES;
}

/** The IP address of what is at `offset`; null when it is of another family. */
export function readInetAddress(view: DataView, offset: number): IpAddress | null {
  const family = view.getUint16(offset, true);
  if (family === AF_INET) return IpAddress.v4(view.getUint32(offset + 4));
  if (family === AF_INET6) return IpAddress.fromGid(view, offset + 8);
  return null;
}

/** The port of the IPv4 or IPv6 address at `offset`. */
export function readInetPort(view: DataView, offset: number): number {
  return view.getUint16(offset + 2);
}

/**
 * Writes the address of a socket file.
 * @returns bytes written.
 * @throws FarpageError ENAMETOOLONG when the path doesn't fit, EINVAL when it is empty or holds a
 *   zero.
 */
export function writeUnixAddress(view: DataView, offset: number, path: string): number {
  checkUnixPath(path);
  const bytes = new TextEncoder().encode(path);
  view.setUint16(offset, AF_UNIX, true);
  for (let i = 0; i < bytes.length; i++) view.setUint8(offset + 2 + i, bytes[i] as number);
  view.setUint8(offset + 2 + bytes.length, 0);
  return 2 + bytes.length + 1;
}

/** @throws FarpageError as `writeUnixAddress`. */
export function checkUnixPath(path: string): void {
  const byteLength = new TextEncoder().encode(path).length;
  if (path === "" || path.includes("\0")) {
    throw new FarpageError("EINVAL", "a socket's path can't be empty or contain a zero byte");
  }
  if (byteLength >= UNIX_PATH_BYTES_MAX) {
    throw new FarpageError(
      "ENAMETOOLONG",
      `the path of a socket can have ${UNIX_PATH_BYTES_MAX - 1} bytes, "${path}" has ${byteLength}`,
    );
  }
}

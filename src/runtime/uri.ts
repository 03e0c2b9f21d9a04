// SPDX-License-Identifier: MIT
// The small languages of the command line: sizes, volumes, RNBD URIs, NBD endpoints. Everything
// here comes from outside and is refused with EINVAL and the reason.

import { FarpageError, IpAddress } from "../base/index.js";

/** Where `farpage serve --copy` listens for RTRS sessions of copies, beside RNBD's. */
export const COPY_PORT_DEFAULT = 1235;
/** RTRS's default port (RNBD server, `port_nr`). */
const RNBD_PORT_DEFAULT = 1234;
/** The NBD port that IANA assigned. */
const NBD_PORT_DEFAULT = 10_809;

function invalid(message: string): FarpageError {
  return new FarpageError("EINVAL", message);
}

const SIZE_UNITS: Readonly<Record<string, number>> = {
  "": 1,
  K: 1024,
  M: 1024 ** 2,
  G: 1024 ** 3,
  T: 1024 ** 4,
};

/**
 * "4096", "64K", "512M", "1.5G", "2T" (powers of 1024; a trailing B or iB is allowed) in bytes.
 * @throws FarpageError EINVAL
 */
export function parseSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i.exec(text.trim());
  const unit = SIZE_UNITS[(match?.[2] ?? "?").toUpperCase()];
  const bytes = match && unit !== undefined ? Math.round(Number(match[1]) * unit) : Number.NaN;
  if (!Number.isSafeInteger(bytes)) {
    throw invalid(`"${text}" is not a size: write bytes, or a number with K, M, G or T`);
  }
  return bytes;
}

/** A number of bytes for people: "64 MiB", "1.5 GiB", "512 bytes". */
export function formatSize(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let value = bytes;
  let index = 0;
  while (value >= 1024 && index < units.length - 1) {
    value /= 1024;
    index++;
  }
  return `${Number.isInteger(value) ? value : value.toFixed(1)} ${units[index]}`;
}

/** One volume that a server exports. */
export interface VolumeSpec {
  readonly name: string;
  /** A file or block special file, or null for a volume in memory. */
  readonly path: string | null;
  /** Memory: its size. File: created with this size where it does not exist. */
  readonly sizeBytes: number | null;
  readonly readOnly: boolean;
}

const VOLUME_USAGE = "NAME=PATH[,size=SIZE][,readonly] or NAME=memory:SIZE[,readonly]";

/**
 * Parses `NAME=PATH[,size=SIZE][,readonly]` or `NAME=memory:SIZE`. A comma in a path is kept unless
 * what follows it is an option.
 * @throws FarpageError EINVAL
 */
export function parseVolume(text: string): VolumeSpec {
  const equals = text.indexOf("=");
  if (equals <= 0) throw invalid(`volume "${text}": write ${VOLUME_USAGE}`);
  const name = text.slice(0, equals);
  checkVolumeName(name);
  let rest = text.slice(equals + 1);
  let sizeBytes: number | null = null;
  let readOnly = false;
  for (;;) {
    const option = /^(.*),(readonly|ro|size=[^,]*)$/.exec(rest);
    if (option === null) break;
    rest = option[1] as string;
    const word = option[2] as string;
    if (word.startsWith("size=")) sizeBytes = parseSize(word.slice(5));
    else readOnly = true;
  }
  if (rest === "") throw invalid(`volume "${text}": the path is empty; write ${VOLUME_USAGE}`);
  if (rest.startsWith("memory:")) {
    const [, word] = /,([^,]*)$/.exec(rest) ?? [];
    if (word !== undefined) {
      throw invalid(`volume "${name}": there is no option "${word}"; write ${VOLUME_USAGE}`);
    }
    sizeBytes = parseSize(rest.slice(7));
    rest = "";
  }
  if (sizeBytes !== null && (sizeBytes < 512 || sizeBytes % 512 !== 0)) {
    throw invalid(`volume "${name}": its size must be a positive multiple of 512 bytes`);
  }
  return { name, path: rest === "" ? null : rest, sizeBytes, readOnly };
}

/**
 * RNBD's rules for a device name: 1 .. 254 bytes, no NUL, no ".." (rtrs-rnbd facts, section 13).
 */
function checkVolumeName(name: string): void {
  const bytes = new TextEncoder().encode(name).length;
  if (name.includes("\0") || name.includes("..") || bytes > 254 || name.startsWith("/")) {
    throw invalid(
      `volume name "${name}": use 1 to 254 bytes, not beginning with "/", without ".." and NUL`,
    );
  }
}

/** A volume of a server: where and which. */
export interface RnbdUri {
  readonly addresses: readonly IpAddress[];
  readonly port: number;
  readonly volume: string;
}

/**
 * Parses `rnbd://IP[,IP…][:PORT]/NAME`; an IPv6 address stands in brackets.
 * @throws FarpageError EINVAL
 */
export function parseRnbdUri(text: string): RnbdUri {
  const match = /^rnbd:\/\/([^/]+)\/(.+)$/.exec(text);
  if (match === null) {
    throw invalid(`"${text}" is not a volume's address: write rnbd://IP[,IP…][:PORT]/NAME`);
  }
  const volume = decodePercent(match[2] as string, text);
  checkVolumeName(volume);
  return { ...parseHosts(match[1] as string, RNBD_PORT_DEFAULT), volume };
}

/** A place on a server that copies go to and come from. */
export interface RtrsUri {
  readonly addresses: readonly IpAddress[];
  readonly port: number;
  /** The export's name and what follows, without a slash in front. */
  readonly path: string;
}

/**
 * Parses `rtrs://IP[:PORT]/EXPORT[/PATH]`; an IPv6 address stands in brackets.
 * @throws FarpageError EINVAL
 */
export function parseRtrsUri(text: string): RtrsUri {
  const match = /^rtrs:\/\/([^/]+)\/(.+)$/.exec(text);
  if (match === null) {
    throw invalid(`"${text}" is not a place on a server: write rtrs://IP[:PORT]/EXPORT[/PATH]`);
  }
  const path = decodePercent(match[2] as string, text);
  const hosts = parseHosts(match[1] as string, COPY_PORT_DEFAULT);
  if (hosts.addresses.length > 1) throw invalid(`"${text}": a copy goes to one address`);
  return { ...hosts, path };
}

function parseHosts(
  text: string,
  portDefault: number,
): { readonly addresses: readonly IpAddress[]; readonly port: number } {
  let hosts = text;
  let port = portDefault;
  const withPort = /^(.*[\]\d]):(\d+)$/.exec(hosts);
  // "fd00::2" without brackets ends in ":2" too; brackets are what tells a port there.
  if (withPort !== null && !isBareIpv6(hosts)) {
    hosts = withPort[1] as string;
    port = parsePort(withPort[2] as string);
  }
  const addresses = hosts.split(",").map((host) => IpAddress.parse(stripBrackets(host.trim())));
  return { addresses, port };
}

/** One folder that a server lets copies go to and come from. */
export interface ExportText {
  readonly name: string;
  readonly path: string;
  readonly readOnly: boolean;
}

/**
 * Parses `NAME=DIR[,readonly]`.
 * @throws FarpageError EINVAL
 */
export function parseExport(text: string): ExportText {
  const [, name = "", whole = ""] = /^([^=/]+)=(.+)$/.exec(text) ?? [];
  const path = whole.replace(/,(?:readonly|ro)$/, "");
  const isName = name !== "" && name !== "." && name !== ".." && !name.includes("\0");
  if (!isName || path === "" || new TextEncoder().encode(name).length > 255) {
    throw invalid(`export "${text}": write NAME=DIR[,readonly], NAME without "/"`);
  }
  return { name, path, readOnly: path !== whole };
}

function isBareIpv6(hosts: string): boolean {
  return !hosts.includes("[") && (hosts.split(",").at(-1) ?? "").split(":").length > 2;
}

function stripBrackets(host: string): string {
  return host.startsWith("[") && host.endsWith("]") ? host.slice(1, -1) : host;
}

function decodePercent(text: string, whole: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new FarpageError("EINVAL", `"${whole}": the name has a bad %-escape`, { cause });
  }
}

function parsePort(text: string): number {
  const port = Number(text);
  if (!/^\d+$/.test(text) || port < 1 || port > 65_535) {
    throw invalid(`"${text}" is not a port: 1 to 65535`);
  }
  return port;
}

/** Where an NBD endpoint listens. */
export type NbdEndpointAddress =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

/**
 * Parses `unix:PATH` or `tcp:HOST[:PORT]`.
 * @throws FarpageError EINVAL
 */
export function parseNbdEndpoint(text: string): NbdEndpointAddress {
  if (text.startsWith("unix:") && text.length > 5) return { kind: "unix", path: text.slice(5) };
  const tcp = /^tcp:(\[[^\]]+\]|[^:]+)(?::(\d+))?$/.exec(text);
  if (tcp !== null) {
    const port = tcp[2] === undefined ? NBD_PORT_DEFAULT : Number(tcp[2]);
    if (port > 65_535) throw invalid(`"${tcp[2]}" is not a port: 0 (any free one) to 65535`);
    return { kind: "tcp", host: stripBrackets(tcp[1] as string), port };
  }
  throw invalid(`"${text}" is not an NBD endpoint: write unix:PATH or tcp:HOST[:PORT]`);
}

/** The endpoint as an NBD URI (the NBD URI specification), for stock clients. */
export function nbdUri(endpoint: NbdEndpointAddress, exportName: string): string {
  const name = encodeURIComponent(exportName);
  if (endpoint.kind === "unix") {
    const path = encodeURI(endpoint.path).replace(/[?&#]/g, encodeURIComponent);
    return `nbd+unix:///${name}?socket=${path}`;
  }
  const host = endpoint.host.includes(":") ? `[${endpoint.host}]` : endpoint.host;
  return `nbd://${host}:${endpoint.port}/${name}`;
}

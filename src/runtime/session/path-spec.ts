// SPDX-License-Identifier: MIT
// Paths as people name them, and the address pairs that are meant.

import { FarpageError, IpAddress } from "../../base/index.js";
import type { RtrsClientPath, RtrsPathAddresses } from "../../rtrs/index.js";

/** A path that somebody has named; without a source it is the host's matter. */
export interface PathSpec {
  readonly source: IpAddress | null;
  readonly destination: IpAddress;
}

/**
 * Parses `[SOURCE@]DESTINATION`, as Linux's `path=` and `add_path` take it: `ip:` may stand before
 * an address and "," for "@".
 * @throws FarpageError EINVAL
 */
export function parsePath(text: string): PathSpec {
  const parts = text.split(/[@,]/).map((part) => part.trim().replace(/^ip:/, ""));
  const [first, second, more] = parts;
  if (first === undefined || first === "" || second === "" || more !== undefined) {
    throw new FarpageError("EINVAL", `"${text}" is not a path: write [SOURCE@]DESTINATION`);
  }
  if (second === undefined) return { source: null, destination: addressOf(first) };
  return { source: addressOf(first), destination: addressOf(second) };
}

function addressOf(text: string): IpAddress {
  return IpAddress.parse(/^\[.*\]$/.test(text) ? text.slice(1, -1) : text);
}

/** A path by the name that Linux's sysfs gives it. */
export function pathName({ source, destination }: RtrsPathAddresses): string {
  return `ip:${source}@ip:${destination}`;
}

/**
 * The address pairs of a session: one for each address of the server, from this host's addresses of
 * the same family in turn, and those that were named besides.
 * @param own this host's addresses.
 * @throws FarpageError EADDRNOTAVAIL when this host has no address for one; EINVAL when it does not
 *   have the one that was named.
 */
export function pairPaths(
  destinations: readonly IpAddress[],
  more: readonly PathSpec[],
  own: readonly IpAddress[],
): RtrsPathAddresses[] {
  const paths: RtrsPathAddresses[] = [];
  const add = (path: RtrsPathAddresses) => {
    if (!paths.some((known) => pathName(known) === pathName(path))) paths.push(path);
  };
  const turns = { 4: 0, 6: 0 };
  for (const destination of destinations) {
    const sources = own.filter(({ family }) => family === destination.family);
    const source = sources[turns[destination.family]++ % Math.max(1, sources.length)];
    add({ source: source ?? noSource(destination), destination });
  }
  for (const spec of more) add(completePath(spec, own));
  return paths;
}

/** @throws FarpageError as `pairPaths`. */
export function completePath(spec: PathSpec, own: readonly IpAddress[]): RtrsPathAddresses {
  const { source, destination } = spec;
  if (source === null) {
    const first = own.find(({ family }) => family === destination.family);
    return { source: first ?? noSource(destination), destination };
  }
  if (source.family !== destination.family) {
    throw new FarpageError("EINVAL", `${source} and ${destination} are of different families`);
  }
  if (!own.some((address) => address.equals(source))) {
    const what = `${source} is not an address of this host: name it with --address at its start`;
    throw new FarpageError("EADDRNOTAVAIL", what);
  }
  return { source, destination };
}

function noSource(destination: IpAddress): never {
  throw new FarpageError(
    "EADDRNOTAVAIL",
    `none of the addresses given is IPv${destination.family}, as ${destination} is`,
  );
}

/**
 * Which path of a session is meant.
 * @throws FarpageError ENOENT, EINVAL when several are.
 */
export function findPath(spec: PathSpec, paths: readonly RtrsClientPath[]): RtrsClientPath {
  const { source, destination } = spec;
  const found = paths.filter(
    (path) =>
      path.destination.equals(destination) && (source === null || path.source.equals(source)),
  );
  const [first] = found;
  if (first !== undefined && found.length === 1) return first;
  const to = source === null ? `to ${destination}` : `from ${source} to ${destination}`;
  if (first === undefined) throw new FarpageError("ENOENT", `the session has no path ${to}`);
  const what = `${found.length} paths lead ${to}: name the source as well, SOURCE@DESTINATION`;
  throw new FarpageError("EINVAL", what);
}

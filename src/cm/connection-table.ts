// SPDX-License-Identifier: MIT
// How a message finds its connection, and how many a peer may have half open. Messages are matched
// by comm ids, never by transaction id (rocev2 facts section 17), and always together with the
// peer's address: ids can be guessed, and a connection's packets come from its two addresses only.

import { assert, type IpAddress } from "../base/index.js";
import type { Connection } from "./connection.js";

/** Connections in timewait or ANSWERED, oldest first, so that the oldest can be forgotten early. */
type Lingering = Set<Connection>;

export class ConnectionTable {
  /** Every connection that is not CLOSED, by its own comm id. */
  private readonly byCommId = new Map<number, Connection>();
  /** By (peer's address, CA GUID, peer's comm id): duplicates of a REQ, timeouts by GUID. */
  private readonly byRemoteKey = new Map<string, Connection>();
  /** By (peer's address, CA GUID, peer's QPN): stale connections. Left on entering timewait. */
  private readonly byQpnKey = new Map<string, Connection>();
  private readonly lingering: Lingering = new Set();
  private readonly halfOpenBySource = new Map<string, number>();
  halfOpenCount = 0;

  get count(): number {
    return this.byCommId.size;
  }

  get lingerCount(): number {
    return this.lingering.size;
  }

  /** Every connection, in no particular order. */
  all(): IterableIterator<Connection> {
    return this.byCommId.values();
  }

  hasCommId(commId: number): boolean {
    return this.byCommId.has(commId);
  }

  add(connection: Connection): void {
    assert(connection.localCommId !== 0, "comm id 0 means none");
    assert(!this.byCommId.has(connection.localCommId), "a comm id names one connection");
    this.byCommId.set(connection.localCommId, connection);
  }

  /** The connection of ours with `localCommId` whose peer is at `remote`, or null. */
  find(localCommId: number, remote: IpAddress, local: IpAddress): Connection | null {
    const connection = this.byCommId.get(localCommId);
    if (connection === undefined) return null;
    const isPair = connection.remoteAddress.equals(remote) && connection.localAddress.equals(local);
    return isPair ? connection : null;
  }

  findRemote(
    remote: IpAddress,
    guidHigh: number,
    guidLow: number,
    commId: number,
  ): Connection | null {
    return this.byRemoteKey.get(keyOf(remote, guidHigh, guidLow, commId)) ?? null;
  }

  findQpn(remote: IpAddress, guidHigh: number, guidLow: number, qpn: number): Connection | null {
    return this.byQpnKey.get(keyOf(remote, guidHigh, guidLow, qpn)) ?? null;
  }

  /** Enters the peer's comm id. Preconditions: `findRemote` gives null for it. */
  addRemote(connection: Connection): void {
    const key = remoteKeyOf(connection);
    assert(!this.byRemoteKey.has(key), "a peer's comm id names one connection");
    this.byRemoteKey.set(key, connection);
    connection.hasRemoteKey = true;
  }

  /** Enters the peer's queue pair. Preconditions: `findQpn` gives null for it. */
  addQpn(connection: Connection): void {
    const key = qpnKeyOf(connection);
    assert(!this.byQpnKey.has(key), "a peer's queue pair has one connection");
    this.byQpnKey.set(key, connection);
    connection.hasQpnKey = true;
  }

  removeQpn(connection: Connection): void {
    if (!connection.hasQpnKey) return;
    this.byQpnKey.delete(qpnKeyOf(connection));
    connection.hasQpnKey = false;
  }

  /** Takes `connection` out of everything. */
  remove(connection: Connection): void {
    this.endHalfOpen(connection);
    this.removeQpn(connection);
    if (connection.hasRemoteKey) {
      this.byRemoteKey.delete(remoteKeyOf(connection));
      connection.hasRemoteKey = false;
    }
    this.lingering.delete(connection);
    this.byCommId.delete(connection.localCommId);
  }

  /**
   * @returns the oldest lingering connection when there are now more than `countMax`, else null.
   */
  addLingering(connection: Connection, countMax: number): Connection | null {
    this.lingering.add(connection);
    if (this.lingering.size <= countMax) return null;
    const oldest = this.lingering.values().next();
    return oldest.done === true ? null : oldest.value;
  }

  /** A lingering connection is the newest of them again. */
  renewLingering(connection: Connection): void {
    if (this.lingering.delete(connection)) this.lingering.add(connection);
  }

  halfOpenCountOf(source: IpAddress): number {
    return this.halfOpenBySource.get(source.toString()) ?? 0;
  }

  beginHalfOpen(connection: Connection): void {
    assert(!connection.isHalfOpen, "a connection is half open once");
    const source = connection.remoteAddress.toString();
    this.halfOpenBySource.set(source, (this.halfOpenBySource.get(source) ?? 0) + 1);
    this.halfOpenCount++;
    connection.isHalfOpen = true;
  }

  endHalfOpen(connection: Connection): void {
    if (!connection.isHalfOpen) return;
    const source = connection.remoteAddress.toString();
    const count = (this.halfOpenBySource.get(source) ?? 0) - 1;
    assert(count >= 0, "half-open connections are counted");
    if (count === 0) this.halfOpenBySource.delete(source);
    else this.halfOpenBySource.set(source, count);
    this.halfOpenCount--;
    connection.isHalfOpen = false;
  }

  checkInvariants(): void {
    let halfOpenCount = 0;
    let remoteCount = 0;
    let qpnCount = 0;
    for (const [commId, connection] of this.byCommId) {
      assert(commId === connection.localCommId, "a connection is under its comm id");
      assert(connection.state !== "CLOSED", "a closed connection is in no table");
      if (connection.isHalfOpen) halfOpenCount++;
      if (connection.hasRemoteKey) {
        remoteCount++;
        assert(this.byRemoteKey.get(remoteKeyOf(connection)) === connection, "remote key");
      }
      if (connection.hasQpnKey) {
        qpnCount++;
        assert(this.byQpnKey.get(qpnKeyOf(connection)) === connection, "queue pair key");
      }
      const lingers = connection.state === "TIMEWAIT" || connection.state === "ANSWERED";
      assert(this.lingering.has(connection) === lingers, "what is over lingers");
    }
    assert(halfOpenCount === this.halfOpenCount, "half-open connections add up");
    assert(remoteCount === this.byRemoteKey.size, "remote keys add up");
    assert(qpnCount === this.byQpnKey.size, "queue pair keys add up");
  }
}

function keyOf(address: IpAddress, guidHigh: number, guidLow: number, number: number): string {
  return `${address.toString()}/${guidHigh}/${guidLow}/${number}`;
}

function remoteKeyOf(c: Connection): string {
  return keyOf(c.remoteAddress, c.remoteGuidHigh, c.remoteGuidLow, c.remoteCommId);
}

function qpnKeyOf(c: Connection): string {
  return keyOf(c.remoteAddress, c.remoteGuidHigh, c.remoteGuidLow, c.agreement.remoteQpn);
}

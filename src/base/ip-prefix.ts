// SPDX-License-Identifier: MIT

import { FarpageError } from "./errors.js";
import { IpAddress } from "./ip.js";

/** The addresses that begin with the same bits (CIDR, RFC 4632; RFC 4291 §2.3). Immutable. */
export class IpPrefix {
  /** The first address: what lies behind the prefix is zero. */
  readonly address: IpAddress;
  /** Bits that are the same in the family's own count: 0 .. 32 or 0 .. 128. */
  readonly length: number;
  /** The same in the 128 bits of a GID, in which IPv4 has 96 bits in front. */
  private readonly gidLength: number;

  private constructor(address: IpAddress, length: number) {
    this.address = address;
    this.length = length;
    this.gidLength = address.family === 4 ? length + 96 : length;
  }

  /**
   * Parses "192.0.2.0/24", "2001:db8::/32", or an address alone, which is a prefix of all its bits.
   * @throws FarpageError EINVAL when it is none of these, or has bits behind its length: which of
   *   two different networks was meant, nobody can tell.
   */
  static parse(text: string): IpPrefix {
    const [addressText = "", lengthText, ...rest] = text.split("/");
    const address = IpAddress.parse(addressText);
    const bits = address.family === 4 ? 32 : 128;
    if (lengthText === undefined) return new IpPrefix(address, bits);
    const length = /^(0|[1-9]\d{0,2})$/.test(lengthText) ? Number(lengthText) : Infinity;
    if (rest.length > 0 || length > bits) {
      throw new FarpageError("EINVAL", `"${text}" is no network: write ADDRESS/0 to /${bits}`);
    }
    const prefix = new IpPrefix(address, length);
    const first = prefix.firstAddress();
    if (first.equals(address)) return prefix;
    throw new FarpageError(
      "EINVAL",
      `"${text}" has bits behind /${length}: write ${first}/${length}`,
    );
  }

  contains(address: IpAddress): boolean {
    if (address.family !== this.address.family) return false;
    const { word0, word1, word2, word3 } = this.address;
    return (
      ((word0 ^ address.word0) & this.mask(0)) === 0 &&
      ((word1 ^ address.word1) & this.mask(1)) === 0 &&
      ((word2 ^ address.word2) & this.mask(2)) === 0 &&
      ((word3 ^ address.word3) & this.mask(3)) === 0
    );
  }

  /** As `parse` takes it; an address alone without its length. */
  toString(): string {
    const isWhole = this.gidLength === 128;
    return isWhole ? this.address.toString() : `${this.address}/${this.length}`;
  }

  private firstAddress(): IpAddress {
    const { word0, word1, word2, word3 } = this.address;
    return new IpAddress(
      word0 & this.mask(0),
      word1 & this.mask(1),
      word2 & this.mask(2),
      word3 & this.mask(3),
    );
  }

  /** The bits of word `index` of a GID that the prefix fixes, as a signed number. */
  private mask(index: number): number {
    const bits = Math.min(32, Math.max(0, this.gidLength - 32 * index));
    return bits === 0 ? 0 : -1 << (32 - bits);
  }
}

// SPDX-License-Identifier: MIT
// What may happen to the packets of one exchange: the columns of the table. Packets are numbered
// from 1, in the order in which the two hosts send them. A misfortune has a text, which is its name
// in a failure and what replays it: "lose 3", "lose 3,5", "again 3 +1000", "behind 3/2", "dead 4
// both", "ghost 3 @0 behind".

/** - `lose`: the packets with these numbers never arrive. */
export interface Lose {
  readonly kind: "lose";
  readonly packets: readonly number[];
}

/** - `again`: packet arrives twice, the copy so much later. */
export interface Again {
  readonly kind: "again";
  readonly packet: number;
  readonly delayUs: number;
}

/** - `behind`: the next `count` packets of the same direction overtake it. */
export interface Behind {
  readonly kind: "behind";
  readonly packet: number;
  readonly count: number;
}

/** - `dead`: from this packet on nothing arrives that `who` sends. */
export interface Dead {
  readonly kind: "dead";
  readonly from: number;
  readonly who: "both" | "first" | "second";
}

/**
 * Where the PSNs of the second connection begin: so that the first one's lie just behind, just
 * ahead, or wherever the connection manager puts them.
 */
export type SecondPsns = "behind" | "ahead" | "fresh";

/**
 * - `ghost`: the packet arrives once more while the exchange runs for a second time, between the
 *   same queue pairs, when `at` packets of that have been sent.
 */
export interface Ghost {
  readonly kind: "ghost";
  readonly packet: number;
  readonly at: number;
  readonly psns: SecondPsns;
}

export type Luck = { readonly kind: "none" } | Lose | Again | Behind | Dead | Ghost;

export const NO_MISFORTUNE: Luck = { kind: "none" };

export function luckText(luck: Luck): string {
  switch (luck.kind) {
    case "none":
      return "none";
    case "lose":
      return `lose ${luck.packets.join(",")}`;
    case "again":
      return `again ${luck.packet} +${luck.delayUs}`;
    case "behind":
      return `behind ${luck.packet}/${luck.count}`;
    case "dead":
      return `dead ${luck.from} ${luck.who}`;
    case "ghost":
      return `ghost ${luck.packet} @${luck.at} ${luck.psns}`;
  }
}

/** The inverse of `luckText`. @throws Error for a text that is none. */
export function parseLuck(text: string): Luck {
  const words = text.trim().split(/[ /]+/);
  const [kind = "", first = "", second = "", third = ""] = words;
  const number = (word: string): number => {
    const value = Number(word.replace(/^[+@]/, ""));
    if (word === "" || !Number.isInteger(value)) throw new Error(`no misfortune: "${text}"`);
    return value;
  };
  switch (kind) {
    case "none":
      return NO_MISFORTUNE;
    case "lose":
      return { kind, packets: first.split(",").map(number) };
    case "again":
      return { kind, packet: number(first), delayUs: number(second) };
    case "behind":
      return { kind, packet: number(first), count: number(second) };
    case "dead":
      return { kind, from: number(first), who: second as Dead["who"] };
    case "ghost":
      return { kind, packet: number(first), at: number(second), psns: third as SecondPsns };
    default:
      throw new Error(`no misfortune: "${text}"`);
  }
}

/** Copies come at once, within the exchange, behind a probe, and long after everything. */
const COPY_DELAYS_US = [0, 60, 3_000, 1_000_000];
const OVERTAKEN_BY = [1, 2, 5];
const SIDES = ["both", "first", "second"] as const;

/** One misfortune of each kind for each of `count` packets. */
export function everySingle(count: number, second: readonly SecondPsns[]): Luck[] {
  const all: Luck[] = [];
  for (let packet = 1; packet <= count; packet++) {
    all.push({ kind: "lose", packets: [packet] });
    for (const delayUs of COPY_DELAYS_US) all.push({ kind: "again", packet, delayUs });
    for (const overtakers of OVERTAKEN_BY) {
      if (packet < count) all.push({ kind: "behind", packet, count: overtakers });
    }
    for (const who of SIDES) all.push({ kind: "dead", from: packet, who });
    for (const psns of second) {
      for (const at of [0, count >> 1]) all.push({ kind: "ghost", packet, at, psns });
    }
  }
  return all;
}

/** Every two packets lost; of the second, repetitions too (they follow the last packet). */
export function everyPair(count: number): Luck[] {
  const all: Luck[] = [];
  const last = count + Math.min(count, 8);
  for (let first = 1; first <= count; first++) {
    for (let second = first + 1; second <= last; second++) {
      all.push({ kind: "lose", packets: [first, second] });
    }
  }
  return all;
}

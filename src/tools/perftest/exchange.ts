// SPDX-License-Identifier: MIT
// How the two sides of perftest talk beside the test itself: message by message, the client first,
// each answered by one of the same length. By TCP, or with -R by an RC connection of its own.

import type { FarpageError } from "../../runtime/index.js";
import type { SideChannel } from "../side-channel.js";
import {
  DONE,
  decodePlaceText,
  encodePlaceText,
  PLACE_TEXT_BYTES,
  type Place,
} from "./messages.js";

/** What either side says next; a server may look at what the client said. */
export type PlaceToTell = Place | ((theirs: Place) => Place);

/** A peer must say something within this time while both set up; not while a test runs. */
export const SETUP_TIMEOUT_MS = 60_000;
/** How long goodbyes may take. */
const GOODBYE_TIMEOUT_MS = 1_000;

/** One conversation. Swaps are made one after the other. */
export abstract class Exchange {
  readonly isClient: boolean;
  /** For people: the peer's address. */
  abstract readonly remoteAddress: string;
  /** Settles when nothing more can be said, with the reason. */
  abstract readonly lost: Promise<FarpageError>;

  protected constructor(isClient: boolean) {
    this.isClient = isClient;
  }

  /**
   * Tells and hears a message of the same length.
   * @param options.timeoutMs how long the peer may take; default `SETUP_TIMEOUT_MS`.
   * @throws FarpageError ECONNRESET, ETIMEDOUT, EPROTO when the peer says more or less, EINTR.
   */
  async swap(mine: Uint8Array, options: { readonly timeoutMs?: number } = {}): Promise<Uint8Array> {
    const timeoutMs = options.timeoutMs ?? SETUP_TIMEOUT_MS;
    if (this.isClient) await this.tell(mine);
    const theirs = await this.hear(mine.length, timeoutMs);
    if (!this.isClient) await this.tell(mine);
    return theirs;
  }

  /** Tells and hears where the queue pairs and memory are; also both sides' way to meet. */
  async swapPlace(
    mine: PlaceToTell,
    options: { readonly timeoutMs?: number } = {},
  ): Promise<Place> {
    const timeoutMs = options.timeoutMs ?? SETUP_TIMEOUT_MS;
    const tell = (theirs: Place | null) => {
      if (typeof mine !== "function") return this.tell(this.encodePlace(mine));
      if (theirs === null) throw new Error("a client knows its place before it hears the other's");
      return this.tell(this.encodePlace(mine(theirs)));
    };
    if (this.isClient) await tell(null);
    const theirs = this.decodePlace(await this.hear(this.placeBytes, timeoutMs));
    if (!this.isClient) await tell(theirs);
    return theirs;
  }

  /** The last words, after the last swap. */
  abstract finish(): Promise<void>;

  /** The same after a test that ends without last words. */
  abstract leave(): Promise<void>;

  /** Ends the conversation; no-op when it is over. */
  abstract close(): void;

  protected abstract readonly placeBytes: number;
  protected abstract encodePlace(place: Place): Uint8Array;
  protected abstract decodePlace(bytes: Uint8Array): Place;
  protected abstract tell(bytes: Uint8Array): Promise<void>;
  protected abstract hear(length: number, timeoutMs: number): Promise<Uint8Array>;
}

/** A conversation over TCP. */
export class TcpExchange extends Exchange {
  readonly remoteAddress: string;
  readonly lost: Promise<FarpageError>;
  protected readonly placeBytes = PLACE_TEXT_BYTES;
  private readonly channel: SideChannel;

  constructor(channel: SideChannel, isClient: boolean) {
    super(isClient);
    this.channel = channel;
    this.remoteAddress = channel.remoteAddress;
    this.lost = channel.ended;
  }

  /** Says "done" and closes; the peer, who does the same at the same time, need not have heard. */
  async finish(): Promise<void> {
    this.channel.write(DONE);
    await this.leave();
  }

  /** Closes, and gives the peer time to do so: what is still on its way to it arrives. */
  async leave(): Promise<void> {
    this.channel.close();
    await Promise.race([
      this.channel.ended,
      new Promise((resolve) => setTimeout(resolve, GOODBYE_TIMEOUT_MS).unref()),
    ]);
  }

  close(): void {
    this.channel[Symbol.dispose]();
  }

  protected encodePlace(place: Place): Uint8Array {
    return encodePlaceText(place);
  }

  protected decodePlace(bytes: Uint8Array): Place {
    return decodePlaceText(bytes);
  }

  protected tell(bytes: Uint8Array): Promise<void> {
    this.channel.write(bytes);
    return Promise.resolve();
  }

  protected hear(length: number, timeoutMs: number): Promise<Uint8Array> {
    return this.channel.read(length, Number.isFinite(timeoutMs) ? { timeoutMs } : {});
  }
}

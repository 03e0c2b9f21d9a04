// SPDX-License-Identifier: MIT
// Instrumented memory: what a peer can write is shown to the server's code through a view that
// counts fetches, byte by byte. The rule is that between the moment in which a request is handed
// over and its release each byte that the peer can write is fetched at most once, so that what was
// checked is what is used; and that nothing is fetched while a chunk is the peer's.
//
// `bytes` is a proxy. An index is a fetch; so is `subarray` of what a request holds, as a whole,
// since whoever asks for it is about to copy it. Everything that could read behind the proxy's back
// is refused.

import { assert, type Memory } from "../../src/base/index.js";
import type { ChunkWatch, WatchedChunks } from "../../src/rtrs/index.js";

const STATE = { PEERS: 0, TAKEN: 1, ACCEPTED: 2 } as const;

/** Somebody who may change the memory at each moment at which the server looks. */
export type FetchListener = (memory: Memory, offset: number, length: number) => void;

export class FetchWatch implements ChunkWatch {
  /** Bytes fetched, and requests handed over, of all paths: whether anything was watched. */
  fetchedBytes = 0;
  handOvers = 0;
  /** Called ahead of each fetch, with the memory as the device knows it. */
  onFetch: FetchListener | null = null;
  /** See the constructor. */
  readonly trustsClosed: boolean;

  /**
   * @param trustsClosed whether a chunk that the peer can't write may be fetched as often as one
   *   likes: for users that want every chunk to be closed or copied. False holds them to the rule
   *   of those that live with open chunks as well.
   */
  constructor(trustsClosed = false) {
    this.trustsClosed = trustsClosed;
  }

  open(memory: Memory, chunkBytes: number): WatchedChunks {
    return new Chunks(this, memory, chunkBytes);
  }
}

class Chunks implements WatchedChunks {
  readonly memory: Memory;
  private readonly watch: FetchWatch;
  private readonly inner: Memory;
  private readonly chunkBytes: number;
  private readonly states: Uint8Array;
  /** Bytes at the start of each chunk that its answer fills. */
  private readonly outputs: Uint32Array;
  private readonly counts: Uint8Array;
  private readonly isTrusted: Uint8Array;

  constructor(watch: FetchWatch, inner: Memory, chunkBytes: number) {
    this.watch = watch;
    this.inner = inner;
    this.chunkBytes = chunkBytes;
    this.states = new Uint8Array(inner.length / chunkBytes);
    this.outputs = new Uint32Array(this.states.length);
    this.counts = new Uint8Array(inner.length);
    this.isTrusted = new Uint8Array(this.states.length);
    const bytes = watchedBytes(inner.bytes, (offset, length) => this.fetch(offset, length));
    const view = watchedView(inner.view, (offset, length) => this.fetch(offset, length));
    this.memory = { bytes, view, address: inner.address, length: inner.length };
  }

  handOver(chunk: number, isOpen: boolean): void {
    this.watch.handOvers++;
    this.isTrusted[chunk] = this.watch.trustsClosed && !isOpen ? 1 : 0;
    this.states[chunk] = STATE.TAKEN;
    this.outputs[chunk] = 0;
    const start = chunk * this.chunkBytes;
    this.counts.fill(0, start, start + this.chunkBytes);
  }

  accept(chunk: number, isRead: boolean, dataLength: number): void {
    assert(this.states[chunk] === STATE.TAKEN, "a request is handed over before it is sound");
    this.states[chunk] = STATE.ACCEPTED;
    this.outputs[chunk] = isRead ? dataLength : 0;
  }

  release(chunk: number): void {
    this.states[chunk] = STATE.PEERS;
  }

  private fetch(offset: number, length: number): void {
    if (length === 0) return;
    const chunk = Math.floor(offset / this.chunkBytes);
    const within = offset - chunk * this.chunkBytes;
    assert(within + length <= this.chunkBytes, "a fetch stays within its chunk");
    assert(this.states[chunk] !== STATE.PEERS, "nothing is fetched from a chunk of the peer's");
    // What the answer fills is the server's own.
    if (within + length <= (this.outputs[chunk] as number)) return;
    this.watch.onFetch?.(this.inner, offset, length);
    this.watch.fetchedBytes += length;
    if (this.isTrusted[chunk] === 1) return;
    for (let at = offset; at < offset + length; at++) {
      const count = ++(this.counts[at] as number);
      if (count > 1) {
        throw new Error(
          `byte ${at - chunk * this.chunkBytes} of chunk ${chunk} is fetched twice: the peer may ` +
            "have changed it in between",
        );
      }
    }
  }
}

type Fetch = (offset: number, length: number) => void;

const PLAIN: ReadonlySet<string> = new Set(["length", "byteLength", "constructor"]);
const WRITES: ReadonlySet<string> = new Set(["set", "fill"]);

function watchedBytes(inner: Uint8Array, fetch: Fetch): Uint8Array {
  const range = (start = 0, end = inner.length) => {
    const from = start < 0 ? Math.max(0, inner.length + start) : Math.min(start, inner.length);
    const to = end < 0 ? inner.length + end : Math.min(end, inner.length);
    fetch(from, Math.max(0, to - from));
  };
  const subarray = (start?: number, end?: number) => {
    range(start, end);
    return inner.subarray(start, end);
  };
  const slice = (start?: number, end?: number) => {
    range(start, end);
    return inner.slice(start, end);
  };
  return new Proxy(inner, {
    get(_, key) {
      if (typeof key === "symbol") return Reflect.get(inner, key);
      const code = key.charCodeAt(0);
      if (code >= 48 && code <= 57) {
        fetch(Number(key), 1);
        return inner[Number(key)];
      }
      if (key === "subarray") return subarray;
      if (key === "slice") return slice;
      if (WRITES.has(key)) return Reflect.get(inner, key).bind(inner);
      if (PLAIN.has(key)) return Reflect.get(inner, key);
      throw new Error(`"${key}" of watched memory could read more than is counted`);
    },
    set(_, key, value) {
      inner[Number(key)] = value as number;
      return true;
    },
  });
}

/** Reads of a `DataView` by name: how many bytes each takes. */
const READ_BYTES: Readonly<Record<string, number>> = {
  getInt8: 1,
  getUint8: 1,
  getInt16: 2,
  getUint16: 2,
  getInt32: 4,
  getUint32: 4,
  getFloat32: 4,
  getFloat64: 8,
  getBigInt64: 8,
  getBigUint64: 8,
};

function watchedView(inner: DataView, fetch: Fetch): DataView {
  return new Proxy(inner, {
    get(_, key) {
      const name = String(key);
      const length = READ_BYTES[name];
      const method: unknown = Reflect.get(inner, key, inner);
      if (length !== undefined) {
        return (offset: number, ...more: unknown[]) => {
          fetch(offset, length);
          return (method as (...args: unknown[]) => unknown).call(inner, offset, ...more);
        };
      }
      if (name.startsWith("set")) return (method as () => void).bind(inner);
      if (name === "byteLength") return method;
      throw new Error(`"${name}" of watched memory could read more than is counted`);
    },
  });
}

// SPDX-License-Identifier: MIT
// What every `ByteStream` must do.

import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ERRNO, type Memory } from "../../src/base/index.js";
import { type ByteStream, IoVector } from "../../src/nbd/index.js";

export interface StreamPair {
  /** Two ends of one connection. */
  readonly left: ByteStream;
  readonly right: ByteStream;
  /** Two ranges of at least 1 MiB. */
  readonly source: Memory;
  readonly target: Memory;
  /** Lets what is under way arrive. */
  settle(): Promise<void>;
  close(): void;
}

/** The connection of the test, and how to use it. */
class Ends {
  pair!: StreamPair;

  vectorOf(...ranges: (readonly [offset: number, length: number])[]): IoVector {
    const vector = new IoVector(Math.max(1, ranges.length));
    for (const [offset, length] of ranges) vector.push(this.pair.source, offset, length);
    return vector;
  }

  /** Reads until `length` bytes are there, the stream ends, or long enough has passed. */
  async readAll(length: number): Promise<Uint8Array> {
    const { right, target } = this.pair;
    let filled = 0;
    for (let attempt = 0; attempt < 500 && filled < length; attempt++) {
      const count = right.read(target, filled, length - filled);
      if (count === -ERRNO.EAGAIN) await this.pair.settle();
      else if (count <= 0) break;
      else filled += count;
    }
    return target.bytes.slice(0, filled);
  }

  async readResult(): Promise<number> {
    for (let attempt = 0; attempt < 500; attempt++) {
      const count = this.pair.right.read(this.pair.target, 0, 4096);
      if (count !== -ERRNO.EAGAIN) return count;
      await this.pair.settle();
    }
    return -ERRNO.EAGAIN;
  }
}

export function byteStreamContract(name: string, open: () => Promise<StreamPair>): void {
  describe(`ByteStream contract: ${name}`, () => {
    const ends = new Ends();
    beforeEach(async () => {
      const pair = await open();
      ends.pair = pair;
      for (let i = 0; i < pair.source.length; i++) pair.source.bytes[i] = (i * 7 + (i >> 8)) & 255;
    });
    afterEach(() => ends.pair.close());
    transferRules(ends);
    endRules(ends);
  });
}

/** Bytes go through in order, and what does not fit is refused. */
function transferRules(ends: Ends): void {
  it("nothing has arrived → read says EAGAIN and does not block", () => {
    expect(ends.pair.right.read(ends.pair.target, 0, 4096)).toBe(-ERRNO.EAGAIN);
    expect(ends.pair.left.peer).not.toBe("");
  });

  it("a gather list → its bytes in its order, at the offset asked for", async () => {
    const vector = ends.vectorOf([100, 3], [5000, 4000], [0, 1]);
    expect(vector.byteLength).toBe(4004);
    expect(ends.pair.left.write(vector)).toBe(4004);
    const expected = [
      [100, 103],
      [5000, 9000],
      [0, 1],
    ].flatMap(([from, to]) => [...ends.pair.source.bytes.slice(from, to)]);
    expect([...(await ends.readAll(4004))]).toEqual(expected);
  });

  it("a read shorter than what waits → the rest comes with the next", async () => {
    ends.pair.left.write(ends.vectorOf([0, 10]));
    const bytes: number[] = [];
    for (let i = 0; i < 500 && bytes.length < 10; i++) {
      const count = ends.pair.right.read(ends.pair.target, 50, 3);
      if (count > 0) bytes.push(...ends.pair.target.bytes.slice(50, 50 + count));
      else await ends.pair.settle();
    }
    expect(bytes).toEqual([...ends.pair.source.bytes.slice(0, 10)]);
  });

  it("nobody reads → write takes part, then says EAGAIN; read on → it takes more", async () => {
    const chunk = ends.vectorOf([0, 1 << 20]);
    let taken = 0;
    let last = 0;
    for (let i = 0; i < 100; i++) {
      last = ends.pair.left.write(chunk);
      if (last < 0) break;
      taken += last;
    }
    expect(last).toBe(-ERRNO.EAGAIN);
    let read = 0;
    for (let attempt = 0; attempt < 2000 && read < taken; attempt++) {
      const count = ends.pair.right.read(ends.pair.target, 0, ends.pair.target.length);
      if (count > 0) read += count;
      else await ends.pair.settle();
    }
    expect(read).toBe(taken);
    await ends.pair.settle();
    expect(ends.pair.left.write(ends.vectorOf([0, 10]))).toBe(10);
  });

  it("an empty gather list → 0, and nothing arrives", async () => {
    expect(ends.pair.left.write(ends.vectorOf())).toBe(0);
    await ends.pair.settle();
    expect(ends.pair.right.read(ends.pair.target, 0, 10)).toBe(-ERRNO.EAGAIN);
  });
}

/** How a stream ends. */
function endRules(ends: Ends): void {
  it("closed by the other end → what was written first, then 0", async () => {
    ends.pair.left.write(ends.vectorOf([0, 5000]));
    ends.pair.left.close();
    expect(await ends.readAll(5000)).toEqual(ends.pair.source.bytes.slice(0, 5000));
    expect(await ends.readResult()).toBe(0);
  });

  it("written to after the other end has closed → an error, and no signal", async () => {
    ends.pair.right.close();
    let result = 0;
    for (let i = 0; i < 50 && result >= 0; i++) {
      await ends.pair.settle();
      result = ends.pair.left.write(ends.vectorOf([0, 100]));
    }
    expect([-ERRNO.EPIPE, -ERRNO.ECONNRESET]).toContain(result);
  });

  it("closed → EBADF from then on, and a second close does nothing", () => {
    ends.pair.left.close();
    expect(ends.pair.left.read(ends.pair.target, 0, 10)).toBe(-ERRNO.EBADF);
    expect(ends.pair.left.write(ends.vectorOf([0, 10]))).toBe(-ERRNO.EBADF);
    ends.pair.left.close();
  });
}

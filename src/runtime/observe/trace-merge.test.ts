// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { TraceMerge } from "./trace-merge.js";
import type { TraceSink } from "./trace-session.js";

const SECTION = 0x0a0d_0d0a;
const INTERFACE = 1;
const STATISTICS = 5;
const PACKET = 6;

/** A block of a type, with a number in it to know it by. */
function block(type: number, number: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt32LE(type >>> 0, 0);
  bytes.writeUInt32LE(16, 4);
  bytes.writeUInt32LE(number, 8);
  bytes.writeUInt32LE(16, 12);
  return bytes;
}

const head = (lane: number) => Buffer.concat([block(SECTION, lane), block(INTERFACE, lane)]);

class Target implements TraceSink {
  readonly blocks: string[] = [];
  isEnded = false;

  async write(bytes: Uint8Array): Promise<void> {
    const buffer = Buffer.from(bytes);
    expect(buffer.length % 16).toBe(0);
    for (let at = 0; at < buffer.length; at += 16) {
      this.blocks.push(`${buffer.readUInt32LE(at)}:${buffer.readUInt32LE(at + 8)}`);
    }
  }

  async end(): Promise<void> {
    this.isEnded = true;
  }
}

describe("a trace of several lanes", () => {
  it("lane 0's head, then all lanes' packets, whole, in whatever pieces they come", async () => {
    const target = new Target();
    const merge = new TraceMerge(target, { laneCount: 2 });
    const early = merge.part(1).write(Buffer.concat([head(1), block(PACKET, 10)]));
    const packets = Buffer.concat([block(PACKET, 11), block(PACKET, 12)]);
    await merge.part(0).write(Buffer.concat([head(0), packets.subarray(0, 5)]));
    await early;
    await merge.part(0).write(packets.subarray(5, 27));
    await merge.part(1).write(block(STATISTICS, 13));
    await merge.part(0).write(packets.subarray(27));
    expect(target.blocks).toEqual([`${SECTION}:0`, "1:0", "6:10", "6:11", "5:13", "6:12"]);
  });

  it("ends when the last lane has", async () => {
    const target = new Target();
    const merge = new TraceMerge(target, { laneCount: 2 });
    await merge.part(0).write(head(0));
    const first = merge.part(0).end();
    await merge.part(1).write(block(PACKET, 1));
    expect(target.isEnded).toBe(false);
    await Promise.all([first, merge.part(1).end()]);
    expect(target.isEnded).toBe(true);
    expect(target.blocks).toHaveLength(3);
  });

  it("the target takes no more → whoever wrote can end, lanes that are idle or not", async () => {
    const target = new Target();
    target.write = async () => {
      throw new Error("full");
    };
    const merge = new TraceMerge(target, { laneCount: 2 });
    await expect(merge.part(0).write(head(0))).rejects.toThrow("full");
    await expect(merge.part(0).end()).rejects.toThrow("full");
    expect(target.isEnded).toBe(false);
    await merge
      .part(1)
      .end()
      .catch(() => {});
    await new Promise(setImmediate);
    expect(target.isEnded).toBe(true);
  });

  it("as many packets as were asked for, of all lanes together", async () => {
    const target = new Target();
    let fullCount = 0;
    const onFull = () => {
      fullCount++;
    };
    const merge = new TraceMerge(target, { laneCount: 2, packetCountMax: 2, onFull });
    await merge.part(0).write(Buffer.concat([head(0), block(PACKET, 1)]));
    await merge.part(1).write(Buffer.concat([block(PACKET, 2), block(PACKET, 3)]));
    await merge.part(0).write(Buffer.concat([block(PACKET, 4), block(STATISTICS, 5)]));
    expect(fullCount).toBe(1);
    expect(target.blocks.slice(2)).toEqual(["6:1", "6:2", "5:5"]);
  });
});

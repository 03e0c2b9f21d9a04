// SPDX-License-Identifier: MIT
// Follows a pcapng stream of this room's writer from block to block: counts its packets and drops,
// and knows where it may be cut without leaving half a block. Bytes come in pieces of any size.

const BLOCK_HEAD_BYTES = 8;
const BLOCK_BYTES_MIN = 12;
/** Longer than any block of this room. */
const BLOCK_BYTES_MAX = 1 << 20;
const BLOCK_INTERFACE_STATISTICS = 5;
const BLOCK_ENHANCED_PACKET = 6;
const ISB_IFDROP = 5;
/** Behind the block's head: interface number, time. */
const ISB_OPTIONS_AT = 20;

/** See the head of the file. */
export class BlockWalker {
  packetCount = 0;
  droppedCount = 0;
  /** Statistics blocks: the stream has its proper end when there is one. */
  statisticsCount = 0;
  /** Bytes up to the end of the last whole block. */
  wholeBytes = 0;
  /** What was handed in is no such stream. */
  isBroken = false;
  /** The start of a block: its head, and all of a statistics block. */
  private readonly head = new DataView(new ArrayBuffer(256));
  private headLength = 0;
  private position = 0;
  private blockLength = 0;

  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length && !this.isBroken; ) {
      at +=
        this.headLength < BLOCK_HEAD_BYTES ? this.takeHead(bytes, at) : this.takeRest(bytes, at);
      if (this.blockLength > 0 && this.position === this.blockLength) this.endBlock();
    }
  }

  private takeHead(bytes: Uint8Array, at: number): number {
    this.head.setUint8(this.headLength++, bytes[at] as number);
    this.position++;
    if (this.headLength === BLOCK_HEAD_BYTES) {
      this.blockLength = this.head.getUint32(4, true);
      const isOdd = this.blockLength < BLOCK_BYTES_MIN || this.blockLength % 4 !== 0;
      this.isBroken = isOdd || this.blockLength > BLOCK_BYTES_MAX;
    }
    return 1;
  }

  private takeRest(bytes: Uint8Array, at: number): number {
    const count = Math.min(this.blockLength - this.position, bytes.length - at);
    if (this.head.getUint32(0, true) === BLOCK_INTERFACE_STATISTICS) {
      for (let i = 0; i < count && this.headLength < this.head.byteLength; i++) {
        this.head.setUint8(this.headLength++, bytes[at + i] as number);
      }
    }
    this.position += count;
    return count;
  }

  private endBlock(): void {
    const type = this.head.getUint32(0, true);
    if (type === BLOCK_ENHANCED_PACKET) this.packetCount++;
    if (type === BLOCK_INTERFACE_STATISTICS) this.countStatistics();
    this.wholeBytes += this.blockLength;
    this.headLength = 0;
    this.position = 0;
    this.blockLength = 0;
  }

  private countStatistics(): void {
    this.statisticsCount++;
    for (let at = ISB_OPTIONS_AT; at + 12 <= this.headLength; ) {
      const length = this.head.getUint16(at + 2, true);
      if (this.head.getUint16(at, true) === ISB_IFDROP && length === 8) {
        const low = this.head.getUint32(at + 4, true);
        this.droppedCount += low + this.head.getUint32(at + 8, true) * 0x1_0000_0000;
      }
      at += 4 + Math.ceil(length / 4) * 4;
    }
  }
}

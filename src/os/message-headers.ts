// SPDX-License-Identifier: MIT
// The headers of recvmmsg and sendmmsg in mapped memory: struct mmsghdr, iovec, socket addresses
// and control messages, pointing at each other for good. Read first: recvmmsg(2), cmsg(3).

import { mapBlock, unmapBlock } from "./memory-source.js";
import type { NativeBlock } from "./native.js";
import { SOCKET_ADDRESS_BYTES_MAX } from "./socket-address.js";

// struct mmsghdr as 32-bit words: msg_hdr { name, namelen, iov, iovlen, control, controllen, flags
// }, msg_len.
export const MMSGHDR_WORDS = 16;
const NAME = 0;
export const NAME_LENGTH = 2;
const VECTOR = 4;
const VECTOR_COUNT = 6;
const CONTROL = 8;
export const CONTROL_LENGTH = 10;
export const FLAGS = 12;
export const MESSAGE_LENGTH = 14;
/** struct iovec: base, length. */
const IOVEC_WORDS = 4;
/**
 * Control messages of one packet burst: GRO, TOS and overflow count, 24 bytes each; or GSO and TOS.
 */
export const CONTROL_BYTES = 96;
export const CMSG_HEADER_BYTES = 16;
export const CMSG_SPACE = 24;

const TWO_32 = 0x1_0000_0000;

/** `count` message headers with a vector, an address and control room each, in mapped memory. */
export class MessageHeaders {
  readonly block: NativeBlock;
  readonly words: Uint32Array;
  readonly view: DataView;
  readonly count: number;
  private readonly vectors: number;
  private readonly names: number;
  private readonly controls: number;

  constructor(count: number) {
    this.count = count;
    this.vectors = count * MMSGHDR_WORDS * 4;
    this.names = this.vectors + count * IOVEC_WORDS * 4;
    this.controls = this.names + count * SOCKET_ADDRESS_BYTES_MAX;
    this.block = mapBlock(this.controls + count * CONTROL_BYTES, true);
    this.words = new Uint32Array(this.block.bytes.buffer);
    this.view = this.block.view;
    for (let i = 0; i < count; i++) {
      const header = i * MMSGHDR_WORDS;
      this.setPointer(header + NAME, this.block.address + this.nameOffset(i));
      this.setPointer(header + VECTOR, this.block.address + this.vectors + i * IOVEC_WORDS * 4);
      this.words[header + VECTOR_COUNT] = 1;
      this.setPointer(header + CONTROL, this.block.address + this.controlOffset(i));
    }
  }

  addressOf(index: number): number {
    return this.block.address + index * MMSGHDR_WORDS * 4;
  }

  nameOffset(index: number): number {
    return this.names + index * SOCKET_ADDRESS_BYTES_MAX;
  }

  controlOffset(index: number): number {
    return this.controls + index * CONTROL_BYTES;
  }

  setVector(index: number, address: number, length: number): void {
    const vector = this.vectors / 4 + index * IOVEC_WORDS;
    this.setPointer(vector, address);
    this.words[vector + 2] = length;
  }

  setPointer(word: number, address: number): void {
    this.words[word] = address >>> 0;
    this.words[word + 1] = Math.floor(address / TWO_32);
  }

  close(): void {
    unmapBlock(this.block);
  }
}

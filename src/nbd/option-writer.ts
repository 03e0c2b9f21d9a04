// SPDX-License-Identifier: MIT
// Puts the answers of the handshake together, in memory that is sent as it is.

import { assert, type Memory } from "../base/index.js";
import {
  NBD_OPTION_REPLY_BYTES,
  NBD_OPTION_REPLY_MAGIC_HIGH,
  NBD_OPTION_REPLY_MAGIC_LOW,
  writeNbdU64,
} from "../wire/index.js";
import { NO_TOKEN, type ReplyQueue } from "./reply-queue.js";

export class OptionWriter {
  private readonly memory: Memory;
  private readonly start: number;
  private readonly end: number;
  private at: number;

  /** @param start first byte of `memory` to use, `end`: the byte after the last. */
  constructor(memory: Memory, start: number, end: number) {
    this.memory = memory;
    this.start = start;
    this.end = end;
    this.at = start;
  }

  /** Bytes that one answer may have. */
  get capacity(): number {
    return this.end - this.start;
  }

  get byteLength(): number {
    return this.at - this.start;
  }

  /** Starts an answer. Preconditions: the one before has left. */
  begin(): void {
    this.at = this.start;
  }

  /** Queues the answer; an empty one is none. */
  send(queue: ReplyQueue): void {
    if (this.at > this.start) queue.push(this.start, this.at - this.start, NO_TOKEN);
    this.at = this.start;
  }

  u16(value: number): void {
    this.memory.view.setUint16(this.advance(2), value);
  }

  u32(value: number): void {
    this.memory.view.setUint32(this.advance(4), value);
  }

  u64(value: number): void {
    writeNbdU64(this.memory.view, this.advance(8), value);
  }

  bytes(bytes: Uint8Array): void {
    this.memory.bytes.set(bytes, this.advance(bytes.length));
  }

  zeroes(count: number): void {
    const at = this.advance(count);
    this.memory.bytes.fill(0, at, at + count);
  }

  /** Preconditions: `text` is ASCII. */
  ascii(text: string): void {
    const at = this.advance(text.length);
    for (let i = 0; i < text.length; i++) this.memory.bytes[at + i] = text.charCodeAt(i);
  }

  /** The header of a reply; `length` bytes of data are to follow. */
  reply(option: number, type: number, length: number): void {
    const at = this.advance(NBD_OPTION_REPLY_BYTES);
    const view = this.memory.view;
    view.setUint32(at, NBD_OPTION_REPLY_MAGIC_HIGH);
    view.setUint32(at + 4, NBD_OPTION_REPLY_MAGIC_LOW);
    view.setUint32(at + 8, option);
    view.setUint32(at + 12, type);
    view.setUint32(at + 16, length);
  }

  /** A whole reply that refuses `option`. */
  error(option: number, type: number, text: string): void {
    this.reply(option, type, text.length);
    this.ascii(text);
  }

  private advance(count: number): number {
    const at = this.at;
    assert(at + count <= this.end, "an answer fits its memory");
    this.at = at + count;
    return at;
  }
}

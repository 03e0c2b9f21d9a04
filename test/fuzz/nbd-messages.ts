// SPDX-License-Identifier: MIT
// What NBD clients say, message by message, well formed: the raw material of the NBD fuzzer.

import { encodeUtf8 } from "../../src/base/index.js";
import {
  NBD_COMMAND,
  NBD_COMMAND_FLAG,
  NBD_CONTEXT_ALLOCATION,
  NBD_OPTION,
  NBD_OPTION_MAGIC_HIGH,
  NBD_OPTION_MAGIC_LOW,
  writeNbdExtendedRequest,
  writeNbdRequest,
} from "../../src/wire/index.js";
import type { Field, Mutator } from "./mutate.js";

/** Bytes and where their fields are. */
export interface Message {
  readonly bytes: Uint8Array;
  readonly fields: readonly Field[];
}

const OPTION_FIELDS: readonly Field[] = [
  { name: "magic", offset: 0, bytes: 8 },
  { name: "option", offset: 8, bytes: 4 },
  { name: "length", offset: 12, bytes: 4 },
  { name: "first length", offset: 16, bytes: 4 },
];
const REQUEST_FIELDS: readonly Field[] = [
  { name: "magic", offset: 0, bytes: 4 },
  { name: "flags", offset: 4, bytes: 2 },
  { name: "type", offset: 6, bytes: 2 },
  { name: "type, low byte", offset: 7, bytes: 1 },
  { name: "cookie", offset: 8, bytes: 8 },
  { name: "offset", offset: 16, bytes: 8 },
  { name: "offset, low half", offset: 20, bytes: 4 },
  { name: "length", offset: 24, bytes: 4 },
];

/** The client's answer to the greeting: NO_ZEROES or not. */
export function clientFlags(flags: number): Message {
  return {
    bytes: new Uint8Array([0, 0, 0, flags]),
    fields: [{ name: "flags", offset: 0, bytes: 4 }],
  };
}

export function option(number: number, data: Uint8Array): Message {
  const bytes = new Uint8Array(16 + data.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, NBD_OPTION_MAGIC_HIGH);
  view.setUint32(4, NBD_OPTION_MAGIC_LOW);
  view.setUint32(8, number);
  view.setUint32(12, data.length);
  bytes.set(data, 16);
  return { bytes, fields: OPTION_FIELDS };
}

/** GO or INFO for `name`. */
export function infoOption(number: number, name: string, infos: readonly number[]): Message {
  const text = encodeUtf8(name);
  const data = new Uint8Array(4 + text.length + 2 + 2 * infos.length);
  const view = new DataView(data.buffer);
  view.setUint32(0, text.length);
  data.set(text, 4);
  view.setUint16(4 + text.length, infos.length);
  for (const [i, info] of infos.entries()) view.setUint16(6 + text.length + 2 * i, info);
  return option(number, data);
}

/** SET or LIST META CONTEXT with queries. */
export function metaOption(number: number, name: string, queries: readonly string[]): Message {
  const parts = [name, ...queries].map(encodeUtf8);
  const total = parts.reduce((sum, part) => sum + 4 + part.length, 4);
  const data = new Uint8Array(total);
  const view = new DataView(data.buffer);
  let at = 0;
  for (const [i, part] of parts.entries()) {
    view.setUint32(at, part.length);
    data.set(part, at + 4);
    at += 4 + part.length;
    if (i === 0) {
      view.setUint32(at, queries.length);
      at += 4;
    }
  }
  return option(number, data);
}

export interface RequestShape {
  readonly type: number;
  readonly flags?: number;
  readonly cookie?: number;
  readonly offset: number;
  readonly length: number;
  readonly isExtended?: boolean;
}

/** A request; WRITE carries a payload of its length. */
export function request(shape: RequestShape): Message {
  const { type, flags = 0, cookie = 1, offset, length } = shape;
  const payload = type === NBD_COMMAND.WRITE ? length : 0;
  const headerBytes = shape.isExtended ? 32 : 28;
  const bytes = new Uint8Array(headerBytes + payload);
  const view = new DataView(bytes.buffer);
  if (shape.isExtended) writeNbdExtendedRequest(view, 0, flags, type, 0, cookie, offset, length);
  else writeNbdRequest(view, 0, flags, type, 0, cookie, offset, length);
  bytes.fill(0xab, headerBytes);
  return { bytes, fields: REQUEST_FIELDS };
}

/** The options of one client, ending with GO or EXPORT_NAME. */
export function drawHandshake(mutator: Mutator, exportName: string): Message[] {
  const messages = [clientFlags(mutator.below(4) | 1)];
  const optional: (() => Message)[] = [
    () => option(NBD_OPTION.STRUCTURED_REPLY, new Uint8Array(0)),
    () => option(NBD_OPTION.EXTENDED_HEADERS, new Uint8Array(0)),
    () => option(NBD_OPTION.LIST, new Uint8Array(0)),
    () => infoOption(NBD_OPTION.INFO, exportName, [0, 1, 2, 3]),
    () => metaOption(NBD_OPTION.LIST_META_CONTEXT, exportName, ["base:"]),
    () => metaOption(NBD_OPTION.SET_META_CONTEXT, exportName, [NBD_CONTEXT_ALLOCATION]),
    () => option(NBD_OPTION.STARTTLS, new Uint8Array(0)),
    () => option(NBD_OPTION.PEEK_EXPORT, new Uint8Array(3)),
  ];
  for (let count = mutator.below(5); count > 0; count--) messages.push(mutator.pick(optional)());
  if (mutator.oneIn(4)) messages.push(option(NBD_OPTION.EXPORT_NAME, encodeUtf8(exportName)));
  else if (mutator.oneIn(12)) messages.push(option(NBD_OPTION.ABORT, new Uint8Array(0)));
  else messages.push(infoOption(NBD_OPTION.GO, exportName, mutator.oneIn(2) ? [3] : []));
  return messages;
}

/** A request that a client might make of a disk of `sizeBytes`. */
export function drawRequest(mutator: Mutator, sizeBytes: number, isExtended: boolean): Message {
  const types = Object.values(NBD_COMMAND).filter((type) => type !== NBD_COMMAND.DISC);
  const type = mutator.pick(types);
  const length = 512 * (1 + mutator.below(mutator.oneIn(8) ? 256 : 8));
  const offset = 512 * mutator.below((sizeBytes - length) / 512);
  let flags = 0;
  if (mutator.oneIn(4)) flags = mutator.pick(Object.values(NBD_COMMAND_FLAG));
  if (isExtended && type === NBD_COMMAND.WRITE) flags |= NBD_COMMAND_FLAG.PAYLOAD_LEN;
  const cookie = mutator.random.nextU32();
  return request({ type, flags, cookie, offset, length, isExtended });
}

// SPDX-License-Identifier: MIT
// The NBD protocol's numbers and messages (NetworkBlockDevice/nbd, doc/proto.md). Everything is big
// endian. Messages of the transmission phase, which are many, are free functions on a view; those
// of the handshake are written by `nbd/` with the constants below.
//
// A compact request and the three kinds of reply (offsets in bytes):
//
//   request     0 magic  4 flags  6 type  8 cookie  16 offset  24 length(4)          28 in all
//   extended    0 magic  4 flags  6 type  8 cookie  16 offset  24 length(8)          32 in all
//   simple      0 magic  4 error          8 cookie                                   16 in all
//   structured  0 magic  4 flags  6 type  8 cookie  16 length(4)                     20 in all
//   extended    0 magic  4 flags  6 type  8 cookie  16 offset  24 length(8)          32 in all

/** First eight bytes from the server, as two words: "NBDMAGIC". */
export const NBD_MAGIC_HIGH = 0x4e42444d;
export const NBD_MAGIC_LOW = 0x41474943;
/** "IHAVEOPT", in the greeting and before each option. */
export const NBD_OPTION_MAGIC_HIGH = 0x49484156;
export const NBD_OPTION_MAGIC_LOW = 0x454f5054;
/** 0x3e889045565a9, before each reply to an option. */
export const NBD_OPTION_REPLY_MAGIC_HIGH = 0x0003e889;
export const NBD_OPTION_REPLY_MAGIC_LOW = 0x045565a9;

export const NBD_GREETING_BYTES = 18;
export const NBD_CLIENT_FLAGS_BYTES = 4;
/** Magic, option, length. */
export const NBD_OPTION_HEADER_BYTES = 16;
/** Magic, option, reply type, length. */
export const NBD_OPTION_REPLY_BYTES = 20;
/** Zeroes that end the reply to EXPORT_NAME for clients without NO_ZEROES. */
export const NBD_EXPORT_NAME_PADDING_BYTES = 124;
/** No string (export name, description, query) is longer. */
export const NBD_STRING_BYTES_MAX = 4096;

/** Handshake flags of the server, and the same bits of the client's. */
export const NBD_HANDSHAKE_FLAG = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;

export const NBD_OPTION = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  PEEK_EXPORT: 4,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
  EXTENDED_HEADERS: 11,
} as const;

/** Types of reply to an option; errors have the top bit set and may carry a text. */
export const NBD_REPLY_OPTION = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x8000_0001,
  ERR_POLICY: 0x8000_0002,
  ERR_INVALID: 0x8000_0003,
  ERR_PLATFORM: 0x8000_0004,
  ERR_TLS_REQD: 0x8000_0005,
  ERR_UNKNOWN: 0x8000_0006,
  ERR_SHUTDOWN: 0x8000_0007,
  ERR_BLOCK_SIZE_REQD: 0x8000_0008,
  ERR_TOO_BIG: 0x8000_0009,
  ERR_EXT_HEADER_REQD: 0x8000_000a,
} as const;

/** Kinds of information in a reply of type INFO. */
export const NBD_INFO = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

/** What an export can do, in the reply that opens the transmission phase. */
export const NBD_TRANSMISSION_FLAG = {
  HAS_FLAGS: 1 << 0,
  READ_ONLY: 1 << 1,
  SEND_FLUSH: 1 << 2,
  SEND_FUA: 1 << 3,
  ROTATIONAL: 1 << 4,
  SEND_TRIM: 1 << 5,
  SEND_WRITE_ZEROES: 1 << 6,
  SEND_DF: 1 << 7,
  CAN_MULTI_CONN: 1 << 8,
  SEND_RESIZE: 1 << 9,
  SEND_CACHE: 1 << 10,
  SEND_FAST_ZERO: 1 << 11,
  BLOCK_STATUS_PAYLOAD: 1 << 12,
} as const;

export const NBD_COMMAND = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;
export type NbdCommand = (typeof NBD_COMMAND)[keyof typeof NBD_COMMAND];

export const NBD_COMMAND_FLAG = {
  FUA: 1 << 0,
  NO_HOLE: 1 << 1,
  DF: 1 << 2,
  REQ_ONE: 1 << 3,
  FAST_ZERO: 1 << 4,
  PAYLOAD_LEN: 1 << 5,
} as const;

export const NBD_REQUEST_MAGIC = 0x25609513;
export const NBD_EXTENDED_REQUEST_MAGIC = 0x21e41c71;
export const NBD_SIMPLE_REPLY_MAGIC = 0x67446698;
export const NBD_STRUCTURED_REPLY_MAGIC = 0x668e33ef;
export const NBD_EXTENDED_REPLY_MAGIC = 0x6e8a278c;

export const NBD_REQUEST_BYTES = 28;
export const NBD_EXTENDED_REQUEST_BYTES = 32;
export const NBD_SIMPLE_REPLY_BYTES = 16;
export const NBD_STRUCTURED_REPLY_BYTES = 20;
export const NBD_EXTENDED_REPLY_BYTES = 32;

/** The last chunk of a structured reply. */
export const NBD_REPLY_FLAG_DONE = 1;

/** Types of chunk of a structured (or extended) reply. */
export const NBD_CHUNK = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  BLOCK_STATUS_EXT: 6,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const;

/** Payload of an ERROR chunk without text: error, length of the text. */
export const NBD_ERROR_CHUNK_BYTES = 6;

/** The errors that a reply can name; numbers as on Linux, whatever the system is. */
export const NBD_ERROR = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;

/** The metadata context that the protocol itself defines, and the bits of its status words. */
export const NBD_CONTEXT_ALLOCATION = "base:allocation";
export const NBD_STATE = { HOLE: 1, ZERO: 2 } as const;

const MAGIC = 0;
const FLAGS = 4;
const TYPE = 6;
const COOKIE = 8;
const OFFSET = 16;
const LENGTH = 24;
const STRUCTURED_LENGTH = 16;

/** Either kind of request, at `offset`. Preconditions of all getters: the request is complete. */
export function nbdRequestMagic(view: DataView, offset: number): number {
  return view.getUint32(offset + MAGIC);
}

/** `NBD_COMMAND_FLAG` bits. */
export function nbdRequestFlags(view: DataView, offset: number): number {
  return view.getUint16(offset + FLAGS);
}

/** An `NBD_COMMAND`, or whatever the client put there. */
export function nbdRequestType(view: DataView, offset: number): number {
  return view.getUint16(offset + TYPE);
}

/** The client's name for the request (the "handle"), opaque: high word. */
export function nbdRequestCookieHigh(view: DataView, offset: number): number {
  return view.getUint32(offset + COOKIE);
}

export function nbdRequestCookieLow(view: DataView, offset: number): number {
  return view.getUint32(offset + COOKIE + 4);
}

export function nbdRequestOffsetHigh(view: DataView, offset: number): number {
  return view.getUint32(offset + OFFSET);
}

export function nbdRequestOffsetLow(view: DataView, offset: number): number {
  return view.getUint32(offset + OFFSET + 4);
}

/** Of a compact request. */
export function nbdRequestLength(view: DataView, offset: number): number {
  return view.getUint32(offset + LENGTH);
}

/** Of an extended request. */
export function nbdExtendedLengthHigh(view: DataView, offset: number): number {
  return view.getUint32(offset + LENGTH);
}

export function nbdExtendedLengthLow(view: DataView, offset: number): number {
  return view.getUint32(offset + LENGTH + 4);
}

/** Writes a simple reply; `error` is 0 or an `NBD_ERROR`. @returns its length. */
export function writeNbdSimpleReply(
  view: DataView,
  offset: number,
  error: number,
  cookieHigh: number,
  cookieLow: number,
): number {
  view.setUint32(offset + MAGIC, NBD_SIMPLE_REPLY_MAGIC);
  view.setUint32(offset + FLAGS, error);
  view.setUint32(offset + COOKIE, cookieHigh);
  view.setUint32(offset + COOKIE + 4, cookieLow);
  return NBD_SIMPLE_REPLY_BYTES;
}

/**
 * Writes a structured reply's header. `length`: bytes of payload that follow.
 * @returns its length.
 */
export function writeNbdStructuredReply(
  view: DataView,
  offset: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  length: number,
): number {
  view.setUint32(offset + MAGIC, NBD_STRUCTURED_REPLY_MAGIC);
  view.setUint16(offset + FLAGS, flags);
  view.setUint16(offset + TYPE, type);
  view.setUint32(offset + COOKIE, cookieHigh);
  view.setUint32(offset + COOKIE + 4, cookieLow);
  view.setUint32(offset + STRUCTURED_LENGTH, length);
  return NBD_STRUCTURED_REPLY_BYTES;
}

/**
 * Writes an extended reply's header. The request's own offset goes back in it, as two halves, since
 * an invalid one need not fit a number. @returns its length.
 */
export function writeNbdExtendedReply(
  view: DataView,
  offset: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  requestOffsetHigh: number,
  requestOffsetLow: number,
  length: number,
): number {
  view.setUint32(offset + MAGIC, NBD_EXTENDED_REPLY_MAGIC);
  view.setUint16(offset + FLAGS, flags);
  view.setUint16(offset + TYPE, type);
  view.setUint32(offset + COOKIE, cookieHigh);
  view.setUint32(offset + COOKIE + 4, cookieLow);
  view.setUint32(offset + OFFSET, requestOffsetHigh);
  view.setUint32(offset + OFFSET + 4, requestOffsetLow);
  view.setUint32(offset + LENGTH, 0);
  view.setUint32(offset + LENGTH + 4, length);
  return NBD_EXTENDED_REPLY_BYTES;
}

/** Writes a 64-bit number, 0 .. 2^53 - 1, such as the offset of a data chunk. @returns 8. */
export function writeNbdU64(view: DataView, offset: number, value: number): number {
  view.setUint32(offset, Math.floor(value / 0x1_0000_0000));
  view.setUint32(offset + 4, value >>> 0);
  return 8;
}

/** Writes the payload of an ERROR chunk without a text. @returns its length. */
export function writeNbdErrorChunk(view: DataView, offset: number, error: number): number {
  view.setUint32(offset, error);
  view.setUint16(offset + 4, 0);
  return NBD_ERROR_CHUNK_BYTES;
}

/** Writes a compact request (clients and tests). @returns its length. */
export function writeNbdRequest(
  view: DataView,
  offset: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  requestOffset: number,
  length: number,
): number {
  view.setUint32(offset + MAGIC, NBD_REQUEST_MAGIC);
  view.setUint16(offset + FLAGS, flags);
  view.setUint16(offset + TYPE, type);
  view.setUint32(offset + COOKIE, cookieHigh);
  view.setUint32(offset + COOKIE + 4, cookieLow);
  writeNbdU64(view, offset + OFFSET, requestOffset);
  view.setUint32(offset + LENGTH, length);
  return NBD_REQUEST_BYTES;
}

/** Writes an extended request (clients and tests). @returns its length. */
export function writeNbdExtendedRequest(
  view: DataView,
  offset: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  requestOffset: number,
  length: number,
): number {
  writeNbdRequest(view, offset, flags, type, cookieHigh, cookieLow, requestOffset, 0);
  view.setUint32(offset + MAGIC, NBD_EXTENDED_REQUEST_MAGIC);
  writeNbdU64(view, offset + LENGTH, length);
  return NBD_EXTENDED_REQUEST_BYTES;
}

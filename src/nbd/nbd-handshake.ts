// SPDX-License-Identifier: MIT
// The handshake of one connection: fixed newstyle negotiation (proto.md, "Handshake").
//
// One option at a time, and none before the answer to the one before has left: the answers are put
// together in the memory of the request buffers, which nobody needs yet. An option is refused with
// the error that fits and a text for people; only what the protocol gives no way to refuse ends the
// connection.

import { assert } from "../base/index.js";
import {
  NBD_CLIENT_FLAGS_BYTES,
  NBD_CONTEXT_ALLOCATION,
  NBD_EXPORT_NAME_PADDING_BYTES,
  NBD_GREETING_BYTES,
  NBD_HANDSHAKE_FLAG,
  NBD_INFO,
  NBD_MAGIC_HIGH,
  NBD_MAGIC_LOW,
  NBD_OPTION,
  NBD_OPTION_HEADER_BYTES,
  NBD_OPTION_MAGIC_HIGH,
  NBD_OPTION_MAGIC_LOW,
  NBD_OPTION_REPLY_BYTES,
  NBD_REPLY_OPTION,
} from "../wire/index.js";
import type { NbdCloseReason, NbdCounters } from "./nbd-counters.js";
import type { NbdExport, NbdExports } from "./nbd-export.js";
import { ALLOCATION_CONTEXT_ID, REPLY_FORM, type ReplyForm } from "./nbd-replies.js";
import type { TransmissionTerms } from "./nbd-transmission.js";
import { parseExportQuery, parseInfoRequest } from "./option-parser.js";
import { OptionWriter } from "./option-writer.js";
import type { ReplyQueue } from "./reply-queue.js";
import type { RequestPool } from "./request-pool.js";
import { INTAKE, type Intake, type Staging } from "./staging.js";

/** What the phase asks of its connection. */
export interface HandshakeOwner {
  /** The client has its export: what follows are requests. */
  onTransmission(terms: TransmissionTerms): void;
  /** The client gave up: close when the answer has left. */
  onAbort(): void;
  onFatal(reason: NbdCloseReason): void;
}

/** More options than any client needs, however many exports it asks about. */
const OPTION_COUNT_MAX = 4096;
/** Longest option whose data is skipped rather than taken for an attack. */
const OPTION_BYTES_MAX = 1 << 25;
/** Preferred block size where the device has no larger one: a page. */
const PREFERRED_BLOCK_BYTES = 4096;

const KNOWN_CLIENT_FLAGS = NBD_HANDSHAKE_FLAG.FIXED_NEWSTYLE | NBD_HANDSHAKE_FLAG.NO_ZEROES;

export class NbdHandshake {
  private readonly owner: HandshakeOwner;
  private readonly exports: NbdExports;
  private readonly counters: NbdCounters;
  private readonly staging: Staging;
  private readonly queue: ReplyQueue;
  private readonly view: DataView;
  private readonly bytes: Uint8Array;
  private readonly writer: OptionWriter;
  private readonly requestBytesMax: number;
  private hasFlags = false;
  private skipsZeroes = false;
  private form: ReplyForm = REPLY_FORM.SIMPLE;
  /** The export for which base:allocation is selected. */
  private contextExport: NbdExport | null = null;
  private optionCount = 0;
  /** Data of a refused option that is still to be skipped, and the answer that follows. */
  private skipLeft = 0;
  private skippedOption = 0;
  private isDone = false;

  constructor(
    owner: HandshakeOwner,
    pool: RequestPool,
    queue: ReplyQueue,
    staging: Staging,
    exports: NbdExports,
    counters: NbdCounters,
    requestBytesMax: number,
  ) {
    this.owner = owner;
    this.exports = exports;
    this.counters = counters;
    this.staging = staging;
    this.queue = queue;
    this.view = pool.memory.view;
    this.bytes = pool.memory.bytes;
    this.requestBytesMax = requestBytesMax;
    const { inlineOffset, segmentsOffset } = pool.layout;
    this.writer = new OptionWriter(pool.memory, inlineOffset, segmentsOffset);
    this.writeGreeting();
  }

  /** A message has begun that the client has not finished. */
  get isInsideMessage(): boolean {
    return this.skipLeft > 0 || this.staging.count > 0;
  }

  /** Takes what it can off the staged bytes. */
  consume(): Intake {
    while (!this.isDone) {
      // Answers share one place: the next option waits until they have left.
      if (!this.queue.isEmpty) return INTAKE.BLOCKED;
      const intake = this.hasFlags ? this.takeOption() : this.takeFlags();
      if (intake !== INTAKE.TAKEN) return intake;
    }
    return INTAKE.BLOCKED;
  }

  private writeGreeting(): void {
    const writer = this.writer;
    writer.begin();
    writer.u32(NBD_MAGIC_HIGH);
    writer.u32(NBD_MAGIC_LOW);
    writer.u32(NBD_OPTION_MAGIC_HIGH);
    writer.u32(NBD_OPTION_MAGIC_LOW);
    writer.u16(NBD_HANDSHAKE_FLAG.FIXED_NEWSTYLE | NBD_HANDSHAKE_FLAG.NO_ZEROES);
    assert(writer.byteLength === NBD_GREETING_BYTES, "the greeting has its length");
    writer.send(this.queue);
  }

  private takeFlags(): Intake {
    if (this.staging.count < NBD_CLIENT_FLAGS_BYTES) return INTAKE.NEEDS_MORE;
    const flags = this.view.getUint32(this.staging.offset);
    this.staging.take(NBD_CLIENT_FLAGS_BYTES);
    if ((flags & ~KNOWN_CLIENT_FLAGS) !== 0) return this.stop("BAD_CLIENT_FLAGS");
    this.hasFlags = true;
    this.skipsZeroes = (flags & NBD_HANDSHAKE_FLAG.NO_ZEROES) !== 0;
    return INTAKE.TAKEN;
  }

  private stop(reason: NbdCloseReason): Intake {
    this.owner.onFatal(reason);
    return INTAKE.STOPPED;
  }

  private takeOption(): Intake {
    if (this.skipLeft > 0) return this.skip();
    if (this.staging.count < NBD_OPTION_HEADER_BYTES) return INTAKE.NEEDS_MORE;
    const at = this.staging.offset;
    const view = this.view;
    if (
      view.getUint32(at) !== NBD_OPTION_MAGIC_HIGH ||
      view.getUint32(at + 4) !== NBD_OPTION_MAGIC_LOW
    ) {
      return this.stop("BAD_OPTION_MAGIC");
    }
    const option = view.getUint32(at + 8);
    const length = view.getUint32(at + 12);
    const total = NBD_OPTION_HEADER_BYTES + length;
    if (total > this.staging.capacity) return this.takeLongOption(option, length);
    if (this.staging.count < total) return INTAKE.NEEDS_MORE;
    if (++this.optionCount > OPTION_COUNT_MAX) return this.stop("TOO_MANY_OPTIONS");
    this.staging.take(total);
    this.writer.begin();
    const intake = this.answer(option, at + NBD_OPTION_HEADER_BYTES, length);
    this.writer.send(this.queue);
    return intake;
  }

  /** An option that doesn't fit the staged bytes: its data is skipped, then it is refused. */
  private takeLongOption(option: number, length: number): Intake {
    if (option === NBD_OPTION.EXPORT_NAME) return this.stop("NO_SUCH_EXPORT");
    if (length > OPTION_BYTES_MAX) return this.stop("OPTION_TOO_LONG");
    if (++this.optionCount > OPTION_COUNT_MAX) return this.stop("TOO_MANY_OPTIONS");
    this.staging.take(NBD_OPTION_HEADER_BYTES);
    this.skippedOption = option;
    this.skipLeft = length;
    return INTAKE.TAKEN;
  }

  private skip(): Intake {
    const count = Math.min(this.skipLeft, this.staging.count);
    if (count === 0) return INTAKE.NEEDS_MORE;
    this.staging.take(count);
    this.skipLeft -= count;
    if (this.skipLeft > 0) return INTAKE.NEEDS_MORE;
    this.writer.begin();
    const isKnown = this.skippedOption <= NBD_OPTION.EXTENDED_HEADERS;
    const type = isKnown ? NBD_REPLY_OPTION.ERR_TOO_BIG : NBD_REPLY_OPTION.ERR_UNSUP;
    this.refuse(this.skippedOption, type, "the option's data is too long");
    this.writer.send(this.queue);
    return INTAKE.TAKEN;
  }

  /** Answers one option; its data are `length` staged bytes at `at`. */
  private answer(option: number, at: number, length: number): Intake {
    switch (option) {
      case NBD_OPTION.EXPORT_NAME:
        return this.answerExportName(at, length);
      case NBD_OPTION.ABORT:
        this.writer.reply(option, NBD_REPLY_OPTION.ACK, 0);
        this.isDone = true;
        this.owner.onAbort();
        return INTAKE.STOPPED;
      case NBD_OPTION.LIST:
        this.answerList(option, length);
        break;
      case NBD_OPTION.STARTTLS:
        this.refuse(option, NBD_REPLY_OPTION.ERR_UNSUP, "this server has no TLS");
        break;
      case NBD_OPTION.INFO:
      case NBD_OPTION.GO:
        this.answerInfo(option, at, length);
        break;
      case NBD_OPTION.STRUCTURED_REPLY:
      case NBD_OPTION.EXTENDED_HEADERS:
        this.answerForm(option, length);
        break;
      case NBD_OPTION.LIST_META_CONTEXT:
      case NBD_OPTION.SET_META_CONTEXT:
        this.answerMetaContext(option, at, length);
        break;
      default:
        this.refuse(option, NBD_REPLY_OPTION.ERR_UNSUP, "unknown option");
    }
    return INTAKE.TAKEN;
  }

  private refuse(option: number, type: number, text: string): void {
    this.counters.optionErrors++;
    this.writer.error(option, type, text);
  }

  /** The one option without a way to say no, and with a form of its own for yes. */
  private answerExportName(at: number, length: number): Intake {
    const target = this.exports.find(this.bytes, at, at + length);
    if (target === null) return this.stop("NO_SUCH_EXPORT");
    const writer = this.writer;
    writer.u64(target.sizeBytes);
    writer.u16(target.transmissionFlags(this.form !== REPLY_FORM.SIMPLE));
    if (!this.skipsZeroes) writer.zeroes(NBD_EXPORT_NAME_PADDING_BYTES);
    this.enter(target);
    return INTAKE.TAKEN;
  }

  private enter(target: NbdExport): void {
    this.isDone = true;
    this.owner.onTransmission({
      target,
      form: this.form,
      hasAllocationContext: this.contextExport === target,
    });
  }

  private answerList(option: number, length: number): void {
    if (length !== 0) {
      this.refuse(option, NBD_REPLY_OPTION.ERR_INVALID, "LIST takes no data");
      return;
    }
    const writer = this.writer;
    let bytes = NBD_OPTION_REPLY_BYTES;
    for (const { nameBytes, descriptionBytes } of this.exports.list()) {
      bytes += NBD_OPTION_REPLY_BYTES + 4 + nameBytes.length + descriptionBytes.length;
    }
    if (bytes > writer.capacity) {
      this.refuse(option, NBD_REPLY_OPTION.ERR_TOO_BIG, "too many exports to list");
      return;
    }
    for (const { nameBytes, descriptionBytes } of this.exports.list()) {
      const dataBytes = 4 + nameBytes.length + descriptionBytes.length;
      writer.reply(option, NBD_REPLY_OPTION.SERVER, dataBytes);
      writer.u32(nameBytes.length);
      writer.bytes(nameBytes);
      writer.bytes(descriptionBytes);
    }
    writer.reply(option, NBD_REPLY_OPTION.ACK, 0);
  }

  /** INFO and GO: the same answers, but after GO the client has its export. */
  private answerInfo(option: number, at: number, length: number): void {
    const request = parseInfoRequest(this.view, at, length);
    if (request === null) {
      this.refuse(option, NBD_REPLY_OPTION.ERR_INVALID, "malformed request for information");
      return;
    }
    const target = this.exports.find(this.bytes, request.nameStart, request.nameEnd);
    if (target === null) {
      this.refuse(option, NBD_REPLY_OPTION.ERR_UNKNOWN, "no such export");
      return;
    }
    const writer = this.writer;
    writer.reply(option, NBD_REPLY_OPTION.INFO, 12);
    writer.u16(NBD_INFO.EXPORT);
    writer.u64(target.sizeBytes);
    writer.u16(target.transmissionFlags(this.form !== REPLY_FORM.SIMPLE));
    this.writeBlockSizes(option, target);
    if (request.wantsName) this.writeText(option, NBD_INFO.NAME, target.nameBytes);
    if (request.wantsDescription && target.descriptionBytes.length > 0) {
      this.writeText(option, NBD_INFO.DESCRIPTION, target.descriptionBytes);
    }
    writer.reply(option, NBD_REPLY_OPTION.ACK, 0);
    if (option === NBD_OPTION.GO) this.enter(target);
  }

  /**
   * Sent whether asked for or not: requests that don't keep to them are refused. All three are
   * powers of two, as the protocol wants them.
   */
  private writeBlockSizes(option: number, target: NbdExport): void {
    const { logicalBlockBytes, physicalBlockBytes } = target.device.limits;
    const isPower = (physicalBlockBytes & (physicalBlockBytes - 1)) === 0;
    const physical = isPower ? physicalBlockBytes : 0;
    const preferred = Math.max(PREFERRED_BLOCK_BYTES, logicalBlockBytes, physical);
    const writer = this.writer;
    writer.reply(option, NBD_REPLY_OPTION.INFO, 14);
    writer.u16(NBD_INFO.BLOCK_SIZE);
    writer.u32(logicalBlockBytes);
    writer.u32(Math.min(preferred, this.requestBytesMax));
    writer.u32(this.requestBytesMax);
  }

  private writeText(option: number, kind: number, text: Uint8Array): void {
    this.writer.reply(option, NBD_REPLY_OPTION.INFO, 2 + text.length);
    this.writer.u16(kind);
    this.writer.bytes(text);
  }

  /** STRUCTURED_REPLY and EXTENDED_HEADERS, of which the latter includes the former. */
  private answerForm(option: number, length: number): void {
    const isExtended = option === NBD_OPTION.EXTENDED_HEADERS;
    const form = isExtended ? REPLY_FORM.EXTENDED : REPLY_FORM.STRUCTURED;
    if (length !== 0) {
      this.refuse(option, NBD_REPLY_OPTION.ERR_INVALID, "the option takes no data");
    } else if (this.form === form) {
      this.refuse(option, NBD_REPLY_OPTION.ERR_INVALID, "that has been agreed on already");
    } else if (this.form === REPLY_FORM.EXTENDED) {
      const text = "extended headers have been agreed on already";
      this.refuse(option, NBD_REPLY_OPTION.ERR_EXT_HEADER_REQD, text);
    } else {
      this.form = form;
      this.writer.reply(option, NBD_REPLY_OPTION.ACK, 0);
    }
  }

  private answerMetaContext(option: number, at: number, length: number): void {
    const isSet = option === NBD_OPTION.SET_META_CONTEXT;
    const query = parseExportQuery(this.view, this.bytes, at, length);
    if (isSet) this.contextExport = null;
    if (this.form === REPLY_FORM.SIMPLE) {
      this.refuse(option, NBD_REPLY_OPTION.ERR_INVALID, "structured replies come first");
      return;
    }
    if (query === null) {
      this.refuse(option, NBD_REPLY_OPTION.ERR_INVALID, "malformed query for metadata contexts");
      return;
    }
    const target = this.exports.find(this.bytes, query.nameStart, query.nameEnd);
    if (target === null) {
      this.refuse(option, NBD_REPLY_OPTION.ERR_UNKNOWN, "no such export");
      return;
    }
    // A list without queries, or of a whole namespace, names all there is; a selection is exact.
    const matches = query.hasAllocation || (!isSet && (query.count === 0 || query.hasBase));
    if (matches) {
      const writer = this.writer;
      writer.reply(option, NBD_REPLY_OPTION.META_CONTEXT, 4 + NBD_CONTEXT_ALLOCATION.length);
      writer.u32(isSet ? ALLOCATION_CONTEXT_ID : 0);
      writer.ascii(NBD_CONTEXT_ALLOCATION);
      if (isSet) this.contextExport = target;
    }
    this.writer.reply(option, NBD_REPLY_OPTION.ACK, 0);
  }
}

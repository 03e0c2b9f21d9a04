// SPDX-License-Identifier: MIT
// INFO_REQ and INFO_RSP of one attempt to connect a path (facts page, section 5).

import { FarpageError, type MemorySource } from "../../base/index.js";
import { ACCESS, type ProtectionDomain, SendWorkRequest, WR_OPCODE } from "../../verbs/index.js";
import {
  decodeRtrsInfoResponse,
  RTRS_INFO_REQUEST_BYTES,
  type RtrsConnectReply,
  rtrsInfoResponseBytes,
  writeRtrsInfoRequest,
} from "../../wire/index.js";
import type { Connection } from "../connection.js";
import { Slab } from "../slab.js";
import { ChunkTable } from "./chunk-table.js";

/** See the head of the file. Owns the memory of both messages until `free`. */
export class InfoExchange {
  private readonly slab: Slab;
  private readonly offer: RtrsConnectReply;

  /** @throws FarpageError ENOMEM. */
  constructor(memory: MemorySource, pd: ProtectionDomain, offer: RtrsConnectReply) {
    this.offer = offer;
    const bytes = RTRS_INFO_REQUEST_BYTES + rtrsInfoResponseBytes(offer.queueDepth);
    this.slab = new Slab(memory, pd, bytes, ACCESS.LOCAL_WRITE);
  }

  /**
   * Asks by the service connection, which gets a receive for the response.
   * @throws FarpageError ECONNRESET when it takes nothing.
   */
  ask(service: Connection, sessionName: string): void {
    const { memory, region } = this.slab;
    writeRtrsInfoRequest(memory.bytes, 0, sessionName);
    service.receiveAddress = memory.address + RTRS_INFO_REQUEST_BYTES;
    service.receiveBytes = rtrsInfoResponseBytes(this.offer.queueDepth);
    service.receiveKey = region.lkey;
    const request = new SendWorkRequest();
    request.opcode = WR_OPCODE.SEND;
    const sge = request.sges[0] as (typeof request.sges)[number];
    sge.address = memory.address;
    sge.length = RTRS_INFO_REQUEST_BYTES;
    sge.lkey = region.lkey;
    request.sgeCount = 1;
    if (!service.postReceive(0) || !service.post(request)) {
      throw new FarpageError("ECONNRESET", "the connection failed before the info exchange");
    }
  }

  /**
   * Reads the response.
   * @param length its bytes.
   * @throws FarpageError EPROTO when the server's chunks can't be what it says.
   */
  read(length: number): ChunkTable {
    const { offer } = this;
    const regions = decodeRtrsInfoResponse(this.slab.memory.view, RTRS_INFO_REQUEST_BYTES, length);
    if (typeof regions === "string") {
      throw new FarpageError("EPROTO", `the server's INFO_RSP is unusable: ${regions}`);
    }
    return new ChunkTable(regions, offer.queueDepth, offer.ioBytesMax + offer.headerBytesMax);
  }

  /** Preconditions: the queue pair of the service connection is gone. */
  free(): void {
    this.slab.free();
  }
}

// SPDX-License-Identifier: MIT
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  decodeRtrsConnectReply,
  decodeRtrsConnectRequest,
  decodeRtrsInfoRequest,
  decodeRtrsInfoResponse,
  encodeRtrsConnectReply,
  encodeRtrsConnectRequest,
  RTRS_INFO_REQUEST_BYTES,
  rtrsChunkShift,
  rtrsFitsImmediate,
  rtrsReplyErrno,
  rtrsReplyImmediate,
  rtrsReplyMessageId,
  rtrsRequestChunk,
  rtrsRequestImmediate,
  rtrsRequestOffset,
} from "./rtrs.js";

const u16 = fc.integer({ min: 0, max: 0xffff });
const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
const uuid = fc.uint8Array({ minLength: 16, maxLength: 16 });

describe("RTRS messages", () => {
  it("a connect request decodes to what was encoded", () => {
    const requests = fc
      .record({
        connectionCount: fc.integer({ min: 1, max: 4096 }),
        cid: fc.nat(),
        reconnectCount: u16,
        pathUuid: uuid,
        pathsUuid: uuid,
        firstConnection: fc.boolean(),
      })
      .map(({ cid, ...rest }) => ({ ...rest, connectionId: cid % rest.connectionCount }));
    fc.assert(
      fc.property(requests, (request) => {
        expect(decodeRtrsConnectRequest(encodeRtrsConnectRequest(request))).toEqual(request);
      }),
    );
  });

  it("a connect reply decodes to what was encoded", () => {
    const replies = fc.record({
      errno: fc.integer({ min: 0, max: 4095 }),
      queueDepth: u16,
      ioBytesMax: u32,
      headerBytesMax: u32,
      flags: u32,
    });
    fc.assert(
      fc.property(replies, (reply) => {
        expect(decodeRtrsConnectReply(encodeRtrsConnectReply(reply))).toEqual(reply);
      }),
    );
  });

  it("any chunk and offset that fit come back out of the immediate", () => {
    const depths = fc.integer({ min: 1, max: 65_535 });
    fc.assert(
      fc.property(depths, fc.nat(), fc.nat(), (queueDepth, chunkDraw, offsetDraw) => {
        const shift = rtrsChunkShift(queueDepth);
        const chunk = chunkDraw % queueDepth;
        const offset = offsetDraw % 2 ** shift;
        expect(rtrsFitsImmediate(queueDepth, 2 ** shift)).toBe(true);
        const immediate = rtrsRequestImmediate(chunk, offset, shift);
        expect(immediate >>> 28).toBe(0);
        expect(rtrsRequestChunk(immediate, shift)).toBe(chunk);
        expect(rtrsRequestOffset(immediate, shift)).toBe(offset);
      }),
    );
  });

  it("any errno and message id come back out of a reply's immediate", () => {
    const ids = fc.integer({ min: 0, max: 2 ** 19 - 1 });
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 511 }), ids, (errno, id) => {
        const immediate = rtrsReplyImmediate(1, errno, id);
        expect(rtrsReplyErrno(immediate)).toBe(errno);
        expect(rtrsReplyMessageId(immediate)).toBe(id);
      }),
    );
  });

  it("whatever arrives, decoding gives a message or a reason and never throws", () => {
    const bytes = fc.uint8Array({ minLength: 0, maxLength: 600 });
    const starts = fc.constantFrom(
      [],
      [0, 0],
      [1, 0],
      [0, 0, 0xbd, 0x1b, 0, 2],
      [0xbd, 0x1b, 0, 2],
    );
    fc.assert(
      fc.property(starts, bytes, (start, rest) => {
        const all = Uint8Array.from([...start, ...rest]);
        const view = new DataView(all.buffer);
        const room = new Uint8Array(RTRS_INFO_REQUEST_BYTES);
        room.set(all.subarray(0, room.length));
        for (const result of [
          decodeRtrsConnectRequest(all),
          decodeRtrsConnectReply(all),
          decodeRtrsInfoResponse(view, 0, all.length),
          decodeRtrsInfoRequest(room, 0, all.length),
        ]) {
          expect(["string", "object"]).toContain(typeof result);
        }
      }),
    );
  });
});

// SPDX-License-Identifier: MIT
// A client over a session without RDMA, and a server that answers exactly what the test says. Call
// `makeClient` before each test; the rest works on what it has made.

import { expect } from "vitest";
import { loopEnvironment, RtrsLoop } from "../../test/support/rtrs-loop.js";
import { HeapMemorySource, IpAddress } from "../base/index.js";
import { type BlockOperation, BlockRequest, type BlockRequestOwner } from "../block/index.js";
import type { RtrsServerUser, ServerRequest, ServerSession } from "../rtrs/index.js";
import {
  RNBD_ACCESS,
  RNBD_OP,
  RNBD_TYPE,
  type RnbdOpenResponse,
  rnbdDeviceId,
  rnbdIoBytes,
  rnbdIoFlags,
  rnbdIoOperation,
  rnbdIoSectorLow,
  rnbdOpenName,
  rnbdType,
  writeRnbdOpenResponse,
  writeRnbdSessInfoResponse,
} from "../wire/index.js";
import type { RnbdClientOptions } from "./client-options.js";
import { RnbdClient } from "./rnbd-client.js";
import type { RnbdDevice } from "./rnbd-device.js";

const MAX_IO = 8192;
export const SECOND = 1e9;
export const memory = new HeapMemorySource().allocate(1 << 20);

/** Answers SESS_INFO, OPEN and CLOSE as told, and keeps IO until told. */
export class ScriptedServer implements RtrsServerUser {
  /** Of everything that came: "SESS_INFO", "OPEN name", "CLOSE id", "READ@id sector+bytes". */
  readonly log: string[] = [];
  readonly ios: ServerRequest[] = [];
  openErrno = 0;
  nextId = 0;
  response: Partial<RnbdOpenResponse> = {};
  holdsOpens = false;
  readonly opens: ServerRequest[] = [];

  onSessionUp(_session: ServerSession): void {
    this.log.push("up");
  }

  onSessionDown(_session: ServerSession): void {
    this.log.push("down");
  }

  onRequest(request: ServerRequest): void {
    const view = request.userView;
    const type = rnbdType(view, 0);
    if (type === RNBD_TYPE.SESS_INFO) {
      this.log.push("SESS_INFO");
      writeRnbdSessInfoResponse(request.memory.view, request.memoryOffset, 2);
      request.complete(0);
    } else if (type === RNBD_TYPE.OPEN) {
      this.log.push(`OPEN ${rnbdOpenName(request.userMessage, 0)}`);
      if (this.holdsOpens) this.opens.push(request);
      else this.answerOpen(request);
    } else if (type === RNBD_TYPE.CLOSE) {
      this.log.push(`CLOSE ${rnbdDeviceId(view, 0)}`);
      request.complete(0);
    } else {
      this.log.push(describeIo(request));
      this.ios.push(request);
    }
  }

  answerOpen(request: ServerRequest): void {
    const response: RnbdOpenResponse = {
      deviceId: this.nextId++,
      sectorCount: 2048,
      hardwareSectorsMax: 255,
      writeZeroesSectorsMax: 128,
      discardSectorsMax: 128,
      discardGranularityBytes: 512,
      discardAlignmentBytes: 0,
      physicalBlockBytes: 4096,
      logicalBlockBytes: 512,
      segmentsMax: 128,
      secureDiscard: 0,
      rotational: false,
      cachePolicy: 3,
      epochHigh: 0,
      epochLow: 0,
      ...this.response,
    };
    writeRnbdOpenResponse(request.memory.view, request.memoryOffset, response);
    request.complete(this.openErrno);
  }

  /** Answers the oldest IO. */
  answer(errno = 0): void {
    (this.ios.shift() as ServerRequest).complete(errno);
  }

  answerAll(): void {
    for (const request of this.ios.splice(0)) request.complete(0);
  }

  /** What has come since the last call. */
  take(): string[] {
    return this.log.splice(0);
  }
}

function describeIo(request: ServerRequest): string {
  const view = request.userView;
  const operation = rnbdIoOperation(view, 0);
  const name = Object.entries(RNBD_OP).find(([, value]) => value === operation)?.[0];
  const flags = rnbdIoFlags(view, 0).toString(16);
  const where = `${rnbdIoSectorLow(view, 0)}+${rnbdIoBytes(view, 0)}`;
  const what = `${name}.${flags}@${rnbdDeviceId(view, 0)}`;
  return operation === RNBD_OP.FLUSH ? what : `${what} ${where}`;
}

class Owner implements BlockRequestOwner {
  readonly done: BlockRequest[] = [];

  onBlockComplete(request: BlockRequest): void {
    this.done.push(request);
  }
}

const path = { source: IpAddress.parse("192.0.2.1"), destination: IpAddress.parse("192.0.2.2") };

export let server: ScriptedServer;
export let loop: RtrsLoop;
export let client: RnbdClient;
export let owner: Owner;
export let nowNs: number;
let tag: number;

export function makeClient(options: Partial<RnbdClientOptions> = {}, queueDepth = 5): void {
  nowNs = 0;
  tag = 0;
  owner = new Owner();
  server = new ScriptedServer();
  const all = { sessionName: "blue", paths: [path], ...options };
  client = new RnbdClient(loopEnvironment(), all, (user) => {
    loop = new RtrsLoop(user, { queueDepth, maxIoBytes: MAX_IO, random: null });
    return loop;
  });
  loop.server = server;
  client.registerMemory(memory);
  client.connect();
  loop.allow();
}

/** Time passes. */
export function setNow(ns: number): void {
  nowNs = ns;
}

/** Pumps until nothing is due. */
export function pump(): void {
  let turns = 0;
  do {
    client.pump(nowNs);
    client.checkInvariants();
    expect(++turns).toBeLessThan(100);
  } while (client.deadlineNs() <= nowNs);
}

export function open(name = "vol1", access: 0 | 1 | 2 = RNBD_ACCESS.RW): RnbdDevice {
  let opened: RnbdDevice | null = null;
  client.open(name, access, (error, device) => {
    if (error !== null) throw error;
    opened = device;
  });
  pump();
  expect(opened).not.toBeNull();
  server.take();
  return opened as unknown as RnbdDevice;
}

/** The code that an open fails with. */
export function openCode(name = "vol1"): string {
  let code = "none";
  client.open(name, RNBD_ACCESS.RW, (error, device) => {
    expect(device).toBeNull();
    code = error?.code ?? "no error";
  });
  pump();
  return code;
}

/** A request with the next tag, from 0. */
export function newRequest(): BlockRequest {
  return new BlockRequest(owner, tag++);
}

export function submit(
  device: RnbdDevice,
  operation: BlockOperation,
  sector = 0,
  sectors = 0,
  flags = 0,
): BlockRequest {
  const request = newRequest();
  request.operation = operation;
  request.offset = sector * 512;
  request.length = sectors * 512;
  request.flags = flags;
  request.memory = memory;
  device.submit(request);
  return request;
}

/** What came back since the last call, "tag:errno". */
export function taken(): string[] {
  pump();
  return owner.done.splice(0).map((request) => `${request.tag}:${request.errno}`);
}

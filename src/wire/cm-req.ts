// SPDX-License-Identifier: MIT
// CM REQ, request for communication (IBTA vol1 §12.6.5; RoCEv2 facts §18). The longest message: who
// asks, for which service, with what queue pair and over which path.

import { IpAddress } from "../base/index.js";
import { clearMessage, hasMessage, readBytes, readU24, writeBytes, writeU24 } from "./cm-fields.js";

export const CM_REQ_PRIVATE_BYTES = 92;

/** `CmReq.transportType`. */
export const CM_TRANSPORT = { RC: 0, UC: 1, RD: 2, XRC: 3 } as const;

/** A path between two ports, seen from the sender of the REQ. */
export interface CmPath {
  /** LIDs: 0xFFFF on Ethernet; 0 in an absent alternate path. */
  localLid: number;
  remoteLid: number;
  localGid: IpAddress;
  remoteGid: IpAddress;
  /** 20 bits. */
  flowLabel: number;
  /** 6 bits; 0 is the port's own rate. */
  packetRate: number;
  trafficClass: number;
  hopLimit: number;
  /** 4 bits. */
  serviceLevel: number;
  subnetLocal: boolean;
  /** Local ACK timeout, 5 bits: 4.096 us * 2^value. */
  ackTimeout: number;
}

export interface CmReq {
  kind: "REQ";
  /** The sender's id of the connection, 32 opaque bits. */
  localCommId: number;
  /** 24 bits, of the vendor's ECE options. */
  vendorId: number;
  /** 64 bits in halves; see rdma-cm-header.ts for what RDMA CM puts there. */
  serviceIdHigh: number;
  serviceIdLow: number;
  caGuidHigh: number;
  caGuidLow: number;
  qkey: number;
  /** The sender's queue pair, 24 bits. */
  qpn: number;
  /** READs and atomics that the sender can serve at once, 8 bits. */
  responderResources: number;
  localEecn: number;
  /** READs and atomics that the sender wants to have outstanding, 8 bits. */
  initiatorDepth: number;
  remoteEecn: number;
  /** 5 bits: how long the receiver may take to answer, 4.096 us * 2^value. */
  remoteResponseTimeout: number;
  /** `CM_TRANSPORT`, 2 bits. */
  transportType: number;
  flowControl: boolean;
  /** First PSN that the *receiver* of the REQ shall send with, 24 bits. */
  startingPsn: number;
  /** 5 bits: how long the sender may take to answer. */
  localResponseTimeout: number;
  /** 3 bits. */
  retryCount: number;
  pkey: number;
  /** Path MTU code, 4 bits (mtu.ts); a hostile peer may send 0 .. 15. */
  mtuCode: number;
  rdcExists: boolean;
  /** 3 bits. */
  rnrRetryCount: number;
  /** 4 bits. */
  maxCmRetries: number;
  srq: boolean;
  /** 3 bits. */
  extendedTransportType: number;
  primary: CmPath;
  /** All zero when there is none. */
  alternate: CmPath;
  /** Always `CM_REQ_PRIVATE_BYTES` after decoding; may be shorter for encoding. */
  privateData: Uint8Array;
}

const PRIMARY_AT = 52;
const ALTERNATE_AT = 96;
const PRIVATE_AT = 140;

/** An absent alternate path. */
export function noPath(): CmPath {
  const gid = new IpAddress(0, 0, 0, 0);
  return {
    localLid: 0,
    remoteLid: 0,
    localGid: gid,
    remoteGid: gid,
    flowLabel: 0,
    packetRate: 0,
    trafficClass: 0,
    hopLimit: 0,
    serviceLevel: 0,
    subnetLocal: false,
    ackTimeout: 0,
  };
}

function decodePath(view: DataView, offset: number): CmPath {
  const flow = view.getUint32(offset + 36);
  const levels = view.getUint8(offset + 42);
  return {
    localLid: view.getUint16(offset),
    remoteLid: view.getUint16(offset + 2),
    localGid: IpAddress.fromGid(view, offset + 4),
    remoteGid: IpAddress.fromGid(view, offset + 20),
    flowLabel: flow >>> 12,
    packetRate: flow & 63,
    trafficClass: view.getUint8(offset + 40),
    hopLimit: view.getUint8(offset + 41),
    serviceLevel: levels >>> 4,
    subnetLocal: (levels & 8) !== 0,
    ackTimeout: view.getUint8(offset + 43) >>> 3,
  };
}

function encodePath(view: DataView, offset: number, path: Readonly<CmPath>): void {
  view.setUint16(offset, path.localLid);
  view.setUint16(offset + 2, path.remoteLid);
  path.localGid.writeGid(view, offset + 4);
  path.remoteGid.writeGid(view, offset + 20);
  view.setInt32(offset + 36, (path.flowLabel << 12) | path.packetRate);
  view.setUint8(offset + 40, path.trafficClass);
  view.setUint8(offset + 41, path.hopLimit);
  view.setUint8(offset + 42, (path.serviceLevel << 4) | (path.subnetLocal ? 8 : 0));
  view.setUint8(offset + 43, path.ackTimeout << 3);
}

/** The REQ at `offset` (MAD byte 24), copied out; null when it is not all there. */
export function decodeReq(view: DataView, offset: number): CmReq | null {
  if (!hasMessage(view, offset)) return null;
  const response = view.getUint8(offset + 43);
  const retry = view.getUint8(offset + 47);
  const mtu = view.getUint8(offset + 50);
  const cmRetries = view.getUint8(offset + 51);
  return {
    kind: "REQ",
    localCommId: view.getUint32(offset),
    vendorId: readU24(view, offset + 5),
    serviceIdHigh: view.getUint32(offset + 8),
    serviceIdLow: view.getUint32(offset + 12),
    caGuidHigh: view.getUint32(offset + 16),
    caGuidLow: view.getUint32(offset + 20),
    qkey: view.getUint32(offset + 28),
    qpn: readU24(view, offset + 32),
    responderResources: view.getUint8(offset + 35),
    localEecn: readU24(view, offset + 36),
    initiatorDepth: view.getUint8(offset + 39),
    remoteEecn: readU24(view, offset + 40),
    remoteResponseTimeout: response >>> 3,
    transportType: (response >>> 1) & 3,
    flowControl: (response & 1) !== 0,
    startingPsn: readU24(view, offset + 44),
    localResponseTimeout: retry >>> 3,
    retryCount: retry & 7,
    pkey: view.getUint16(offset + 48),
    mtuCode: mtu >>> 4,
    rdcExists: (mtu & 8) !== 0,
    rnrRetryCount: mtu & 7,
    maxCmRetries: cmRetries >>> 4,
    srq: (cmRetries & 8) !== 0,
    extendedTransportType: cmRetries & 7,
    primary: decodePath(view, offset + PRIMARY_AT),
    alternate: decodePath(view, offset + ALTERNATE_AT),
    privateData: readBytes(view, offset + PRIVATE_AT, CM_REQ_PRIVATE_BYTES),
  };
}

/** Writes the whole message, reserved bits as 0. Preconditions: each field fits its bits. */
export function encodeReq(view: DataView, offset: number, req: Readonly<CmReq>): void {
  clearMessage(view, offset);
  view.setUint32(offset, req.localCommId);
  view.setUint32(offset + 4, req.vendorId);
  view.setUint32(offset + 8, req.serviceIdHigh);
  view.setUint32(offset + 12, req.serviceIdLow);
  view.setUint32(offset + 16, req.caGuidHigh);
  view.setUint32(offset + 20, req.caGuidLow);
  view.setUint32(offset + 28, req.qkey);
  writeU24(view, offset + 32, req.qpn, req.responderResources);
  writeU24(view, offset + 36, req.localEecn, req.initiatorDepth);
  const flowControl = req.flowControl ? 1 : 0;
  const response = (req.remoteResponseTimeout << 3) | (req.transportType << 1) | flowControl;
  writeU24(view, offset + 40, req.remoteEecn, response);
  const retry = (req.localResponseTimeout << 3) | req.retryCount;
  writeU24(view, offset + 44, req.startingPsn, retry);
  view.setUint16(offset + 48, req.pkey);
  view.setUint8(offset + 50, (req.mtuCode << 4) | (req.rdcExists ? 8 : 0) | req.rnrRetryCount);
  const srq = req.srq ? 8 : 0;
  view.setUint8(offset + 51, (req.maxCmRetries << 4) | srq | req.extendedTransportType);
  encodePath(view, offset + PRIMARY_AT, req.primary);
  encodePath(view, offset + ALTERNATE_AT, req.alternate);
  writeBytes(view, offset + PRIVATE_AT, CM_REQ_PRIVATE_BYTES, req.privateData);
}

// SPDX-License-Identifier: MIT
// The messages that we send, with the fields as Linux fills them where it matters (rocev2 facts
// section 18), and their bounds.

import { assert, FarpageError } from "../base/index.js";
import {
  CM_TRANSPORT,
  type CmMessage,
  type CmRej,
  type CmReq,
  codeOfMtu,
  encodeCmMad,
  encodeRdmaCmHeader,
  noPath,
  PKEY_DEFAULT,
  PORT_SPACE,
  RDMA_CM_HEADER_BYTES,
  REJ_MESSAGE,
  REJ_REASON,
  SERVICE_ID_HIGH,
  SIDR_STATUS,
  type SidrRep,
  type SidrReq,
  serviceIdLowOf,
} from "../wire/index.js";
import type { Connection } from "./connection.js";
import type { PortSpace } from "./event.js";
import { MAD_BYTES } from "./mad-port.js";
import type { CmTuning } from "./options.js";

/** LIDs mean nothing on Ethernet; Linux sends this. */
const NO_LID = 0xffff;
const HOP_LIMIT = 64;
const NO_DATA = new Uint8Array(0);

/** The 256 bytes of a MAD. */
export function encodeMad(
  message: CmMessage,
  transactionHigh: number,
  transactionLow: number,
): Uint8Array {
  const bytes = new Uint8Array(MAD_BYTES);
  encodeCmMad(new DataView(bytes.buffer), 0, {
    transactionHigh,
    transactionLow,
    attributeModifier: 0,
    message,
  });
  return bytes;
}

/** The port space and port that a service id means, or null when it is not one of RDMA CM's two. */
export function parseServiceId(
  high: number,
  low: number,
): { readonly portSpace: PortSpace; readonly port: number } | null {
  if (high !== SERVICE_ID_HIGH) return null;
  const port = low & 0xffff;
  if (low >>> 16 === PORT_SPACE.TCP) return { portSpace: "TCP", port };
  if (low >>> 16 === PORT_SPACE.UDP) return { portSpace: "UDP", port };
  return null;
}

/**
 * Private data within its field.
 * @throws FarpageError EINVAL when there is more than `capacity` bytes of it.
 */
export function checkPrivateData(data: Uint8Array | undefined, capacity: number): Uint8Array {
  if (data === undefined) return NO_DATA;
  if (data.length > capacity) {
    throw new FarpageError(
      "EINVAL",
      `private data of ${data.length} bytes: this message carries at most ${capacity}`,
    );
  }
  return data;
}

/** RDMA CM's header with the consumer's bytes behind it. */
function withHeader(connection: Connection, ports: Ports, data: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(RDMA_CM_HEADER_BYTES + data.length);
  encodeRdmaCmHeader(new DataView(bytes.buffer), 0, {
    sourcePort: ports.localPort,
    source: connection.localAddress,
    destination: connection.remoteAddress,
  });
  bytes.set(data, RDMA_CM_HEADER_BYTES);
  return bytes;
}

/** RDMA CM's ports of an exchange that we start. */
export interface Ports {
  readonly localPort: number;
  readonly remotePort: number;
}

/** What the user chose for a REQ, every bound checked. */
export interface ReqChoices extends Ports {
  readonly privateData: Uint8Array;
  readonly rnrRetryCount: number;
  readonly flowControl: boolean;
  readonly srq: boolean;
  /** Coded local ACK timeout of the path. */
  readonly ackTimeout: number;
}

/** Our REQ, from the agreement that we propose. */
export function reqOf(connection: Connection, choices: ReqChoices, tuning: CmTuning): CmReq {
  const { agreement } = connection;
  return {
    kind: "REQ",
    localCommId: connection.localCommId,
    vendorId: 0,
    serviceIdHigh: SERVICE_ID_HIGH,
    serviceIdLow: serviceIdLowOf(PORT_SPACE.TCP, choices.remotePort),
    caGuidHigh: tuning.caGuid.high,
    caGuidLow: tuning.caGuid.low,
    qkey: 0,
    qpn: connection.localQpn,
    responderResources: agreement.responderResources,
    localEecn: 0,
    initiatorDepth: agreement.initiatorDepth,
    remoteEecn: 0,
    remoteResponseTimeout: tuning.remoteResponseTimeout,
    transportType: CM_TRANSPORT.RC,
    flowControl: choices.flowControl,
    startingPsn: agreement.receivePsn,
    localResponseTimeout: tuning.localResponseTimeout,
    retryCount: agreement.retryCount,
    pkey: PKEY_DEFAULT,
    mtuCode: codeOfMtu(agreement.pathMtu),
    rdcExists: false,
    rnrRetryCount: choices.rnrRetryCount,
    maxCmRetries: 15,
    srq: choices.srq,
    extendedTransportType: 0,
    primary: {
      localLid: NO_LID,
      remoteLid: NO_LID,
      localGid: connection.localAddress,
      remoteGid: connection.remoteAddress,
      flowLabel: (choices.localPort * 31 + choices.remotePort) & 0xf_ffff,
      packetRate: 0,
      trafficClass: connection.trafficClass,
      hopLimit: HOP_LIMIT,
      serviceLevel: 0,
      subnetLocal: false,
      ackTimeout: choices.ackTimeout,
    },
    alternate: noPath(),
    privateData: withHeader(connection, choices, choices.privateData),
  };
}

/** Our SIDR_REQ. */
export function sidrReqOf(connection: Connection, ports: Ports, data: Uint8Array): SidrReq {
  return {
    kind: "SIDR_REQ",
    requestId: connection.localCommId,
    pkey: PKEY_DEFAULT,
    serviceIdHigh: SERVICE_ID_HIGH,
    serviceIdLow: serviceIdLowOf(PORT_SPACE.UDP, ports.remotePort),
    privateData: withHeader(connection, ports, data),
  };
}

/** A SIDR_REP to `request`; `status` other than SUCCESS needs nothing else. */
export function sidrRepOf(
  request: Pick<SidrReq, "requestId" | "serviceIdHigh" | "serviceIdLow">,
  status: number,
  success: { readonly qpn: number; readonly qkey: number; readonly data: Uint8Array } | null,
): SidrRep {
  assert((status === SIDR_STATUS.SUCCESS) === (success !== null), "success has a queue pair");
  return {
    kind: "SIDR_REP",
    requestId: request.requestId,
    status,
    informationLength: 0,
    vendorId: 0,
    qpn: success?.qpn ?? 0,
    serviceIdHigh: request.serviceIdHigh,
    serviceIdLow: request.serviceIdLow,
    qkey: success?.qkey ?? 0,
    information: NO_DATA,
    privateData: success?.data ?? NO_DATA,
  };
}

/**
 * A REJ of a message with the sender's comm id `remoteCommId`, to be answered without a connection.
 */
export function rejOf(
  remoteCommId: number,
  rejected: number,
  reason: number,
  information: Uint8Array = NO_DATA,
): CmRej {
  return {
    kind: "REJ",
    localCommId: 0,
    remoteCommId,
    rejected,
    reason,
    informationLength: information.length,
    information,
    privateData: NO_DATA,
  };
}

/** A REJ on behalf of a connection, of the kind of message that its peer waits with. */
export function rejOfConnection(
  connection: Connection,
  rejected: number,
  reason: number,
  privateData: Uint8Array,
  tuning: CmTuning,
): CmRej {
  // Linux puts 0 when it refuses a REQ: it has given no comm id away yet.
  const localCommId = rejected === REJ_MESSAGE.REQ ? 0 : connection.localCommId;
  const information = reason === REJ_REASON.TIMEOUT ? guidBytes(tuning) : NO_DATA;
  return {
    kind: "REJ",
    localCommId,
    remoteCommId: connection.remoteCommId,
    rejected,
    reason,
    informationLength: information.length,
    information,
    privateData,
  };
}

/** Our CA GUID as additional information: by it the peer finds the connection that timed out. */
function guidBytes(tuning: CmTuning): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, tuning.caGuid.high);
  view.setUint32(4, tuning.caGuid.low);
  return bytes;
}

// SPDX-License-Identifier: MIT
// RoCEv2 (one line of names per file; RTRS, RNBD and NBD follow below).
export {
  AETH_BYTES,
  AETH_KIND,
  type AethKind,
  aethMsn,
  aethSyndrome,
  creditCount,
  rnrTimerCode,
  rnrTimerNs,
  SYNDROME,
  syndromeKind,
  syndromeValue,
  writeAeth,
} from "./aeth.js";
export {
  ATOMIC_ACK_ETH_BYTES,
  atomicAckEthOriginalHigh,
  atomicAckEthOriginalLow,
  writeAtomicAckEth,
} from "./atomic-ack-eth.js";
export {
  ATOMIC_ETH_BYTES,
  atomicEthAddressHigh,
  atomicEthAddressLow,
  atomicEthCompareHigh,
  atomicEthCompareLow,
  atomicEthKey,
  atomicEthSwapAddHigh,
  atomicEthSwapAddLow,
  writeAtomicEth,
} from "./atomic-eth.js";
export {
  BTH_BYTES,
  bthAckRequest,
  bthCongestion,
  bthDestinationQpn,
  bthMigration,
  bthOpcode,
  bthPadCount,
  bthPkey,
  bthPsn,
  bthSolicited,
  bthVersion,
  PKEY_DEFAULT,
  pkeyMatches,
  QPN_GSI,
  QPN_MULTICAST,
  setBthCongestion,
  setBthMigration,
  setBthVersion,
  writeBth,
} from "./bth.js";
export {
  DETH_BYTES,
  dethQkey,
  dethSourceQpn,
  QKEY_GSI,
  QKEY_RDMA_CM,
  writeDeth,
} from "./deth.js";
export { ICRC_RESULT, IcrcEngine, IcrcFlow, type IcrcResult } from "./icrc.js";
export { ICRC_SOLVABLE_BYTES_MAX } from "./icrc-solver.js";
export { IETH_BYTES, iethKey, writeIeth } from "./ieth.js";
export { IMM_DT_BYTES, immediateOf, writeImmediate } from "./imm-dt.js";
export {
  CNP_OPCODE,
  OPCODE_FLAG,
  OPCODE_FLAGS,
  OPCODE_HEADER_BYTES,
  opcodeTransport,
  RC,
  type RcOpcode,
  TRANSPORT,
  UC,
  type UcOpcode,
  UD,
  type UdOpcode,
} from "./opcode.js";
export {
  checkPacket,
  ICRC_BYTES,
  PACKET_BYTES_MIN,
  PACKET_FAULT,
  PACKET_HEADER_BYTES_MAX,
  type PacketFault,
  padCountOf,
  payloadLength,
  payloadOffset,
  ROCE_PORT,
} from "./packet.js";
export {
  RETH_BYTES,
  rethAddressHigh,
  rethAddressLow,
  rethKey,
  rethLength,
  writeReth,
} from "./reth.js";

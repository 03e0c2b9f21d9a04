// SPDX-License-Identifier: MIT
export { BlockWalker } from "./block-walker.js";
export { ByteRing } from "./byte-ring.js";
export { headerBytesOf, writeSentHeaders } from "./datagram.js";
export { PacketFilter } from "./filter.js";
export {
  PacketTrace,
  type PacketTraceOptions,
  TRACE_RING_BYTES_DEFAULT,
  TRACE_RING_BYTES_MIN,
} from "./packet-trace.js";
export {
  INTERFACE_BYTES_MAX,
  PACKET_FLAG,
  PACKET_OVERHEAD_BYTES_MAX,
  packetDataAt,
  SECTION_BYTES_MAX,
  Timestamp,
  writeInterface,
  writePacket,
  writeSectionHeader,
} from "./pcapng.js";
export { type LinkTap, TapLink } from "./tap-link.js";

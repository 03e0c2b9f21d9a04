// SPDX-License-Identifier: MIT
// Checks of RoCE packets on the simulated wire.

import type { IpAddress } from "../../src/base/index.js";
import { createCrc32 } from "../../src/os/index.js";
import type { CorruptionFilter, PacketObserver } from "../../src/sim/index.js";
import { ICRC_RESULT, IcrcEngine, IcrcFlow, ROCE_PORT } from "../../src/wire/index.js";

const PACKET_BYTES_MIN = 16;
/** FECN, BECN and reserved bits: not covered by the ICRC. */
const UNCOVERED_BYTE = 4;

interface KnownFlow {
  readonly source: IpAddress;
  readonly sourcePort: number;
  readonly destination: IpAddress;
  readonly flow: IcrcFlow;
}

/** Flows by their ends; one ICRC register each. A list: a world has few, and is asked often. */
class Flows {
  private readonly known: KnownFlow[] = [];

  between(source: IpAddress, sourcePort: number, destination: IpAddress): IcrcFlow {
    for (const entry of this.known) {
      if (entry.sourcePort !== sourcePort || !entry.source.equals(source)) continue;
      if (entry.destination.equals(destination)) return entry.flow;
    }
    const flow = IcrcFlow.between(source, sourcePort, destination, ROCE_PORT);
    this.known.push({ source, sourcePort, destination, flow });
    return flow;
  }
}

/**
 * Fails when a packet leaves with an ICRC that is wrong for the IP identification that an
 * unconnected socket with DO puts there: its index in its GSO send (rocev2 facts, section 7.1).
 */
export function icrcObserver(): PacketObserver {
  const engine = new IcrcEngine(createCrc32());
  const flows = new Flows();
  return (link, flow, bytes, offset, length, segmentIndex) => {
    const source = link.addresses[flow.port] as IpAddress;
    const icrcFlow = flows.between(source, link.sourcePort, flow.destination);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (!engine.checkExact(icrcFlow, bytes, view, offset, length, segmentIndex)) {
      throw new Error(`packet of ${length} bytes, segment ${segmentIndex}: wrong ICRC`);
    }
  };
}

/**
 * Refuses the corruptions that no receiver could notice: on IPv4 one in 2^16 looks like another IP
 * identification (rocev2 facts, section 7.3).
 */
export function detectableCorruption(): CorruptionFilter {
  const engine = new IcrcEngine(createCrc32());
  const flows = new Flows();
  return (source, sourcePort, destination, original, corrupted, length) => {
    if (length < PACKET_BYTES_MIN) return true;
    const flow = flows.between(source, sourcePort, destination);
    const view = new DataView(corrupted.buffer, corrupted.byteOffset, corrupted.byteLength);
    if (engine.check(flow, corrupted, view, 0, length, 0) === ICRC_RESULT.BAD) return true;
    if (length !== original.length) return false;
    return original.every((byte, i) => i === UNCOVERED_BYTE || byte === corrupted[i]);
  };
}

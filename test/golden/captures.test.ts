// SPDX-License-Identifier: MIT
// Every packet that was captured between Linux machines, through every decoder and encoder of
// wire/.

import { describe, expect, it } from "vitest";
import {
  bthAckRequest,
  bthDestinationQpn,
  bthMigration,
  bthOpcode,
  bthPadCount,
  bthPkey,
  bthPsn,
  bthSolicited,
  bthVersion,
  checkPacket,
  decodeCmMad,
  ICRC_RESULT,
  IcrcEngine,
  IcrcFlow,
  MAD_BYTES,
  OPCODE_HEADER_BYTES,
  PACKET_FAULT,
  payloadLength,
  writeIpv4Header,
  writeIpv6Header,
  writeUdpHeader,
} from "../../src/wire/index.js";
import { CAPTURE_ROWS, type CaptureRow, readCapture } from "./captures.js";
import { extendedText, hex } from "./packet-text.js";
import type { UdpDatagram } from "./pcap.js";
import { reEncode } from "./re-encode.js";

const engine = new IcrcEngine();
const files = [...CAPTURE_ROWS.keys()];

/** The packet of a datagram as a buffer of its own, and the flow that its ICRC covers. */
function open(datagram: UdpDatagram) {
  const bytes = datagram.packet.slice(datagram.payloadOffset);
  const { source, sourcePort, destination } = datagram;
  const flow = IcrcFlow.between(source, sourcePort, destination, datagram.destinationPort);
  return { bytes, view: new DataView(bytes.buffer), flow, length: bytes.length };
}

/**
 * The row that farpage's decoders make of a datagram; what only the file knows is taken from `row`.
 */
function decodedRow(datagram: UdpDatagram, firstUs: number, row: CaptureRow): CaptureRow {
  const { bytes, view, flow, length } = open(datagram);
  const v4 = datagram.source.family === 4;
  const id = datagram.identificationOrFlow;
  // packets.tsv went through floating-point seconds and is a microsecond early at times.
  const sinceUs = datagram.timestampUs - firstUs;
  // The one opcode that nobody has defined has a BTH and nothing else.
  const known = OPCODE_HEADER_BYTES[bthOpcode(view, 0)] !== 0;
  return {
    file: row["file"] as string,
    n: row["n"] as string,
    t_us: Math.abs(sinceUs - Number(row["t_us"])) <= 1 ? (row["t_us"] as string) : String(sinceUs),
    src: datagram.source.toString(),
    dst: datagram.destination.toString(),
    sport: String(datagram.sourcePort),
    ip_id_or_flow: hex(id, v4 ? 4 : 5),
    tos: hex(datagram.trafficClass, 2),
    ttl: String(datagram.hopLimit),
    udp_csum: hex(datagram.udpChecksum, 4),
    bth_opcode: hex(bthOpcode(view, 0), 2),
    se: bthSolicited(view, 0) ? "1" : "0",
    m: String(bthMigration(view, 0)),
    pad: String(bthPadCount(view, 0)),
    pkey: hex(bthPkey(view, 0), 4),
    dqpn: hex(bthDestinationQpn(view, 0), 6),
    ackreq: bthAckRequest(view, 0) ? "1" : "0",
    psn: hex(bthPsn(view, 0), 6),
    ext: extendedText(view, 0),
    payload_len: String(known ? payloadLength(view, 0, length) : length - 16),
    icrc: hex(view.getUint32(length - 4, true), 8),
    icrc_ok: engine.checkExact(flow, bytes, view, 0, length, id) ? "1" : "0",
  };
}

/** The same datagram from the IP header on, every field put there by farpage's encoders. */
function encoded(datagram: UdpDatagram): Uint8Array {
  const { flow } = open(datagram);
  const payload = reEncode(datagram.packet.slice(datagram.payloadOffset));
  const id = datagram.identificationOrFlow;
  engine.write(flow, payload, new DataView(payload.buffer), 0, payload.length, id);
  const copy = new Uint8Array(datagram.packet.length);
  const view = new DataView(copy.buffer);
  const { source, destination, trafficClass, payloadOffset } = datagram;
  const { word0, word1, word2, word3 } = source;
  const udpLength = payload.length + 8;
  if (source.family === 4) {
    writeIpv4Header(view, 0, word3, destination.word3, trafficClass, udpLength, id);
  } else {
    writeIpv6Header(view, 0, word0, word1, word2, word3, destination, trafficClass, udpLength);
  }
  const { sourcePort, destinationPort } = datagram;
  writeUdpHeader(view, payloadOffset - 8, sourcePort, destinationPort, payload.length);
  view.setUint16(payloadOffset - 2, datagram.udpChecksum);
  copy.set(payload, payloadOffset);
  return copy;
}

describe.each(files)("capture %s", (name) => {
  const rows = CAPTURE_ROWS.get(name) as readonly CaptureRow[];
  const datagrams = readCapture(name);
  const firstUs = datagrams[0]?.timestampUs as number;

  it("every packet: decoded → the fields of the independent decode", () => {
    expect(datagrams.map((d, i) => decodedRow(d, firstUs, rows[i] as CaptureRow))).toEqual(rows);
  });

  it("every packet: decoded and encoded again → the same bytes, ICRC included", () => {
    for (const [i, datagram] of datagrams.entries()) {
      const copy = encoded(datagram);
      const good = rows[i]?.["icrc_ok"] === "1";
      // Of a packet that was given a wrong ICRC on purpose, all but the ICRC comes back.
      const end = good ? copy.length : copy.length - 4;
      expect(copy.subarray(0, end), `packet ${i + 1}`).toEqual(datagram.packet.subarray(0, end));
    }
  });

  it("every packet: identification hidden → solved for, equal to the header's if right", () => {
    for (const [i, datagram] of datagrams.entries()) {
      const { bytes, view, flow, length } = open(datagram);
      const v4 = datagram.source.family === 4;
      const id = datagram.identificationOrFlow;
      // A guess that is surely wrong, so that the solver has to work.
      const result = engine.check(flow, bytes, view, 0, length, id ^ 0xa5a5);
      expect(result, `packet ${i + 1}`).toBe(v4 ? ICRC_RESULT.SOLVED : ICRC_RESULT.EXACT);
      if (!v4) continue;
      expect(flow.identification === id, `packet ${i + 1}`).toBe(rows[i]?.["icrc_ok"] === "1");
    }
  });
});

/** Counts of everything, from the captures' own description. */
describe("captures: all together", () => {
  const all = files.flatMap((name) =>
    readCapture(name).map((datagram, i) => ({
      row: CAPTURE_ROWS.get(name)?.[i] as CaptureRow,
      datagram,
      ...open(datagram),
    })),
  );

  it("72 files hold 1,378 packets, 1,287 of them IPv4; four ICRCs are wrong on purpose", () => {
    expect(files.length).toBe(72);
    expect(all.length).toBe(1378);
    expect(all.filter((p) => p.datagram.source.family === 4).length).toBe(1287);
    const bad = all.filter(
      (p) =>
        !engine.checkExact(p.flow, p.bytes, p.view, 0, p.length, p.datagram.identificationOrFlow),
    );
    expect(bad.map((p) => `${p.row["file"]} ${p.row["n"]}`)).toEqual(
      ["3", "4", "65", "66"].map((n) => `userspace-rc-vs-rxe ${n}`),
    );
  });

  it("checkPacket: no fault but the one unknown opcode and the one strange version", () => {
    const faults = all.map((p) => checkPacket(p.view, 0, p.length)).filter((fault) => fault !== 0);
    expect(faults.sort()).toEqual([PACKET_FAULT.VERSION, PACKET_FAULT.OPCODE]);
    expect(all.filter((p) => bthVersion(p.view, 0) !== 0).length).toBe(1);
  });

  it("every CM message is understood but the four whose MAD header is odd on purpose", () => {
    const counts: Record<string, number> = {};
    for (const p of all.filter((packet) => packet.row["ext"]?.includes("MAD"))) {
      const mad = decodeCmMad(p.view, 20, MAD_BYTES);
      const key = typeof mad === "string" ? mad : mad.message.kind;
      counts[key] = (counts[key] ?? 0) + 1;
    }
    expect(counts).toEqual({
      REQ: 60,
      MRA: 1,
      REJ: 38,
      REP: 35,
      RTU: 18,
      DREQ: 22,
      DREP: 19,
      SIDR_REQ: 4,
      SIDR_REP: 4,
      BASE_VERSION: 1,
      MANAGEMENT_CLASS: 1,
      CLASS_VERSION: 1,
      METHOD: 1,
    });
  });

  it("the long-payload routine: injected from 200 bytes on → the same results", () => {
    let calls = 0;
    const counting = new IcrcEngine((bytes, start, end, register) => {
      calls++;
      let r = register;
      for (let at = start; at < end; at++) {
        r ^= bytes[at] as number;
        for (let bit = 0; bit < 8; bit++) r = (r >>> 1) ^ ((r & 1) !== 0 ? 0xedb88320 : 0);
      }
      return r;
    });
    const sample = all.filter((_, i) => i % 7 === 0);
    for (const p of sample) {
      const id = p.datagram.identificationOrFlow;
      expect(counting.compute(p.flow, p.bytes, p.view, 0, p.length, id)).toBe(
        engine.compute(p.flow, p.bytes, p.view, 0, p.length, id),
      );
    }
    expect(calls).toBe(sample.filter((p) => p.length - 16 >= 200).length);
  });
});

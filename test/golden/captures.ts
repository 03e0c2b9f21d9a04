// SPDX-License-Identifier: MIT
// The captures of test/data/captures and the independent decode that came with them.

import { readFileSync } from "node:fs";
import { readPcap, type UdpDatagram, udpOf } from "./pcap.js";

const FOLDER = new URL("../data/captures/", import.meta.url);

/** One line of packets.tsv: column name to text. */
export type CaptureRow = Readonly<Record<string, string>>;

/** packets.tsv by capture, in packet order. */
export const CAPTURE_ROWS: ReadonlyMap<string, readonly CaptureRow[]> = readRows();

function readRows(): Map<string, CaptureRow[]> {
  const lines = readFileSync(new URL("packets.tsv", FOLDER), "utf8").trimEnd().split("\n");
  const columns = (lines[0] as string).split("\t");
  const rows = new Map<string, CaptureRow[]>();
  for (const line of lines.slice(1)) {
    const cells = line.split("\t");
    const row = Object.fromEntries(columns.map((column, i) => [column, cells[i] as string]));
    const name = row["file"] as string;
    rows.set(name, [...(rows.get(name) ?? []), row]);
  }
  return rows;
}

/** The RoCEv2 datagrams of a capture, in order. @param name file name without ".pcap". */
export function readCapture(name: string): UdpDatagram[] {
  const datagrams: UdpDatagram[] = [];
  for (const frame of readPcap(new URL(`${name}.pcap`, FOLDER))) {
    const datagram = udpOf(frame);
    if (datagram?.destinationPort === 4791) datagrams.push(datagram);
  }
  return datagrams;
}

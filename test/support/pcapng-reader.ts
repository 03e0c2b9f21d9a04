// SPDX-License-Identifier: MIT
// Reads pcapng for tests: written from the format's description alone, shares nothing with the
// writer, and refuses whatever the description does not allow.

/** An option of a block: code and value. */
export type Options = ReadonlyMap<number, DataView>;

export interface InterfaceBlock {
  readonly linkType: number;
  readonly snapBytes: number;
  readonly name: string;
  readonly options: Options;
}

export interface PacketBlock {
  readonly interfaceNumber: number;
  readonly timeNs: bigint;
  readonly originalLength: number;
  readonly bytes: Uint8Array;
  /** "in", "out" or "none". */
  readonly direction: string;
  readonly hasCrcError: boolean;
  readonly dropCount: number;
}

export interface StatisticsBlock {
  readonly interfaceNumber: number;
  readonly timeNs: bigint;
  readonly startNs: bigint;
  readonly endNs: bigint;
  readonly receivedCount: number;
  readonly droppedCount: number;
  readonly deliveredCount: number;
}

export interface Pcapng {
  readonly application: string;
  readonly interfaces: InterfaceBlock[];
  readonly packets: PacketBlock[];
  readonly statistics: StatisticsBlock[];
}

/** @throws Error saying what is wrong and where. */
export function readPcapng(bytes: Uint8Array): Pcapng {
  const whole = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const file: Pcapng = { application: "", interfaces: [], packets: [], statistics: [] };
  let application = "";
  for (let at = 0; at < bytes.length; ) {
    const type = whole.getUint32(at, true);
    const length = whole.getUint32(at + 4, true);
    if (length % 4 !== 0 || length < 12) throw new Error(`block at ${at}: length ${length}`);
    if (at + length > bytes.length) throw new Error(`block at ${at} is cut off`);
    const again = whole.getUint32(at + length - 4, true);
    if (again !== length) throw new Error(`block at ${at}: lengths ${length} and ${again}`);
    const body = new DataView(bytes.buffer, bytes.byteOffset + at + 8, length - 12);
    if (at === 0 && type !== 0x0a0d0d0a) throw new Error("no section header");
    if (type === 0x0a0d0d0a) application = readSection(body);
    else if (type === 1) file.interfaces.push(readInterface(body));
    else if (type === 6) file.packets.push(readPacket(body, file.interfaces.length));
    else if (type === 5) file.statistics.push(readStatistics(body));
    else throw new Error(`block at ${at}: type ${type}`);
    at += length;
  }
  return { ...file, application };
}

function readSection(body: DataView): string {
  if (body.getUint32(0, true) !== 0x1a2b3c4d) throw new Error("byte order");
  if (body.getUint16(4, true) !== 1) throw new Error("version");
  return text(readOptions(body, 16).get(4));
}

function readInterface(body: DataView): InterfaceBlock {
  const options = readOptions(body, 8);
  if (options.get(9)?.getUint8(0) !== 9) throw new Error("times are not in nanoseconds");
  return {
    linkType: body.getUint16(0, true),
    snapBytes: body.getUint32(4, true),
    name: text(options.get(2)),
    options,
  };
}

function readPacket(body: DataView, interfaceCount: number): PacketBlock {
  const interfaceNumber = body.getUint32(0, true);
  if (interfaceNumber >= interfaceCount) throw new Error(`no interface ${interfaceNumber}`);
  const length = body.getUint32(12, true);
  const options = readOptions(body, 20 + Math.ceil(length / 4) * 4);
  const flags = options.get(2)?.getUint32(0, true) ?? 0;
  return {
    interfaceNumber,
    timeNs: time(body, 4),
    originalLength: body.getUint32(16, true),
    bytes: new Uint8Array(body.buffer, body.byteOffset + 20, length),
    direction: ["none", "in", "out", "?"][flags & 3] as string,
    hasCrcError: (flags & (1 << 24)) !== 0,
    dropCount: count(options.get(4)),
  };
}

function readStatistics(body: DataView): StatisticsBlock {
  const options = readOptions(body, 12);
  const of = (code: number) => options.get(code) ?? new DataView(new ArrayBuffer(8));
  return {
    interfaceNumber: body.getUint32(0, true),
    timeNs: time(body, 4),
    startNs: time(of(2), 0),
    endNs: time(of(3), 0),
    receivedCount: count(options.get(4)),
    droppedCount: count(options.get(5)),
    deliveredCount: count(options.get(8)),
  };
}

function readOptions(body: DataView, from: number): Options {
  const options = new Map<number, DataView>();
  for (let at = from; at < body.byteLength; ) {
    const code = body.getUint16(at, true);
    const length = body.getUint16(at + 2, true);
    if (code === 0) {
      if (length !== 0 || at + 4 !== body.byteLength) throw new Error("options end badly");
      return options;
    }
    options.set(code, new DataView(body.buffer, body.byteOffset + at + 4, length));
    for (let i = length; i % 4 !== 0; i++) {
      if (body.getUint8(at + 4 + i) !== 0) throw new Error("padding is not zero");
    }
    at += 4 + Math.ceil(length / 4) * 4;
  }
  throw new Error("options have no end");
}

function text(option: DataView | undefined): string {
  if (option === undefined) return "";
  const { buffer, byteOffset, byteLength } = option;
  return String.fromCharCode(...new Uint8Array(buffer, byteOffset, byteLength));
}

function count(option: DataView | undefined): number {
  return option === undefined ? 0 : Number(option.getBigUint64(0, true));
}

function time(view: DataView, at: number): bigint {
  return (BigInt(view.getUint32(at, true)) << 32n) | BigInt(view.getUint32(at + 4, true));
}

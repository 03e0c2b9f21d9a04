// SPDX-License-Identifier: MIT
// Rows of the table: a volume of an RNBD server is opened, used and closed.

import type { FarpageError, Memory } from "../../src/base/index.js";
import {
  BLOCK_OPERATION,
  type BlockOperation,
  BlockRequest,
  MemoryDevice,
} from "../../src/block/index.js";
import { RNBD_ACCESS, RnbdClient, type RnbdDevice, RnbdServer } from "../../src/rnbd/index.js";
import { RtrsServer } from "../../src/rtrs/index.js";
import type { Exchange, Scene } from "./cell.js";
import { MS, SECOND, type Stage } from "./stage.js";

const SIZE_BYTES = 1 << 16;
const HEARTBEAT_NS = SECOND;
const DEATH_NS = 12 * SECOND;

interface Row {
  readonly name: string;
  readonly does: "open" | "I/O" | "close";
  /** Operation, offset, length; one after the other. */
  readonly operations?: readonly (readonly [BlockOperation, number, number])[];
}

class RnbdScene implements Scene {
  private readonly stage: Stage;
  private readonly row: Row;
  private readonly client: RnbdClient;
  private readonly server: RtrsServer;
  private readonly disk: MemoryDevice;
  private readonly data: Memory;
  private device: RnbdDevice | null = null;
  private error: FarpageError | null = null;
  private readonly errnos: number[] = [];
  private fault: string | null = null;

  constructor(stage: Stage, row: Row, isMortal: boolean) {
    this.stage = stage;
    this.row = row;
    this.disk = new MemoryDevice({ name: "disk", sizeBytes: SIZE_BYTES });
    const rnbd = new RnbdServer();
    rnbd.addVolume("disk", this.disk);
    const serverOptions = {
      queueDepth: 4,
      chunkBytes: 8192,
      heartbeatIntervalNs: HEARTBEAT_NS,
      connectTimeoutNs: 10 * SECOND,
    };
    this.server = new RtrsServer(stage.stack(1).environment, serverOptions, rnbd);
    stage.hosts[1]?.machines.push(this.server, rnbd);
    this.client = new RnbdClient(stage.stack(0).environment, {
      sessionName: "bad-luck",
      paths: [{ source: stage.address(0), destination: stage.address(1) }],
      heartbeatIntervalNs: HEARTBEAT_NS,
      ...(isMortal ? { connectAttemptsMax: 2, ioTimeoutNs: SECOND } : {}),
    });
    this.data = stage.memory(0).allocate(SIZE_BYTES);
    this.client.registerMemory(this.data);
    stage.hosts[0]?.machines.push(this.client);
    if (row.does !== "open") this.bringUp();
  }

  start(): void {
    if (this.row.does === "open") this.open();
    else if (this.row.does === "close") this.client.close();
    else this.next();
    this.stage.wake();
  }

  isOver(): boolean {
    if (this.fault !== null) return true;
    if (this.row.does === "open") return this.device !== null || this.error !== null;
    if (this.row.does === "close") return this.client.isClosed;
    return this.errnos.length === this.row.operations?.length;
  }

  outcome(): string {
    if (this.fault !== null) throw new Error(this.fault);
    if (this.row.does === "open") return this.error === null ? "ok" : `failed ${this.error.code}`;
    if (this.row.does === "close") return "ok";
    return this.errnos.every((errno) => errno === 0) ? "ok" : this.errnos.join();
  }

  close(): void {
    this.client.close();
    this.server.close();
  }

  isClosed(): boolean {
    return this.server.isClosed && this.client.isClosed;
  }

  private open(): void {
    this.client.open("disk", RNBD_ACCESS.RW, (error, device) => {
      if (this.device !== null || this.error !== null) this.fault = "opened twice";
      this.error = error;
      this.device = device;
    });
    this.client.connect();
  }

  private bringUp(): void {
    this.open();
    this.stage.wake();
    const { world } = this.stage;
    if (!world.run(SECOND, () => this.device !== null)) throw new Error("the volume does not open");
    world.run(SECOND / 10);
  }

  /** Submits the next operation. Writes leave a pattern of their own; reads find it. */
  private next(): void {
    const index = this.errnos.length;
    const entry = this.row.operations?.[index];
    if (entry === undefined) return;
    const [operation, offset, length] = entry;
    const request = new BlockRequest(
      {
        onBlockComplete: () => {
          if (this.errnos.length !== index) this.fault = `request ${index} completes twice`;
          this.errnos.push(request.errno);
          if (operation === BLOCK_OPERATION.READ) this.checkRead(offset, length, request.errno);
          this.next();
        },
      },
      index,
    );
    Object.assign(request, { operation, offset, length });
    const hasData = operation === BLOCK_OPERATION.READ || operation === BLOCK_OPERATION.WRITE;
    request.memory = hasData ? this.data : null;
    request.memoryOffset = hasData ? offset : 0;
    if (operation === BLOCK_OPERATION.WRITE) {
      for (let i = offset; i < offset + length; i++) this.data.bytes[i] = patternOf(i);
    } else if (hasData) {
      this.data.bytes.fill(0xee, offset, offset + length);
    }
    this.device?.submit(request);
  }

  private checkRead(offset: number, length: number, errno: number): void {
    if (errno !== 0) return;
    for (let i = offset; i < offset + length; i++) {
      if (this.data.bytes[i] !== patternOf(i)) this.fault ??= `byte ${i} of the disk is wrong`;
    }
  }
}

function patternOf(i: number): number {
  return (i * 13 + (i >> 9) * 5 + 1) & 0xff;
}

const { READ, WRITE, FLUSH } = BLOCK_OPERATION;

const ROWS: readonly Row[] = [
  { name: "open", does: "open" },
  {
    name: "write, flush, read",
    does: "I/O",
    operations: [
      [WRITE, 4096, 6144],
      [FLUSH, 0, 0],
      [READ, 4096, 6144],
    ],
  },
  { name: "close", does: "close" },
];

/** An open on the way, an I/O that can't be done in time. */
const GIVEN_UP = /^(failed (ETIMEDOUT|ECONNRESET)|(0|103|110)(,(0|103|110))*)$/;

const STALLS_NS = { open: 600 * MS, "I/O": 10 * MS, close: 2_500 * MS };

const base = (row: Row) => ({
  stallNs: STALLS_NS[row.does],
  deadNs: 30 * SECOND,
  deadOutcomes: GIVEN_UP,
  seconds: [],
});

export const RNBD_EXCHANGES: readonly Exchange[] = [
  ...ROWS.map((row) => ({
    name: `RNBD ${row.name}`,
    ...base(row),
    build: (stage: Stage) => new RnbdScene(stage, row, true),
  })),
  ...ROWS.map((row) => ({
    name: `RNBD ${row.name}, the link comes back`,
    ...base(row),
    deathNs: DEATH_NS,
    build: (stage: Stage) => new RnbdScene(stage, row, false),
  })),
];

// SPDX-License-Identifier: MIT
// Both ends of a copy over a session in memory (test/support/rtrs-loop.ts), and disks to copy.

import { RtrsLoop } from "../../test/support/rtrs-loop.js";
import {
  ERRNO,
  HeapMemorySource,
  IpAddress,
  type Random,
  randomBelow,
  updateCrc32,
} from "../base/index.js";
import type { RtrsEnvironment, ServerSession } from "../rtrs/index.js";
import {
  COPY_USER_BYTES_MAX,
  type CopyEnd,
  type CopyProblem,
  type CopyPull,
  CopySink,
  type CopySinkCounters,
  type CopySinkHost,
  CopySource,
  type CopyTell,
} from "./index.js";
import { Disk, MemoryTree, newNode } from "./memory-tree.fixture.js";

export const MAX_IO = 8192;

/** A host that has one folder, and keeps what it is told. */
export class NotingHost implements CopySinkHost {
  readonly disk: Disk;
  readonly tells: CopyTell[] = [];
  readonly pulls: CopyPull[] = [];
  readonly ends: { counters: CopySinkCounters; how: CopyEnd }[] = [];
  readonly failures: string[] = [];
  readonly trees: MemoryTree[] = [];

  constructor(disk: Disk) {
    this.disk = disk;
  }

  open(path: string, _session: ServerSession): MemoryTree | number {
    if (path !== "folder") return ERRNO.ENOENT;
    const tree = new MemoryTree(this.disk);
    this.trees.push(tree);
    return tree;
  }

  pull(pull: CopyPull, _session: ServerSession): number {
    this.pulls.push(pull);
    return 0;
  }

  tell(tell: CopyTell): void {
    this.tells.push(tell);
  }

  failed(path: string, errno: number): void {
    this.failures.push(`${path} ${errno}`);
  }

  ended(counters: CopySinkCounters, how: CopyEnd): void {
    this.ends.push({ counters: { ...counters }, how });
  }
}

/** A copy of everything on `from` to `to`. */
export class Rig {
  readonly source: CopySource;
  readonly tree: MemoryTree;
  readonly host: NotingHost;
  sink: CopySink;
  loop: RtrsLoop;
  readonly problems: CopyProblem[] = [];
  nowNs = 0;
  /** Called each turn. */
  onTurn: ((turn: number) => void) | null = null;
  turns = 0;

  constructor(
    from: Disk,
    to: Disk,
    options: { random?: Random; name?: string; path?: string; target?: string; tells?: boolean },
  ) {
    const random = options.random ?? null;
    this.tree = new MemoryTree(from);
    this.host = new NotingHost(to);
    const memory = new HeapMemorySource();
    let loop: RtrsLoop | null = null;
    this.sink = this.newSink();
    this.source = new CopySource(
      { memory } as unknown as RtrsEnvironment,
      {
        rtrs: { sessionName: "copy", paths: [ADDRESSES] },
        crc32: updateCrc32,
        random: (random ?? new Counting()) as Random,
        operands: [{ tree: this.tree, path: options.path ?? "", name: options.name ?? "" }],
        target: options.target ?? "folder",
        onProblem: (problem) => this.problems.push(problem),
        tells: options.tells ?? false,
      },
      (user) => {
        loop = new RtrsLoop(user, {
          queueDepth: 6,
          maxIoBytes: MAX_IO,
          headerBytes: COPY_USER_BYTES_MAX,
          random,
        });
        return loop;
      },
    );
    this.loop = loop as unknown as RtrsLoop;
    this.loop.server = this.sink;
    this.source.connect();
    this.loop.allow();
  }

  /** The sink's process begins anew: what it knew is gone, its disk is not. */
  restartSink(): void {
    this.loop.kill();
    this.sink = this.newSink();
    this.loop.server = this.sink;
  }

  run(): void {
    while (!this.source.isClosed) this.turn();
    for (let i = 0; i < 5; i++) this.sink.pump(this.nowNs);
  }

  turn(): void {
    if (++this.turns > 200_000) throw new Error(`stuck in ${this.source.state}`);
    this.onTurn?.(this.turns);
    this.nowNs += 1_000_000;
    this.source.pump(this.nowNs);
    this.source.checkInvariants();
    this.sink.pump(this.nowNs);
    this.sink.checkInvariants();
  }

  private newSink(): CopySink {
    const options = { crc32: updateCrc32, memory: new HeapMemorySource(), maxIoBytes: MAX_IO };
    return new CopySink(options, this.host);
  }
}

class Counting {
  private count = 0;

  nextU32(): number {
    return this.count++;
  }
}

const ADDRESSES = {
  source: IpAddress.parse("192.0.2.1"),
  destination: IpAddress.parse("192.0.2.2"),
};

/** A tree with everything in it that a tree can have. */
export function randomDisk(random: Random, count: number): Disk {
  const disk = new Disk();
  const folders = [""];
  const files: string[] = [];
  for (let i = 0; i < count; i++) {
    const folder = folders[randomBelow(random, folders.length)] as string;
    // Names are bytes; these are no UTF-8.
    const path = `${folder === "" ? "" : `${folder}/`}n${i}\xff`;
    const pick = randomBelow(random, 10);
    if (pick === 0) {
      disk.put(path, newNode("directory"));
      folders.push(path);
    } else if (pick === 1) {
      disk.put(path, newNode("symlink")).target = "../elsewhere\xfe";
    } else if (pick === 2 && files.length > 0) {
      const first = disk.nodes.get(files[randomBelow(random, files.length)] as string);
      if (first === undefined) continue;
      first.links++;
      disk.put(path, first);
      continue;
    } else {
      const sizes = [0, 1, 300, 4096, 5_000, 40_000];
      const node = newNode("file", randomBytes(random, sizes[randomBelow(random, 6)] as number));
      if (node.bytes.length === 40_000 && randomBelow(random, 2) === 0) {
        node.bytes.fill(0, 9_000, 30_000);
        node.extents = [
          [0, 9_000],
          [30_000, 40_000],
        ];
      }
      disk.put(path, node);
      files.push(path);
    }
    const node = disk.nodes.get(path);
    if (node === undefined) continue;
    node.mode = randomBelow(random, 0o10000);
    node.uid = randomBelow(random, 70_000);
    node.gid = randomBelow(random, 70_000);
    node.mtimeSeconds = randomBelow(random, 2 ** 32) - 2 ** 31;
    node.mtimeNanoseconds = randomBelow(random, 1e9);
    // user.a = "b"
    if (randomBelow(random, 4) === 0 && node.kind !== "symlink") {
      node.extra = Uint8Array.of(6, 0, 1, 0, 0, 0, 117, 115, 101, 114, 46, 97, 98);
    }
  }
  return disk;
}

export function randomBytes(random: Random, length: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let i = 0; i < words.length; i++) words[i] = random.nextU32();
  return new Uint8Array(words.buffer, 0, length);
}

// SPDX-License-Identifier: MIT
import type { MemorySource, Random } from "../base/index.js";
import type { ConnectionManager } from "../cm/index.js";
import type { Context } from "../verbs/index.js";
import type { ChunkWatch } from "./chunk-watch.js";

/** What a host gives to an RTRS client or server; shared, never closed by either. */
export interface RtrsEnvironment {
  /** The device that carries the connections. */
  readonly context: Context;
  /** The connection manager of the same device. */
  readonly cm: ConnectionManager;
  /** Where chunks, message slots and receive buffers come from. */
  readonly memory: MemorySource;
  /** For UUIDs and for the spread of reconnects; unpredictable to peers. */
  readonly random: Random;
  /** Watches what a server fetches from its chunks; for tests. */
  readonly watch?: ChunkWatch;
}

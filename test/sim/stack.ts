// SPDX-License-Identifier: MIT
// One simulated host's stack: device, verbs, connection manager, as `runtime/` wires them on a real
// link.

import { HeapMemorySource, type MemorySource } from "../../src/base/index.js";
import { ConnectionManager } from "../../src/cm/index.js";
import { createCrc32 } from "../../src/os/index.js";
import type { RtrsEnvironment } from "../../src/rtrs/index.js";
import type { SimHost } from "../../src/sim/index.js";
import { Device, type DeviceOptions } from "../../src/transport/index.js";
import { Context } from "../../src/verbs/index.js";
import { FetchWatch } from "../support/fetch-watch.js";

/** Everything below RTRS, on one host. */
export interface SimStack {
  readonly host: SimHost;
  readonly device: Device;
  readonly context: Context;
  readonly cm: ConnectionManager;
  readonly memory: MemorySource;
  readonly environment: RtrsEnvironment;
  /** Counts what a server on this stack fetches from memory that its peers can write. */
  readonly watch: FetchWatch;
}

/** Invariants look at every region, so there are as many as a world of some sessions needs. */
const BOUNDS = { regionCountMax: 2048 };

/** Builds a stack on `host` and has the world run it. `generation` tells restarts apart. */
export function buildStack(
  host: SimHost,
  generation = 0,
  memory: MemorySource = new HeapMemorySource(),
  bounds: Pick<DeviceOptions, "qpCountMax" | "regionCountMax"> = BOUNDS,
): SimStack {
  const random = host.random.fork(`process ${generation}`);
  const { link } = host;
  const device = new Device({
    addresses: link.addresses,
    linkMtus: link.linkMtus,
    random: random.fork("device"),
    crc32: createCrc32(),
    windowBytes: link.receiveBufferBytes,
    receiveBufferBytes: link.receiveBufferBytes,
    ...bounds,
  });
  const context = new Context(device);
  const cm = new ConnectionManager({ context, memory, random: random.fork("cm") });
  host.device = device;
  host.machines.push(cm);
  const watch = new FetchWatch();
  const environment = { context, cm, memory, random: random.fork("rtrs"), watch };
  return { host, device, context, cm, memory, environment, watch };
}

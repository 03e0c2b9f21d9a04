// SPDX-License-Identifier: MIT
// Every case, in the order in which they run: one file per family.

import type { InteropCase } from "../case.js";
import { CMA_CASES } from "./cma.js";
import { CONNECTION_CASES } from "./connections.js";
import { FAULT_CASES } from "./faults.js";
import { MTU_CASES } from "./mtu.js";
import { PERFTEST_CASES } from "./perftest.js";
import { PINGPONG_CASES } from "./pingpong.js";
import { RNBD_CLIENT_CASES } from "./rnbd-client.js";
import { RNBD_FAILURE_CASES } from "./rnbd-failures.js";
import { RNBD_SERVER_CASES } from "./rnbd-server.js";
import { RNBD_VOLUME_CASES } from "./rnbd-volumes.js";
import { RPING_CASES } from "./rping.js";

export const CASES: readonly InteropCase[] = [
  ...RPING_CASES,
  ...PINGPONG_CASES,
  ...CMA_CASES,
  ...PERFTEST_CASES,
  ...MTU_CASES,
  ...RNBD_CLIENT_CASES,
  ...RNBD_VOLUME_CASES,
  ...RNBD_FAILURE_CASES,
  ...RNBD_SERVER_CASES,
  ...FAULT_CASES,
  ...CONNECTION_CASES,
];

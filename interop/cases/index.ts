// SPDX-License-Identifier: MIT
// Every case, in the order in which they run: one file per family.

import type { InteropCase } from "../case.js";
import { PERFTEST_CASES } from "./perftest.js";
import { RNBD_CLIENT_CASES } from "./rnbd-client.js";
import { RPING_CASES } from "./rping.js";

export const CASES: readonly InteropCase[] = [
  ...RPING_CASES,
  ...PERFTEST_CASES,
  ...RNBD_CLIENT_CASES,
];

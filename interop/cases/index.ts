// SPDX-License-Identifier: MIT
// Every case, in the order in which they run: one file per family.

import type { InteropCase } from "../case.js";
import { RNBD_CLIENT_CASES } from "./rnbd-client.js";

export const CASES: readonly InteropCase[] = [...RNBD_CLIENT_CASES];

// SPDX-License-Identifier: MIT
// Every row of the table.

import type { Exchange } from "./cell.js";
import { CM_EXCHANGES } from "./cm-exchanges.js";
import { RC_EXCHANGES } from "./rc-exchanges.js";
import { RNBD_EXCHANGES } from "./rnbd-exchanges.js";
import { RTRS_EXCHANGES } from "./rtrs-exchanges.js";

export const EXCHANGES: readonly Exchange[] = [
  ...RC_EXCHANGES,
  ...CM_EXCHANGES,
  ...RTRS_EXCHANGES,
  ...RNBD_EXCHANGES,
];

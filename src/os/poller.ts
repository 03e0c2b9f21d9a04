// SPDX-License-Identifier: MIT
import type { BackendChoice, Poller } from "./door.js";

/** Makes a poller: native where it works, or as `backend` says. */
export function openPoller(_backend: BackendChoice = "auto"): Poller {
  throw new Error("being written");
}

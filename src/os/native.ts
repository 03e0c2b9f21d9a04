// SPDX-License-Identifier: MIT

/** Why foreign calls can't be had here, in one sentence; null when they can. */
export function foreignCallsUnavailable(): string | null {
  return "being written";
}

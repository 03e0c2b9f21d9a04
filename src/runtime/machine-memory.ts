// SPDX-License-Identifier: MIT
// The memory of this machine, or of a saved copy: os/ reads, mm/ understands.

import { type MachineMemory, parseMachineMemory } from "../mm/index.js";
import { readMemoryFiles } from "../os/index.js";

/**
 * @param from the folder of a copy; undefined: this machine.
 * @throws FarpageError as `readMemoryFiles` and `parseMachineMemory` do.
 */
export function readMachineMemory(from?: string): MachineMemory {
  return parseMachineMemory(readMemoryFiles(from));
}

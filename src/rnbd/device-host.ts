// SPDX-License-Identifier: MIT
// Between a device and the client it belongs to.

import type { Memory } from "../base/index.js";
import type { ClientRequest } from "../rtrs/index.js";
import type { CommandPool, RnbdCommand } from "./rnbd-command.js";
import type { RnbdDevice, RnbdDeviceState } from "./rnbd-device.js";

/** What a device needs of its client. */
export interface DeviceHost {
  readonly commands: CommandPool;
  /** Permits for I/O; what all devices of the session may have in flight together. */
  readonly queueDepth: number;
  /** Largest data length of one command, a multiple of 512. */
  readonly partBytesMax: number;
  readonly transferBytesMax: number;
  /** Nothing of a former life of the session is in a device of the server. */
  readonly isSettled: boolean;
  hasMemory(memory: Memory): boolean;
  /** A permit, or null when there is none now. */
  acquire(): ClientRequest | null;
  /** Sends `command` by a permit that `acquire` gave. */
  send(permit: ClientRequest, command: RnbdCommand): void;
  /** Requests have come: sends what can be sent. */
  dispatch(): void;
  /** The user has closed the device, which was in `state`. */
  onDeviceClose(device: RnbdDevice, state: RnbdDeviceState): void;
  /** The device wants its size from the server. */
  onReopenWanted(): void;
  pump(nowNs: number): void;
  deadlineNs(): number;
}

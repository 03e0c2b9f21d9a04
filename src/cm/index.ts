// SPDX-License-Identifier: MIT
export type { CmEvent, CmEventType, PortSpace } from "./event.js";
export {
  type AcceptOptions,
  CmId,
  ConnectionManager,
  type ConnectionManagerOptions,
  type ConnectOptions,
  EventChannel,
  Listener,
  type ListenOptions,
} from "./skeleton.js";

// SPDX-License-Identifier: MIT
export { REJ_REASON, rejReasonName } from "../wire/index.js";
export type { ConnectOptions } from "./active.js";
export { CmId, type ResolveOptions } from "./cm-id.js";
export type { ConnectionState } from "./connection.js";
export { ConnectionManager } from "./connection-manager.js";
export { CM_DROPS, CmCounters, type CmDrop } from "./counters.js";
export type { CmEvent, CmEventType, PortSpace } from "./event.js";
export { EventChannel } from "./event-channel.js";
export { Listener, type ListenOptions } from "./listener.js";
export { MAD_BYTES, type MadPort, type ReceivedMad } from "./mad-port.js";
export { CM_DEFAULTS, type CmTuning, type ConnectionManagerOptions } from "./options.js";
export type { AcceptOptions } from "./passive.js";

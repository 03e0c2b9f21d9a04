// SPDX-License-Identifier: MIT
export { RNBD_ACCESS, type RnbdAccess } from "../wire/index.js";
export { accessPolicy, type RefusalSink } from "./access-policy.js";
export type { OpenCallback, RnbdClientOptions, RtrsSession } from "./client-options.js";
export { RnbdClient } from "./rnbd-client.js";
export { RnbdDevice, type RnbdDeviceState } from "./rnbd-device.js";
export {
  type OpenAttempt,
  type OpenInfo,
  type OpenVerdict,
  RnbdServer,
  type RnbdServerOptions,
} from "./rnbd-server.js";
export {
  allocateSharedVolume,
  type SessionGroup,
  type SharedVolumeMemory,
} from "./session-group.js";
export { Volume, type VolumeCounters, type VolumeOptions } from "./volume.js";
export { VolumeRights } from "./volume-rights.js";

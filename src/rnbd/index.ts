// SPDX-License-Identifier: MIT
export { RNBD_ACCESS, type RnbdAccess } from "../wire/index.js";
export {
  type OpenCallback,
  RnbdClient,
  type RnbdClientOptions,
  type RtrsSession,
} from "./rnbd-client.js";
export { RnbdDevice, type RnbdDeviceState } from "./rnbd-device.js";
export {
  type OpenAttempt,
  type OpenInfo,
  RnbdServer,
  type RnbdServerOptions,
} from "./rnbd-server.js";
export { Volume, type VolumeCounters, type VolumeOptions } from "./volume.js";

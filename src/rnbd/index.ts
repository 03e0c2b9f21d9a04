// SPDX-License-Identifier: MIT
export { RNBD_ACCESS, type RnbdAccess } from "../wire/index.js";
export {
  type OpenAttempt,
  type OpenInfo,
  RnbdServer,
  type RnbdServerOptions,
} from "./rnbd-server.js";
export { Volume, type VolumeCounters, type VolumeOptions } from "./volume.js";

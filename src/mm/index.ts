// SPDX-License-Identifier: MIT

export { HeapMemorySource } from "../base/index.js";
export * from "./alloc/index.js";
export * from "./device/index.js";
export * from "./frames/index.js";
export * from "./lab/index.js";
export * from "./pin/index.js";
export * from "./region/index.js";
export * from "./space/index.js";
export * from "./view/index.js";

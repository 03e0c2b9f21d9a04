// SPDX-License-Identifier: MIT
export { type ByteStream, IoVector } from "./byte-stream.js";

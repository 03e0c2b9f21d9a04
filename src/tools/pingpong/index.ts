// SPDX-License-Identifier: MIT
export { type PingpongOptions, type PingpongResult, runPingpong } from "./pingpong.js";
export { PINGPONG_PORT } from "./protocol.js";

// SPDX-License-Identifier: MIT
// A host with a GPU, whose memory a BAR shows in part, and NICs, one of which can reach it.

import { HeapMemorySource } from "../../base/index.js";
import type { DmaDevice } from "../pin/index.js";
import { PAGE, smallHost } from "../pin/pin.fixture.js";
import { DeviceMemory } from "./device-memory.js";

export const GPU: DmaDevice = { name: "gpu" };
export const NEAR: DmaDevice = { name: "near nic" };
export const FAR: DmaDevice = { name: "far nic" };

export const GPU_PAGES = 8;
export const WINDOW_PAGES = 4;

export function deviceHost(megabytes = 8) {
  const host = smallHost(megabytes);
  const asked: string[] = [];
  const paths = {
    pathBetween: (client: DmaDevice, provider: DmaDevice) => {
      asked.push(`${client.name} ${provider.name}`);
      const isAllowed = client !== FAR;
      return { isAllowed, why: isAllowed ? "one switch" : "ACS redirect at 00:01.0" };
    },
  };
  const devices = new DeviceMemory(host.manager, paths, host.pinner);
  const source = new HeapMemorySource(0x20_0000_0000);
  const vram = source.allocate(GPU_PAGES * PAGE);
  const gpu = devices.addPrivate({ device: GPU, memory: vram, windowBytes: WINDOW_PAGES * PAGE });
  const bar = devices.addP2p({ device: GPU, name: "cmb", memory: source.allocate(8 * PAGE) });
  return { ...host, devices, gpu, bar, vram, asked };
}

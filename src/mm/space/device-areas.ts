// SPDX-License-Identifier: MIT

import { INVALIDATE } from "./constants.js";
import type { DeviceMapping } from "./device-mapping.js";
import type { MemoryManager } from "./memory-manager.js";
import { pagesFrom, ReverseMap } from "./reverse-map.js";
import { zapRange } from "./zap.js";

/** Where each device file is mapped. */
export class DeviceAreas {
  private readonly byDevice = new Map<DeviceMapping, ReverseMap>();

  areasOf(device: DeviceMapping): ReverseMap {
    let areas = this.byDevice.get(device);
    if (areas === undefined) {
      areas = new ReverseMap();
      this.byDevice.set(device, areas);
    }
    return areas;
  }

  forgetIfUnused(device: DeviceMapping): void {
    if (this.byDevice.get(device)?.count === 0) this.byDevice.delete(device);
  }

  /** Takes [index, index + count) of a device file out of every page table. */
  unmap(manager: MemoryManager, device: DeviceMapping, index: number, count: number): void {
    const areas = this.byDevice.get(device);
    if (areas === undefined) return;
    manager.beginChange();
    for (const area of areas.all) {
      const shift = pagesFrom(area, index);
      const start = area.startPage + Math.max(0, shift);
      const end = area.startPage + Math.min(area.pageCount, shift + count);
      if (start < end) zapRange(area.space, start, end, INVALIDATE.UNMAP);
    }
    manager.endChange();
  }
}

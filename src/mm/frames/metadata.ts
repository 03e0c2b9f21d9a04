// SPDX-License-Identifier: MIT
// What metadata costs, measured: zones are made and the lengths of their arrays summed.

import { AllocatorCounters } from "../alloc/counters.js";
import { type AllocatorPolicy, DEFAULT_POLICY } from "../alloc/policy.js";
import { ZONE } from "./constants.js";
import { type GranuleShift, Zone } from "./zone.js";

/** Metadata of device memory at one granularity. */
export interface MetadataCost {
  readonly granuleShift: GranuleShift;
  readonly deviceCount: number;
  readonly bytesPerDevice: number;
  /** Records of all devices. */
  readonly recordCount: number;
  /** Bytes of metadata of all devices. */
  readonly metadataBytes: number;
}

const GRANULES: readonly GranuleShift[] = [12, 21, 30];

/** Metadata of `deviceCount` devices, each with `bytesPerDevice` of BAR, at each granularity. */
export function measureMetadata(
  deviceCount: number,
  bytesPerDevice: number,
  policy: AllocatorPolicy = DEFAULT_POLICY,
): MetadataCost[] {
  return GRANULES.map((granuleShift) => {
    // One device at a time: they are alike, and at 4 KiB all of them take gigabytes.
    const options = { kind: ZONE.P2P, name: "BAR", bytes: bytesPerDevice, granuleShift };
    const zone = new Zone(options, 0, policy, new AllocatorCounters());
    return {
      granuleShift,
      deviceCount,
      bytesPerDevice,
      recordCount: zone.table.recordCount * deviceCount,
      metadataBytes: zone.metadataBytes * deviceCount,
    };
  });
}

/** The costs as a table in Markdown, which reads well on a terminal too. */
export function metadataTable(costs: readonly MetadataCost[]): string {
  const first = costs[0];
  if (first === undefined) return "";
  const size = first.bytesPerDevice / 2 ** 30;
  return [
    `| ${first.deviceCount} devices of ${size} GiB, a record per | records | metadata |`,
    "| --- | --- | --- |",
    ...costs.map(
      (cost) =>
        `| ${bytesText(2 ** cost.granuleShift)} | ${cost.recordCount.toLocaleString("en")} | ` +
        `${bytesText(cost.metadataBytes)} |`,
    ),
    "",
  ].join("\n");
}

function bytesText(bytes: number): string {
  const units = ["bytes", "KiB", "MiB", "GiB"];
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${Number(value.toFixed(1))} ${units[unit]}`;
}

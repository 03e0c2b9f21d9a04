// SPDX-License-Identifier: MIT

export {
  ALLOCATE,
  BLOCK_TYPE,
  BLOCK_TYPE_COUNT,
  BLOCK_TYPE_NAMES,
  type BlockType,
  FRAME_BYTES,
  FRAME_FLAG,
  FRAME_SHIFT,
  FRAME_STATE,
  type FrameState,
  MIGRATE,
  type MigrateType,
  MOVE_RESULT,
  type MoveResult,
  NO_FRAME,
  ORDER_MAX,
  orderFor,
  PAGE_BLOCK_FRAMES,
  PAGE_BLOCK_ORDER,
  type Pfn,
  ZONE,
  type ZoneKind,
} from "./constants.js";
export { FrameTable } from "./frame-table.js";
export { type MetadataCost, measureMetadata, metadataTable } from "./metadata.js";
export type { FrameOwner } from "./owner.js";
export { PageBlocks } from "./page-blocks.js";
export {
  PhysicalMemory,
  type PhysicalMemoryOptions,
  type Reclaimer,
} from "./physical-memory.js";
export { type GranuleShift, type Watermarks, Zone, type ZoneOptions } from "./zone.js";

// SPDX-License-Identifier: MIT
import type { LinkOptions, OsLink } from "./door.js";

export async function openLink(_o: LinkOptions): Promise<OsLink> {
  throw new Error("being written");
}

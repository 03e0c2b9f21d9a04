// SPDX-License-Identifier: MIT
import type { OsStream, StreamAddress, StreamListener, StreamOptions } from "./door.js";

export async function listenStream(_a: StreamAddress, _o: StreamOptions): Promise<StreamListener> {
  throw new Error("being written");
}

export async function connectStream(_a: StreamAddress, _o: StreamOptions): Promise<OsStream> {
  throw new Error("being written");
}

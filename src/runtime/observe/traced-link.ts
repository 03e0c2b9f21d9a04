// SPDX-License-Identifier: MIT

import type { Backend, LinkCounters, OsLink } from "../../os/index.js";
import { TapLink } from "../../trace/index.js";

/** A link on sockets that can be tapped. Without a tap it costs a comparison a burst. */
export class TracedLink extends TapLink<OsLink> implements OsLink {
  readonly backend: Backend;
  readonly limitation: string | null;
  readonly port: number;
  readonly counters: Readonly<LinkCounters>;

  constructor(inner: OsLink) {
    super(inner);
    this.backend = inner.backend;
    this.limitation = inner.limitation;
    this.port = inner.port;
    this.counters = inner.counters;
  }

  get readable(): boolean {
    return this.inner.readable;
  }

  get writable(): boolean {
    return this.inner.writable;
  }

  setWantsWrite(wanted: boolean): void {
    this.inner.setWantsWrite(wanted);
  }

  close(): void {
    this.inner.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

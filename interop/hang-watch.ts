// SPDX-License-Identifier: MIT
// Watches a guest's console for the one fault of its kernel that is known to leave a case hanging.

import { PassingFault } from "./case.js";
import { ownDoing, type Repetitions, registeredTwiceIn, repetitionsOf } from "./evidence.js";
import type { Guest } from "./guest.js";

const LOOK_MS = 500;
/** A case that ends so soon after the fault has not met it. */
const GRACE_MS = 10_000;

export class HangWatch {
  /** Rejects a while after the kernel has run a registration twice. */
  readonly hung: Promise<never>;
  private readonly guest: Guest;
  private readonly before: Repetitions;
  /** Length of the guest's log when the case began. */
  private readonly from: number;
  private timer: NodeJS.Timeout | undefined;

  private constructor(guest: Guest, before: Repetitions) {
    this.guest = guest;
    this.before = before;
    this.from = guest.log().length;
    this.hung = new Promise((_, reject) => {
      this.timer = setInterval(() => {
        if (this.line === null) return;
        clearInterval(this.timer);
        const say = () => reject(new Error(`no end ${GRACE_MS} ms after the kernel's fault`));
        this.timer = setTimeout(say, GRACE_MS);
      }, LOOK_MS);
    });
  }

  static async begin(guest: Guest): Promise<HangWatch> {
    return new HangWatch(guest, await repetitionsOf(guest));
  }

  /** Why a case that has failed with `error` did: that, or the kernel's fault with the evidence. */
  async explain(error: unknown): Promise<unknown> {
    const { line, before, guest } = this;
    if (line === null) return error;
    const after = await repetitionsOf(guest).catch(() => null);
    const why = after === null ? null : ownDoing(line, before, after);
    if (why === null) return error;
    return new PassingFault(`${why}\n${error instanceof Error ? error.message : error}`);
  }

  stop(): void {
    clearInterval(this.timer);
  }

  private get line(): string | null {
    return registeredTwiceIn(this.guest.log(this.from));
  }
}

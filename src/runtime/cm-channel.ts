// SPDX-License-Identifier: MIT
// An event channel in the lane: for programs that speak librdmacm's language themselves, ids,
// private data and all, and want no `Connection`.

import type { Machine } from "../base/index.js";
import type {
  CmEvent,
  CmId,
  EventChannel,
  Listener,
  ListenOptions,
  PortSpace,
} from "../cm/index.js";

/** What a channel asks of the host that made it. */
export interface CmChannelOwner {
  /** The user was called, and may have settled promises. */
  onSettled(): void;
  /** Something was asked of the connection manager. */
  wake(): void;
  /** The channel is closed. */
  detach(channel: CmChannel): void;
}

/** Who hears of a channel's events. */
export interface CmChannelUser {
  /**
   * An event of one of the channel's ids, in the lane's turn: the user may call the id and post
   * work requests, and settle promises.
   */
  onCmEvent(event: CmEvent): void;
  /** The host is closing or has failed: no event comes any more. */
  onCmEnd(error: unknown): void;
}

/**
 * rdma_event_channel with its events handed out. Made by `Host.openChannel`, closed with the host.
 * After a call on an id or listener from outside of a turn, `Host.wake`.
 */
export class CmChannel implements Machine, Disposable {
  private readonly channel: EventChannel;
  private readonly user: CmChannelUser;
  private readonly owner: CmChannelOwner;

  /** @internal */
  constructor(channel: EventChannel, user: CmChannelUser, owner: CmChannelOwner) {
    this.channel = channel;
    this.user = user;
    this.owner = owner;
  }

  /** An id to connect with (rdma_create_id(3)). */
  createId(portSpace: PortSpace = "TCP"): CmId {
    return this.channel.createId(portSpace);
  }

  /** rdma_listen(3). @throws FarpageError EADDRINUSE, EADDRNOTAVAIL, EINVAL. */
  listen(options: ListenOptions): Listener {
    return this.channel.listen(options);
  }

  /** Closes the listeners and destroys the ids, which says goodbye to every peer. */
  close(): void {
    this.channel.close();
    this.owner.detach(this);
    this.owner.wake();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** @internal */
  end(error: unknown): void {
    this.user.onCmEnd(error);
  }

  pump(): void {
    for (let event = this.channel.poll(); event !== null; event = this.channel.poll()) {
      this.user.onCmEvent(event);
      this.owner.onSettled();
    }
  }

  deadlineNs(): number {
    return Number.POSITIVE_INFINITY;
  }

  checkInvariants(): void {}
}

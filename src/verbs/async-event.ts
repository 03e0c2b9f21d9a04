// SPDX-License-Identifier: MIT
// Events of a device that no work request is to blame for (ibv_get_async_event(3)). The device has
// one queue of them; here they are given to the contexts whose objects they concern.

import {
  type CqCore,
  DEVICE_EVENT,
  type Device,
  DeviceEvent,
  type SrqCore,
} from "../transport/index.js";
import type { CompletionQueue } from "./completion-queue.js";
import { QueuePair } from "./queue-pair.js";
import { SharedReceiveQueue } from "./shared-receive-queue.js";

/** Kinds of events: ibv_event_type without the prefix. */
export type AsyncEventType = keyof typeof DEVICE_EVENT;

/** What happened, and to which object (still open when the event is polled). */
export interface AsyncEvent {
  readonly type: AsyncEventType;
  readonly object: QueuePair | CompletionQueue | SharedReceiveQueue;
}

type EventObject = AsyncEvent["object"];

const TYPE_NAMES = new Map<number, AsyncEventType>(
  Object.entries(DEVICE_EVENT).map(([name, value]) => [value, name as AsyncEventType]),
);

/** Events that may wait in one context; further ones are lost and counted. */
const WAITING_MAX = 1024;

/** Events that wait in one context. */
export class AsyncEventQueue {
  private readonly waiting: AsyncEvent[] = [];
  /** Events that found the queue full. */
  lostCount = 0;

  push(event: AsyncEvent): void {
    if (this.waiting.length >= WAITING_MAX) this.lostCount++;
    else this.waiting.push(event);
  }

  /** The oldest event whose object still exists, or null. */
  shift(): AsyncEvent | null {
    for (;;) {
      const event = this.waiting.shift();
      if (event === undefined) return null;
      if (event.object.isOpen) return event;
    }
  }
}

/** One per device: knows the objects behind the device's parts. */
export class AsyncEventRouter {
  private static readonly routers = new WeakMap<Device, AsyncEventRouter>();
  private readonly device: Device;
  private readonly scratch = new DeviceEvent();
  private readonly objects = new WeakMap<CqCore | SrqCore, CompletionQueue | SharedReceiveQueue>();

  static of(device: Device): AsyncEventRouter {
    let router = AsyncEventRouter.routers.get(device);
    if (router === undefined) {
      router = new AsyncEventRouter(device);
      AsyncEventRouter.routers.set(device, router);
    }
    return router;
  }

  private constructor(device: Device) {
    this.device = device;
  }

  /** Says whose part of the device `core` is. */
  enter(core: CqCore | SrqCore, object: CompletionQueue | SharedReceiveQueue): void {
    this.objects.set(core, object);
  }

  /** Hands out everything that the device has to tell. */
  drain(): void {
    while (this.device.pollEvent(this.scratch)) {
      const object = this.objectOf(this.scratch);
      const type = TYPE_NAMES.get(this.scratch.type);
      if (object === null || type === undefined) continue;
      contextOf(object).asyncEvents.push({ type, object });
    }
  }

  private objectOf(event: DeviceEvent): EventObject | null {
    if (event.qp !== null) {
      const { userContext } = event.qp;
      return userContext instanceof QueuePair ? userContext : null;
    }
    const core = event.cq ?? event.srq;
    return core === null ? null : (this.objects.get(core) ?? null);
  }
}

function contextOf(object: EventObject): { readonly asyncEvents: AsyncEventQueue } {
  return object instanceof SharedReceiveQueue ? object.pd.context : object.context;
}

// SPDX-License-Identifier: MIT
// The library's front door: a host on the network, with promises. Everything it returns is thin
// over the verbs, which are there under their own names (`farpage/verbs`).

import { FarpageError, IpAddress, type Machine, type Memory } from "../base/index.js";
import type { CmEvent, CmId, EventChannel, Listener } from "../cm/index.js";
import type { BackendChoice } from "../os/index.js";
import {
  type CompletionQueue,
  Context,
  type ProtectionDomain,
  WorkCompletion,
} from "../verbs/index.js";
import { AsyncQueue } from "./async-queue.js";
import { checkObject, checkQueues, checkText, checkWhole } from "./check-options.js";
import { CmChannel, type CmChannelUser } from "./cm-channel.js";
import {
  Connection,
  type ConnectionOwner,
  connectError,
  createQueues,
  type QueueSizes,
} from "./connection.js";
import { Failure } from "./failure.js";
import { type Log, SILENT_LOG } from "./log.js";
import { type ObserveOptions, observed } from "./observe/index.js";
import { type Process, Processes, type ProcessOptions } from "./process.js";
import { Stack } from "./stack.js";

export interface HostOptions extends ObserveOptions {
  /** Local IP addresses, at least one; UDP port 4791 is bound on each. */
  readonly addresses: readonly string[];
  /** `"node"` forces `node:dgram` instead of foreign calls; default: what the system has. */
  readonly backend?: BackendChoice;
  /** Let the kernel cut bursts into packets (UDP GSO), default true. */
  readonly segmentation?: boolean;
  readonly log?: Log;
  /** Memory that the processes of `spawn` share, default 64 MiB; none is used before the first. */
  readonly processMemoryBytes?: number;
}

export interface ConnectOptions extends QueueSizes {
  /** The peer's IP address. */
  readonly address: string;
  readonly port: number;
  /** Where the queue pair is made; what its keys are good for. */
  readonly pd: ProtectionDomain;
  /** For the peer's listener; at most 56 bytes. */
  readonly privateData?: Uint8Array;
  /** Local address to connect from; default: the first of the same family. */
  readonly source?: string;
  /** Gives up after so long, default 10,000. */
  readonly timeoutMs?: number;
}

type Queues = ReturnType<typeof createQueues>;

const NS_PER_MS = 1_000_000;
const PORT_MAX = 65_535;
const PROCESS_MEMORY_BYTES = 64 << 20;

/**
 * Opens a host on this machine's network.
 * @throws FarpageError EADDRNOTAVAIL, EADDRINUSE or EACCES when an address's port can't be bound,
 *   EINVAL.
 */
export async function openHost(options: HostOptions): Promise<Host> {
  checkObject("options", options);
  if (!Array.isArray(options.addresses) || options.addresses.length === 0) {
    throw new FarpageError("EINVAL", "addresses: a list of local IP addresses is wanted");
  }
  for (const text of options.addresses) checkText("addresses", text);
  const processMemoryBytes = options.processMemoryBytes ?? PROCESS_MEMORY_BYTES;
  checkWhole("processMemoryBytes", processMemoryBytes, 1, Number.MAX_SAFE_INTEGER);
  const addresses = options.addresses.map((text) => IpAddress.parse(text));
  const failure = new Failure();
  const stack = await Stack.open({
    addresses,
    log: options.log ?? SILENT_LOG,
    backend: options.backend ?? "auto",
    segmentation: options.segmentation ?? true,
    ...observed(options),
    onFailure: (error) => failure.fail(error),
  });
  return new Host(stack, failure, processMemoryBytes);
}

/** A host: addresses, memory, a device. Close it, or hold it with `await using`. */
export class Host implements AsyncDisposable {
  readonly addresses: readonly string[];
  /** The stack beneath, for those who wire machines of their own to it. */
  readonly stack: Stack;
  private readonly machine: HostMachine;
  private readonly contexts: Context[] = [];
  private readonly processes: Processes;
  private readonly connectionOwner: ConnectionOwner = {
    wake: () => this.stack.lane.wake(),
    onSettled: () => this.stack.lane.yieldToNode(),
    detach: (gone) => {
      this.machine.connections.delete(gone.id);
      this.stack.lane.remove(gone);
    },
  };
  private closing: Promise<void> | null = null;

  /** @internal */
  constructor(stack: Stack, failure: Failure, processMemoryBytes: number) {
    this.stack = stack;
    this.processes = new Processes(stack, processMemoryBytes);
    this.addresses = stack.addresses.map(String);
    this.machine = new HostMachine(stack.cm.createChannel(), () => stack.lane.yieldToNode());
    failure.promise.catch((error) => this.machine.fail(error));
    stack.lane.add(this.machine);
  }

  /**
   * Maps `length` bytes of zeroes of this host's memory. It is freed with the host.
   * @throws FarpageError EINVAL, ENOMEM
   */
  map(options: { readonly length: number }): Memory {
    checkObject("options", options);
    checkWhole("length", options.length, 1, Number.MAX_SAFE_INTEGER);
    return this.stack.memory.allocate(options.length, "memory of the program");
  }

  /** Opens the device: a uverbs file of its own, closed with the host. */
  openDevice(): Context {
    const context = new Context(this.stack.device);
    this.contexts.push(context);
    return context;
  }

  /**
   * A process, with addresses of its own that it maps, and registers pinned or on demand.
   * @throws FarpageError EINVAL, ENOMEM; ESHUTDOWN when the host is closed.
   */
  spawn(name: string, options: ProcessOptions = {}): Process {
    return this.processes.spawn(name, options);
  }

  /**
   * Connects to a listener.
   * @throws FarpageError ECONNREFUSED (rejected; the reason is in the message), ETIMEDOUT (no
   *   answer), EADDRNOTAVAIL (no local address of that family), EINVAL.
   */
  async connect(options: ConnectOptions): Promise<Connection> {
    checkQueues(options);
    checkText("address", options.address);
    checkWhole("port", options.port, 1, PORT_MAX);
    if (options.source !== undefined) checkText("source", options.source);
    if (options.timeoutMs !== undefined) checkWhole("timeoutMs", options.timeoutMs, 1, 2 ** 31);
    const destination = IpAddress.parse(options.address);
    const source = this.sourceFor(destination, options.source);
    const id = this.machine.channel.createId("TCP");
    let queues: Queues | null = null;
    try {
      queues = createQueues(options.pd, options);
      id.resolve({ source, destination, port: options.port });
      id.bindQp(queues.qp);
      id.connect({
        timeoutNs: (options.timeoutMs ?? 10_000) * NS_PER_MS,
        ...(options.privateData === undefined ? {} : { privateData: options.privateData }),
      });
      const event = await this.answerOf(id, `${options.address} port ${options.port}`);
      return this.adopt(queues, id, event.privateData);
    } catch (error) {
      id.destroy();
      destroyQueues(queues);
      throw error;
    }
  }

  /**
   * Listens on a port of every address, or of one.
   * @returns an async iterable of requests; breaking out of the loop stops listening.
   * @throws FarpageError EADDRINUSE, EADDRNOTAVAIL, EINVAL
   */
  listen(options: { readonly port: number; readonly address?: string }): Incoming {
    checkObject("options", options);
    checkWhole("port", options.port, 0, PORT_MAX);
    if (options.address !== undefined) checkText("address", options.address);
    const listener = this.machine.channel.listen({
      address: options.address === undefined ? null : IpAddress.parse(options.address),
      port: options.port,
    });
    return new Incoming(this, listener);
  }

  /** Completions of `cq` as they come, each a fresh object; ends when the host closes. */
  async *completions(cq: CompletionQueue): AsyncGenerator<WorkCompletion, void, undefined> {
    const batch = Array.from({ length: 32 }, () => new WorkCompletion());
    while (this.closing === null) {
      const count = cq.pollCq(batch);
      for (let i = 0; i < count; i++) {
        yield Object.assign(new WorkCompletion(), batch[i]);
      }
      if (count > 0) continue;
      try {
        await this.machine.completionOf(cq, () => this.stack.lane.wake());
      } catch (error) {
        if (this.closing === null) throw error;
      }
    }
  }

  /**
   * Waits until `cq` holds a completion; at once when it holds one already. Wakes the lane first,
   * so that what was posted goes out. One waiter per completion queue.
   * @param signal gives the wait up, of which nothing is left then.
   * @throws FarpageError ESHUTDOWN when the host closes first, or what made it fail; EINTR.
   */
  async completion(cq: CompletionQueue, signal?: AbortSignal): Promise<void> {
    if (cq.count > 0) return;
    await this.machine.completionOf(cq, () => this.stack.lane.wake(), signal);
  }

  /**
   * Opens an event channel of the connection manager (rdma_create_event_channel(3)), for ids and
   * listeners of one's own. It is closed with the host.
   */
  openChannel(user: CmChannelUser): CmChannel {
    const channel = new CmChannel(this.stack.cm.createChannel(), user, {
      wake: () => this.stack.lane.wake(),
      onSettled: () => this.stack.lane.yieldToNode(),
      detach: (gone) => {
        this.machine.channels.delete(gone);
        this.stack.lane.remove(gone);
      },
    });
    this.machine.channels.add(channel);
    this.stack.lane.add(channel);
    return channel;
  }

  /** Must be called after posting on a queue pair directly, so that the lane looks at it now. */
  wake(): void {
    this.stack.lane.wake();
  }

  /** Disconnects everything and frees it. Work under way fails with WR_FLUSH_ERR. */
  close(): Promise<void> {
    this.closing ??= this.closeOnce();
    return this.closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** @internal */
  async accept(
    event: CmEvent,
    options: { readonly pd: ProtectionDomain; readonly privateData?: Uint8Array } & QueueSizes,
  ): Promise<Connection> {
    // A mistake of the caller costs the peer nothing: the request can still be answered.
    checkQueues(options);
    let queues: Queues | null = null;
    try {
      queues = createQueues(options.pd, options);
      event.id.bindQp(queues.qp);
      event.id.accept(
        options.privateData === undefined ? {} : { privateData: options.privateData },
      );
      await this.answerOf(event.id, `${event.id.remoteAddress}`);
      return this.adopt(queues, event.id, event.privateData);
    } catch (error) {
      event.id.destroy();
      destroyQueues(queues);
      this.stack.lane.wake();
      throw error;
    }
  }

  /** @internal */
  requestsOf(listener: Listener): AsyncQueue<CmEvent> {
    return this.machine.requestsOf(listener);
  }

  /** @internal */
  forgetListener(listener: Listener): void {
    this.machine.forgetListener(listener);
  }

  private async answerOf(id: CmId, peer: string): Promise<CmEvent> {
    const answer = this.machine.answerOf(id);
    this.stack.lane.wake();
    const event = await answer;
    if (event.type !== "ESTABLISHED") throw connectError(event.type, event.status, peer);
    return event;
  }

  private adopt(queues: Queues, id: CmId, privateData: Uint8Array): Connection {
    const connection = new Connection({ ...queues, id, privateData, owner: this.connectionOwner });
    this.machine.connections.set(id, connection);
    this.stack.lane.add(connection);
    return connection;
  }

  /**
   * The local address that a connection to `destination` comes from: `wanted`, else the first of
   * the same family.
   * @throws FarpageError EADDRNOTAVAIL when there is none; EINVAL.
   */
  sourceFor(destination: IpAddress, wanted?: string): IpAddress {
    if (wanted !== undefined) return IpAddress.parse(wanted);
    const source = this.stack.addresses.find((own) => own.family === destination.family);
    if (source === undefined) {
      throw new FarpageError(
        "EADDRNOTAVAIL",
        `this host has no IPv${destination.family} address to reach ${destination} from`,
      );
    }
    return source;
  }

  private async closeOnce(): Promise<void> {
    const shutDown = new FarpageError("ESHUTDOWN", "the host is closed");
    // Goodbyes need turns: without a lane nobody would ever hear of their end.
    if (!this.stack.lane.isRunning) this.machine.fail(shutDown);
    const connections = [...this.machine.connections.values()];
    await Promise.all(connections.map((connection) => connection.close()));
    this.machine.fail(shutDown);
    this.stack.lane.remove(this.machine);
    for (const context of this.contexts) context.close();
    this.processes.close();
    await this.stack.close();
  }
}

function destroyQueues(queues: Queues | null): void {
  queues?.qp.destroy();
  queues?.cq.destroy();
}

/** A connection that a peer asks for; answer it by `accept` or `reject`. */
export class ConnectionRequest {
  readonly remoteAddress: string;
  /** The peer's private data: 56 bytes, zero padded. */
  readonly privateData: Uint8Array;
  private readonly host: Host;
  private readonly event: CmEvent;

  /** @internal */
  constructor(host: Host, event: CmEvent) {
    this.host = host;
    this.event = event;
    this.privateData = event.privateData;
    this.remoteAddress = String(event.id.remoteAddress);
  }

  /**
   * @returns the connection once the peer has confirmed it.
   * @throws FarpageError EINVAL naming the option that is wrong: the request can still be answered;
   *   or when the peer went away meanwhile.
   */
  accept(
    options: { readonly pd: ProtectionDomain; readonly privateData?: Uint8Array } & QueueSizes,
  ): Promise<Connection> {
    return this.host.accept(this.event, options);
  }

  /** Refuses; at most 148 bytes of private data go with the refusal. */
  reject(privateData?: Uint8Array): void {
    this.event.id.reject(privateData);
    this.event.id.destroy();
    this.host.wake();
  }
}

/** Connection requests of one listener, as they come. */
export class Incoming implements AsyncIterable<ConnectionRequest>, AsyncDisposable {
  readonly port: number;
  private readonly host: Host;
  private readonly listener: Listener;
  private readonly requests: AsyncQueue<CmEvent>;

  /** @internal */
  constructor(host: Host, listener: Listener) {
    this.host = host;
    this.listener = listener;
    this.port = listener.port;
    this.requests = host.requestsOf(listener);
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<ConnectionRequest, void, undefined> {
    try {
      for (;;) {
        const event = await this.requests.next();
        if (event === null) return;
        yield new ConnectionRequest(this.host, event);
      }
    } finally {
      this.close();
    }
  }

  /** Stops listening; requests not yet taken are refused. */
  close(): void {
    for (const event of this.requests.end()) event.id.destroy();
    this.listener.close();
    this.host.forgetListener(this.listener);
    this.host.wake();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close();
  }
}

/** Turns CM events into promises, in the lane's turn. */
class HostMachine implements Machine {
  readonly channel: EventChannel;
  readonly connections = new Map<CmId, Connection>();
  readonly channels = new Set<CmChannel>();
  private readonly answers = new Map<CmId, (event: CmEvent) => void>();
  private readonly failures = new Set<(error: unknown) => void>();
  private readonly listeners = new Map<Listener, AsyncQueue<CmEvent>>();
  private readonly onSettled: () => void;

  constructor(channel: EventChannel, onSettled: () => void) {
    this.channel = channel;
    this.onSettled = onSettled;
  }

  answerOf(id: CmId): Promise<CmEvent> {
    return new Promise((resolve, reject) => {
      this.failures.add(reject);
      this.answers.set(id, (event) => {
        this.failures.delete(reject);
        this.answers.delete(id);
        this.onSettled();
        resolve(event);
      });
    });
  }

  requestsOf(listener: Listener): AsyncQueue<CmEvent> {
    const queue = new AsyncQueue<CmEvent>();
    this.listeners.set(listener, queue);
    return queue;
  }

  completionOf(cq: CompletionQueue, wake: () => void, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      this.failures.add(reject);
      const onAbort = () => {
        this.failures.delete(reject);
        reject(new FarpageError("EINTR", "the wait for a completion was given up"));
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      cq.requestNotify(false, () => {
        signal?.removeEventListener("abort", onAbort);
        this.failures.delete(reject);
        this.onSettled();
        resolve();
      });
      wake();
    });
  }

  forgetListener(listener: Listener): void {
    this.listeners.delete(listener);
  }

  /** Nothing more will come: everybody who waits hears why. */
  fail(error: unknown): void {
    for (const connection of [...this.connections.values()]) connection.end();
    for (const reject of this.failures) reject(error);
    this.failures.clear();
    this.answers.clear();
    for (const queue of this.listeners.values()) queue.end();
    for (const channel of this.channels) channel.end(error);
  }

  pump(): void {
    for (;;) {
      const event = this.channel.poll();
      if (event === null) return;
      this.dispatch(event);
    }
  }

  deadlineNs(): number {
    return Number.POSITIVE_INFINITY;
  }

  checkInvariants(): void {}

  private dispatch(event: CmEvent): void {
    if (event.type === "CONNECT_REQUEST") {
      const queue = event.listener === null ? undefined : this.listeners.get(event.listener);
      if (queue === undefined) event.id.destroy();
      else queue.push(event);
      this.onSettled();
      return;
    }
    if (event.type === "DISCONNECTED") this.connections.get(event.id)?.end();
    if (event.type !== "TIMEWAIT_EXIT") this.answers.get(event.id)?.(event);
  }
}

// SPDX-License-Identifier: MIT
// Who wants the pages of a process says what for: one function for each purpose, with the options
// that mean something for it. Linux has one family of functions and a set of flags
// (`Documentation/core-api/pin_user_pages.rst`), most combinations of which are wrong.

import { assert } from "../../base/index.js";
import { type Pfn, type PhysicalMemory, ZONE } from "../frames/index.js";
import type { FrameRun, PinnedRuns, RegionPinner, Revocation } from "../region/index.js";
import { ACCESS, type Access, type AddressSpace, type MemoryManager } from "../space/index.js";
import { PinAccount } from "./account.js";
import { gather } from "./gather.js";
import {
  CpuBorrow,
  type Hold,
  type HoldState,
  LongTermPin,
  RemoteBorrow,
  ShortDmaPin,
} from "./holds.js";
import { INTENT } from "./intent.js";
import type { PeerMemory, RemoteCaller } from "./interfaces.js";
import {
  type CpuCopyOptions,
  checkOptions,
  type LongTermOptions,
  type LongTermPeerOptions,
  type RegionOptions,
  type RemoteOptions,
  type ShortDmaOptions,
} from "./options.js";
import { PageTaker, type TakeRequest } from "./page-taker.js";
import { PinError, type PinReason } from "./pin-error.js";
import { checkPins, type PinReport, type ProcessPins, reportOf, sumByProcess } from "./report.js";

export class Pinner {
  readonly manager: MemoryManager;
  /** Requests that were refused, by cause. */
  readonly refusals = new Map<PinReason, number>();
  /** Pages taken and given back since the host began; equal when nothing is held. */
  pagesTaken = 0;
  pagesReleased = 0;
  private readonly memory: PhysicalMemory;
  private readonly taker: PageTaker;
  private readonly holds = new Set<Hold>();
  private readonly accounts = new Map<AddressSpace, PinAccount>();

  constructor(manager: MemoryManager) {
    this.manager = manager;
    this.memory = manager.memory;
    this.taker = new PageTaker(manager);
  }

  /** Who judges whether a device reaches another's memory. */
  set peers(peers: PeerMemory | null) {
    this.taker.peers = peers;
  }

  /** Frames that left movable blocks before they were pinned for long. */
  get framesMoved(): number {
    return this.taker.framesMoved;
  }

  /**
   * For one DMA transfer, that will be over soon. Not charged.
   * @throws PinError
   */
  pinForShortDma<A extends Access>(
    space: AddressSpace,
    address: number,
    length: number,
    access: A,
    options: ShortDmaOptions = {},
  ): ShortDmaPin<A> {
    return this.counted(() => {
      checkOptions("short-dma", address, options);
      let intent: number = INTENT.PIN;
      if (options.presentOnly === true) intent |= INTENT.PRESENT_ONLY;
      if (options.device !== undefined) intent |= INTENT.PEER;
      const device = options.device ?? null;
      const request = { ...this.requestOf(space, address, length, access, intent), device };
      const runs = this.take(request, options.runsMax ?? Number.POSITIVE_INFINITY);
      return this.begin(new ShortDmaPin<A>(this.stateOf(request, runs, options.holder)));
    });
  }

  /**
   * For DMA until further notice, as of a memory region. Pages leave movable blocks before, files'
   * pages need a lease, other devices' memory needs somebody who gives it back. Charged to the
   * process.
   * @throws PinError
   */
  pinForLongTermDma<A extends Access>(
    space: AddressSpace,
    address: number,
    length: number,
    access: A,
    options: LongTermOptions | LongTermPeerOptions = {},
  ): LongTermPin<A> {
    return this.counted(() => {
      checkOptions("long-term-dma", address, options);
      let intent = INTENT.PIN | INTENT.LONG_TERM;
      if (options.device !== undefined) intent |= INTENT.PEER;
      const lease = options.lease ?? null;
      const device = options.device ?? null;
      const request = { ...this.requestOf(space, address, length, access, intent), device, lease };
      const runs = this.take(request, options.runsMax ?? Number.POSITIVE_INFINITY);
      const state = this.stateOf(request, runs, options.holder);
      const pin = this.begin(new LongTermPin<A>(state, lease, options.onRevoke ?? null));
      try {
        lease?.pinned(pin as unknown as LongTermPin);
      } catch (error) {
        // The lease would rather not: nobody has the pin.
        this.finish(request, pin, false);
        throw error;
      }
      return pin;
    });
  }

  /**
   * For the CPU, to copy from or to.
   * @throws PinError
   */
  borrowForCpuCopy<A extends Access>(
    space: AddressSpace,
    address: number,
    length: number,
    access: A,
    options: CpuCopyOptions = {},
  ): CpuBorrow<A> {
    return this.counted(() => {
      checkOptions("cpu-copy", address, options);
      let intent = access === ACCESS.WRITE ? INTENT.PIN : 0;
      if (options.presentOnly === true) intent |= INTENT.PRESENT_ONLY;
      const request = this.requestOf(space, address, length, access, intent);
      const runs = this.take(request, Number.POSITIVE_INFINITY);
      return this.begin(new CpuBorrow<A>(this.stateOf(request, runs, options.holder)));
    });
  }

  /**
   * Another process's memory, for the CPU to copy. What the process itself may not do, nobody may
   * do for it.
   * @throws PinError
   */
  borrowRemote<A extends Access>(
    caller: RemoteCaller,
    space: AddressSpace,
    address: number,
    length: number,
    access: A,
    options: RemoteOptions = {},
  ): RemoteBorrow<A> {
    return this.counted(() => {
      checkOptions("remote", address, options);
      if (!caller.mayAccess(space, access)) {
        const what = `${caller.name} may not look into ${space.name}`;
        const advice = "run as the same user, or with CAP_SYS_PTRACE";
        throw new PinError("not-permitted", address, what, advice);
      }
      const intent = INTENT.REMOTE | (access === ACCESS.WRITE ? INTENT.PIN : 0);
      const request = this.requestOf(space, address, length, access, intent);
      const runs = this.take(request, Number.POSITIVE_INFINITY);
      return this.begin(
        new RemoteBorrow<A>(this.stateOf(request, runs, options.holder ?? caller.name)),
      );
    });
  }

  /**
   * For the memory regions of one process. With a device, other devices' memory may be registered,
   * and what holds some of it says how it is taken back.
   */
  regionPinner(space: AddressSpace, options: RegionOptions = {}): RegionPinner {
    return {
      pinForRegion: (address, length, isWrite) => {
        const revocation: Revocation = { onRevoke: null };
        const onRevoke = () => revocation.onRevoke?.();
        const { device, ...others } = options;
        const all = device === undefined ? others : { ...others, device, onRevoke };
        const pinned = isWrite
          ? this.pinRegion(this.pinForLongTermDma(space, address, length, ACCESS.WRITE, all))
          : this.pinReadRegion(this.pinForLongTermDma(space, address, length, ACCESS.READ, all));
        return this.hasDeviceMemory(pinned.runs) ? { ...pinned, revocation } : pinned;
      },
    };
  }

  /** Takes frames of a device back from all who have pinned them for long. */
  revoke(pfn: Pfn, count: number): void {
    for (const hold of [...this.holds]) {
      const isIn = hold.runs.some((run) => run.pfn < pfn + count && run.pfn + run.count > pfn);
      if (!isIn || !(hold instanceof LongTermPin)) continue;
      hold.revoke();
      assert(hold.isReleased, "what is revoked is released");
    }
  }

  /** Bytes that are charged to a process. */
  chargedBytes(space: AddressSpace): number {
    return this.accounts.get(space)?.chargedBytes ?? 0;
  }

  /** Everything that is held now, oldest first. */
  list(): PinReport[] {
    return [...this.holds].map(reportOf);
  }

  /** The same as sums by process, the largest first. */
  byProcess(): ProcessPins[] {
    return sumByProcess(this.holds, (space) => this.chargedBytes(space));
  }

  /** References held here, by first frame of the block: for `checkInvariants` of others. */
  checkInvariants(): Map<Pfn, number> {
    assert(this.pagesTaken >= this.pagesReleased, "what is released was taken");
    return checkPins(this.memory, this.holds, this.accounts, this.pagesTaken - this.pagesReleased);
  }

  private pinRegion(pin: LongTermPin<typeof ACCESS.WRITE>): PinnedRuns {
    return { runs: pin.runs, release: (isDirty) => pin.release(isDirty) };
  }

  private pinReadRegion(pin: LongTermPin<typeof ACCESS.READ>): PinnedRuns {
    return { runs: pin.runs, release: () => pin.release() };
  }

  private hasDeviceMemory(runs: readonly FrameRun[]): boolean {
    return runs.some((run) => this.memory.zoneOf(run.pfn).kind === ZONE.P2P);
  }

  private requestOf(
    space: AddressSpace,
    address: number,
    length: number,
    access: Access,
    intent: number,
  ): TakeRequest {
    assert(space.manager === this.manager, "a host pins the memory of its own processes");
    const account = this.accounts.get(space) ?? new PinAccount(this.memory.policy.baseShift);
    return { space, address, length, access, intent, device: null, lease: null, account };
  }

  /** Takes pages in at most `runsMax` pieces. */
  private take(request: TakeRequest, runsMax: number): readonly FrameRun[] {
    const runs = this.taker.take(request);
    if (runs.length <= runsMax) return runs;
    this.taker.giveBack(runs, request.intent, request.account, false);
    if ((request.intent & INTENT.LONG_TERM) !== 0 && gather(this.memory, request)) {
      const gathered = this.taker.take(request);
      if (gathered.length <= runsMax) return gathered;
      this.taker.giveBack(gathered, request.intent, request.account, false);
    }
    const what = `the range is in ${runs.length} pieces of memory, of at most ${runsMax}`;
    const advice = "map it with huge pages, or take it in several parts";
    throw new PinError("fragmented", request.address, what, advice);
  }

  private stateOf(
    request: TakeRequest,
    runs: readonly FrameRun[],
    holder: string | undefined,
  ): HoldState {
    const { access, account, address, intent, length, space } = request;
    const { memory } = this;
    const end = (hold: Hold, isDirty: boolean) => this.finish(request, hold, isDirty);
    if ((intent & INTENT.LONG_TERM) !== 0) this.accounts.set(space, account);
    return {
      memory,
      space,
      address,
      length,
      access,
      intent,
      runs,
      holder: holder ?? space.name,
      end,
    };
  }

  private begin<H extends Hold>(hold: H): H {
    this.holds.add(hold);
    this.pagesTaken += hold.frameCount;
    return hold;
  }

  private finish(request: TakeRequest, hold: Hold, isDirty: boolean): void {
    const { account, intent, space } = request;
    assert(this.holds.delete(hold), "what is released was taken here");
    this.pagesReleased += hold.frameCount;
    this.taker.giveBack(hold.runs, intent, account, isDirty);
    if ((intent & INTENT.LONG_TERM) !== 0 && account.chargedBytes === 0)
      this.accounts.delete(space);
  }

  private counted<Result>(take: () => Result): Result {
    try {
      return take();
    } catch (error) {
      if (error instanceof PinError) {
        this.refusals.set(error.reason, (this.refusals.get(error.reason) ?? 0) + 1);
      }
      throw error;
    }
  }
}

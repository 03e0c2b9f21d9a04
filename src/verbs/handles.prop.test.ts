// SPDX-License-Identifier: MIT
// The rules of handles against a model that is too simple to be wrong: a list of objects, each with
// the list of those that it needs.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { HeapMemorySource } from "../base/index.js";
import type { Device } from "../transport/index.js";
import type { CompletionQueue } from "./completion-queue.js";
import { Context } from "./context.js";
import { ProtectionDomain } from "./protection-domain.js";
import type { SharedReceiveQueue } from "./shared-receive-queue.js";
import { errorOf, makeDevice, PEER } from "./verbs.fixture.js";
import type { VerbsObject } from "./verbs-object.js";

const KINDS = ["pd", "cq", "mr", "fast", "srq", "ah", "qp", "qpSrq"] as const;
type Kind = (typeof KINDS)[number];

interface ModelObject {
  readonly object: VerbsObject;
  readonly kind: Kind;
  readonly context: number;
  readonly needs: readonly VerbsObject[];
}

type Command =
  | { readonly do: "create"; readonly kind: Kind; readonly context: number; readonly pick: number }
  | { readonly do: "close"; readonly pick: number }
  | { readonly do: "closeContext"; readonly context: number };

const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant("create" as const),
      kind: fc.constantFrom(...KINDS),
      context: fc.nat(1),
      pick: fc.nat(99),
    }),
  },
  { weight: 6, arbitrary: fc.record({ do: fc.constant("close" as const), pick: fc.nat(99) }) },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant("closeContext" as const), context: fc.nat(1) }),
  },
);

class Harness {
  readonly device: Device = makeDevice({ qpCountMax: 6, regionCountMax: 8 });
  readonly contexts = [new Context(this.device), new Context(this.device)];
  model: ModelObject[] = [];
  readonly memory = new HeapMemorySource().allocate(4096);

  run(what: Command): void {
    if (what.do === "create") this.create(what.kind, what.context, what.pick);
    if (what.do === "close") this.close(what.pick);
    if (what.do === "closeContext") this.closeContext(what.context);
  }

  check(): void {
    for (const [index, context] of this.contexts.entries()) {
      context.checkInvariants();
      expect(context.handleCount).toBe(this.model.filter((m) => m.context === index).length);
    }
    this.device.checkInvariants();
    const count = (...kinds: Kind[]) => this.model.filter((m) => kinds.includes(m.kind)).length;
    expect(this.device.qpCount).toBe(count("qp", "qpSrq"));
    expect(this.device.regions.count).toBe(count("mr", "fast"));
  }

  private pick<T extends VerbsObject>(kind: Kind, context: number, pick: number): T | undefined {
    const fitting = this.model.filter((m) => m.kind === kind && m.context === context);
    return fitting[pick % Math.max(1, fitting.length)]?.object as T | undefined;
  }

  private create(kind: Kind, context: number, pick: number): void {
    const pd = this.pick<ProtectionDomain>("pd", context, pick);
    const cq = this.pick<CompletionQueue>("cq", context, pick);
    const srq = this.pick<SharedReceiveQueue>("srq", context, pick);
    const needs = { pd: [], cq: [], mr: [pd], fast: [pd], srq: [pd], ah: [pd], qp: [pd, cq] };
    const all = kind === "qpSrq" ? [srq?.pd, cq, srq] : needs[kind];
    if (all.includes(undefined)) return;
    let object: VerbsObject | null = null;
    const error = errorOf(() => {
      object = this.make(kind, this.contexts[context] as Context, pd, cq, srq);
    });
    // Only the device's bounds may stop it, and they leave nothing behind.
    if (error !== "") expect(error).toMatch(/^ENOMEM: the device has all its/);
    else {
      const made = object as unknown as VerbsObject;
      this.model.push({ object: made, kind, context, needs: all as VerbsObject[] });
    }
  }

  private make(
    kind: Kind,
    context: Context,
    pd: ProtectionDomain | undefined,
    cq: CompletionQueue | undefined,
    srq: SharedReceiveQueue | undefined,
  ): VerbsObject {
    if (kind === "pd") return context.allocPd();
    if (kind === "cq") return context.createCq({ depth: 4 });
    const owner = (kind === "qpSrq" ? srq?.pd : pd) as ProtectionDomain;
    expect(owner).toBeInstanceOf(ProtectionDomain);
    if (kind === "mr") return owner.registerMr(this.memory);
    if (kind === "fast") return owner.allocMr();
    if (kind === "srq") return owner.createSrq({ depth: 4 });
    if (kind === "ah") return owner.createAh({ port: 0, destination: PEER });
    const sendCq = cq as CompletionQueue;
    const sizes = { sendCq, recvCq: sendCq, maxSendWr: 2, maxRecvWr: 2 };
    const shared = kind === "qpSrq" ? { srq: srq as SharedReceiveQueue } : {};
    return owner.createQp({ type: "RC", ...sizes, ...shared });
  }

  private close(pick: number): void {
    const chosen = this.model[pick % Math.max(1, this.model.length)];
    if (chosen === undefined) return;
    const { object } = chosen;
    const isNeeded = this.model.some((m) => m.needs.includes(object));
    const error = errorOf(() => object[Symbol.dispose]());
    expect(error.slice(0, 6)).toBe(isNeeded ? "EBUSY:" : "");
    expect(object.isOpen).toBe(isNeeded);
    if (!isNeeded) this.model = this.model.filter((m) => m !== chosen);
  }

  private closeContext(context: number): void {
    const ended = this.model.filter((m) => m.context === context);
    (this.contexts[context] as Context).close();
    this.model = this.model.filter((m) => m.context !== context);
    expect(ended.every((m) => !m.object.isOpen)).toBe(true);
    expect(this.model.every((m) => m.object.isOpen)).toBe(true);
    this.contexts[context] = new Context(this.device);
  }
}

describe("handles", () => {
  it("a parent outlives its children, closing a context closes it all and nothing else", () => {
    fc.assert(
      fc.property(fc.array(command, { maxLength: 60 }), (commands) => {
        const harness = new Harness();
        for (const what of commands) {
          harness.run(what);
          harness.check();
        }
        for (const context of harness.contexts) context.close();
        expect(harness.device.qpCount).toBe(0);
        expect(harness.device.regions.count).toBe(0);
      }),
      { numRuns: 200 },
    );
  });
});

// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import type { CmEvent, CmId } from "../cm/index.js";
import { type CmChannelUser, type Host, IpAddress } from "../runtime/index.js";
import { CmDesk } from "./cm-desk.js";

const PEER = IpAddress.parse("192.0.2.2");
const OTHER = IpAddress.parse("192.0.2.3");

/** A desk on a host that does nothing, and what has become of the ids of its requests. */
class Front {
  readonly desk: CmDesk;
  readonly said: string[] = [];
  private user: CmChannelUser | null = null;

  constructor() {
    const openChannel = (user: CmChannelUser) => {
      this.user = user;
      return { close: () => {} };
    };
    const host = { openChannel, wake: () => {} } as unknown as Host;
    this.desk = new CmDesk({ host, signal: new AbortController().signal, report: () => {} });
  }

  /** A request comes; `state` is that of its id when somebody looks. */
  ask(name: string, state: CmId["state"], remoteAddress = PEER, portSpace = "TCP"): CmEvent {
    const reject = () => {
      if (state !== "REQ_RCVD") throw new Error(`there is nothing to reject: ${state}`);
      this.said.push(`${name} rejected`);
    };
    const destroy = () => void this.said.push(`${name} destroyed`);
    const id = { state, remoteAddress, portSpace, reject, destroy, isDestroyed: false };
    const event = { type: "CONNECT_REQUEST", id } as unknown as CmEvent;
    this.user?.onCmEvent(event);
    return event;
  }
}

describe("CmDesk", () => {
  it("requests that were withdrawn meanwhile → passed over", async () => {
    const front = new Front();
    front.ask("a", "ANSWERED");
    front.ask("b", "CLOSED");
    const live = front.ask("c", "REQ_RCVD");
    expect(await front.desk.request()).toBe(live);
    expect(front.said).toEqual(["a destroyed", "b destroyed"]);
  });

  it("one that is refused when it was withdrawn → no error: a server goes on", () => {
    const front = new Front();
    front.desk.refuse(front.ask("a", "ANSWERED"));
    front.desk.refuse(front.ask("b", "REQ_RCVD"));
    expect(front.said).toEqual(["a destroyed", "b rejected", "b destroyed"]);
  });

  it("another peer's or port space's → refused; none that is wanted → ETIMEDOUT", async () => {
    const front = new Front();
    const wanted = { from: PEER, portSpace: "TCP", timeoutMs: 20 } as const;
    const waiting = front.desk.request(wanted);
    front.ask("a", "REQ_RCVD", OTHER);
    front.ask("b", "REQ_RCVD", PEER, "UDP");
    const live = front.ask("c", "REQ_RCVD");
    expect(await waiting).toBe(live);
    front.ask("d", "REQ_RCVD", OTHER);
    await expect(front.desk.request(wanted)).rejects.toMatchObject({ code: "ETIMEDOUT" });
    const refused = ["a", "b", "d"].flatMap((name) => [`${name} rejected`, `${name} destroyed`]);
    expect(front.said).toEqual(refused);
  });
});

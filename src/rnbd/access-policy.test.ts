// SPDX-License-Identifier: MIT
// Access rules at the server: what an open gets, what a path gets, and what the log says.

import { beforeEach, describe, expect, it } from "vitest";
import { ERRNO, IpAddress } from "../base/index.js";
import { MemoryDevice } from "../block/index.js";
import { AccessRules, parseAccessRule } from "../rtrs/index.js";
import { RNBD_ACCESS } from "../wire/index.js";
import { accessPolicy } from "./access-policy.js";
import { Peer, SlowDevice } from "./rnbd-server.fixture.js";
import { RnbdServer } from "./rnbd-server.js";

const { RO, RW, MIGRATION } = RNBD_ACCESS;
let said: string[];
let server: RnbdServer;

/** Peers have the addresses 192.0.2.ID. */
function serve(...rules: string[]): void {
  const policy = accessPolicy(new AccessRules(rules.map(parseAccessRule)), (_kind, text) =>
    said.push(text),
  );
  server = new RnbdServer(policy);
  server.addVolume("disk", new MemoryDevice({ name: "disk", sizeBytes: 1 << 20 }));
}

beforeEach(() => {
  said = [];
});

describe("opens under access rules", () => {
  it("no rule → EACCES, whether there is such a volume or not; the log says why", () => {
    serve("192.0.2.1,volume=other");
    const peer = new Peer(server, 1, "blue");
    expect(peer.open("disk", RO)).toBe("EACCES");
    expect(peer.open("none", RO)).toBe("EACCES");
    expect(peer.open("other", RO)).toBe("ENOENT");
    expect(said).toEqual([
      'client 192.0.2.1, session "blue", refused with EACCES when it reads volume "disk": ' +
        "no rule is for it",
      'client 192.0.2.1, session "blue", refused with EACCES when it reads volume "none": ' +
        "no rule is for it",
    ]);
  });

  it("ro → readers get in, writers EROFS, and the log names the rule", () => {
    serve("192.0.2.0/24,volume=disk,ro");
    const peer = new Peer(server, 1, "blue");
    expect(peer.open("disk", RW)).toBe("EROFS");
    expect(peer.open("disk", MIGRATION)).toBe("EROFS");
    expect(said[0]).toContain('rule "192.0.2.0/24,volume=disk,ro"');
    expect(peer.open("disk", RO)).toBeTypeOf("object");
  });

  it("exclusive → alone, until its last request is out of the device", () => {
    serve("192.0.2.1,exclusive", "any");
    const slow = new SlowDevice();
    server.addVolume("slow", slow);
    const [alone, other] = [new Peer(server, 1, "blue"), new Peer(server, 2, "red")];
    const reader = other.openId("slow", RO);
    expect(alone.open("slow", RO)).toBe("EBUSY");
    other.close(reader);
    const id = alone.openId("slow", RW);
    for (const access of [RO, RW, MIGRATION]) expect(other.open("slow", access)).toBe("EBUSY");
    alone.io(id, 1, 0, 512);
    server.onSessionDown(alone.session);
    expect(other.open("slow", RO)).toBe("EBUSY");
    slow.finish();
    server.pump(0);
    expect(other.open("slow", RO)).toBeTypeOf("object");
    server.checkInvariants();
  });

  it("a session of several addresses → the strictest of their rules holds", () => {
    serve("192.0.2.1,rw", "192.0.2.2,ro");
    const peer = new Peer(server, 1, "blue");
    const paths = ["192.0.2.1", "192.0.2.2"].map((text) => ({
      peer: IpAddress.parse(text),
      state: "CONNECTED",
    }));
    (peer.session.paths as unknown[]).push(...paths);
    expect(peer.open("disk", RW)).toBe("EROFS");
    expect(peer.open("disk", RO)).toBeTypeOf("object");
  });
});

describe("paths under access rules", () => {
  const admit = (address: string, peer: Peer | null) =>
    server.admit(IpAddress.parse(address), peer?.session ?? null);

  it("an address without a rule → EACCES before there is a session", () => {
    serve("192.0.2.1");
    expect(admit("192.0.2.1", null)).toBe(0);
    expect(admit("127.0.0.1", null)).toBe(0);
    expect(admit("192.0.2.3", null)).toBe(ERRNO.EACCES);
    expect(said).toEqual(["client 192.0.2.3 refused with EACCES: no rule is for it"]);
  });

  it("a path that joins → must have the right to all that the session has open", () => {
    serve("192.0.2.1", "192.0.2.2", "192.0.2.3,ro", "192.0.2.4,exclusive", "192.0.2.5,volume=x");
    const peer = new Peer(server, 1, "blue");
    for (const address of ["192.0.2.3", "192.0.2.4", "192.0.2.5"]) {
      expect(admit(address, peer)).toBe(0);
    }
    peer.openId("disk", RW);
    expect(admit("192.0.2.2", peer)).toBe(0);
    for (const address of ["192.0.2.3", "192.0.2.4", "192.0.2.5"]) {
      expect(admit(address, peer)).toBe(ERRNO.EACCES);
    }
  });
});

// SPDX-License-Identifier: MIT
// Against what Linux 6.1 did: the captured peer says the same to us, and our answers are laid
// beside the kernel's. Where they differ it is on purpose, and listed here.
import { describe, expect, it } from "vitest";
import { readCapture } from "../../test/golden/captures.js";
import type { IpAddress } from "../base/index.js";
import {
  type CmMad,
  type CmMessage,
  type CmReq,
  decodeCmMad,
  type SidrReq,
} from "../wire/index.js";
import { encodeMad } from "./messages.js";
import type { ConnectionManagerOptions } from "./options.js";
import { CmHost, MS, textOf } from "./script.fixture.js";

/** BTH and DETH in front of a MAD. */
const MAD_AT = 20;
const LINUX_TIMERS = { repeatNsMin: 4096 * MS, repeatNsMax: 6144 * MS };

interface CapturedMad {
  readonly number: number;
  readonly atNs: number;
  readonly source: IpAddress;
  readonly destination: IpAddress;
  readonly bytes: Uint8Array;
  /** Null for MADs that are no CM messages. */
  readonly mad: CmMad | null;
  readonly qkey: number;
}

/** The MADs of a capture, numbered as in packets.tsv. */
function madsOf(name: string): CapturedMad[] {
  const datagrams = readCapture(name);
  const firstUs = datagrams[0]?.timestampUs ?? 0;
  return datagrams.flatMap((datagram, index) => {
    const payload = datagram.packet.slice(datagram.payloadOffset);
    const view = new DataView(payload.buffer);
    if (view.getUint8(0) !== 0x64 || (view.getUint32(4) & 0xff_ffff) !== 1) return [];
    const bytes = payload.slice(MAD_AT, MAD_AT + 256);
    const mad = decodeCmMad(new DataView(bytes.buffer), 0, 256);
    const atNs = (datagram.timestampUs - firstUs) * 1000;
    const { source, destination } = datagram;
    const qkey = view.getUint32(12);
    return [
      {
        number: index + 1,
        atNs,
        source,
        destination,
        bytes,
        mad: typeof mad === "string" ? null : mad,
        qkey,
      },
    ];
  });
}

/**
 * Us in the place of one captured host, and an application that accepts and disconnects at once.
 */
class Stand {
  readonly host: CmHost;
  readonly events: string[] = [];
  nowNs = 1_000 * MS;
  /** Our comm ids and queue pairs by the kernel's: the peer's messages name those. */
  private readonly commIds = new Map<number, number>();
  private readonly qpns = new Map<number, number>();
  readonly sent: CmMessage[] = [];

  constructor(address: IpAddress, options: Partial<ConnectionManagerOptions> = {}) {
    this.host = new CmHost([address], 5, options);
  }

  /** The captured peer speaks. @returns our answers. */
  hear(captured: CapturedMad): string[] {
    const { mad, source, destination } = captured;
    let bytes = captured.bytes;
    if (mad !== null && "remoteCommId" in mad.message) {
      const remoteCommId = this.commIds.get(mad.message.remoteCommId) ?? mad.message.remoteCommId;
      const message = { ...mad.message, remoteCommId } as CmMessage;
      if (message.kind === "DREQ") {
        message.remoteQpn = this.qpns.get(message.remoteQpn) ?? message.remoteQpn;
      }
      bytes = encodeMad(message, mad.transactionHigh, mad.transactionLow);
    }
    const view = new DataView(bytes.buffer);
    this.host.port.inbox.push({ bytes, view, offset: 0, devicePort: 0, source, destination });
    const before = this.sent.length;
    this.pump();
    return this.sent.slice(before).map(textOf);
  }

  /** What the kernel said at this point: its ids stand for ours from now on. */
  learn(message: CmMessage): void {
    const own = this.sent.at(-1);
    if (message.kind !== "REP" || own?.kind !== "REP") return;
    this.commIds.set(message.localCommId, own.localCommId);
    this.qpns.set(message.qpn, own.qpn);
  }

  /** The peer, which the kernel has refused, refuses what we have accepted. */
  endLast(said: CapturedMad): void {
    const rep = this.sent.at(-1) as Extract<CmMessage, { kind: "REP" }>;
    const rej: CmMessage = {
      kind: "REJ",
      localCommId: rep.remoteCommId,
      remoteCommId: rep.localCommId,
      rejected: 1,
      reason: 28,
      informationLength: 0,
      information: new Uint8Array(0),
      privateData: new Uint8Array(0),
    };
    this.hear({ ...said, bytes: encodeMad(rej, 0, 0), mad: null });
  }

  pump(): void {
    this.host.cm.pump(this.nowNs);
    for (let event = this.host.channel.poll(); event !== null; event = this.host.channel.poll()) {
      const { id, type } = event;
      this.events.push(type);
      if (type === "DISCONNECTED") id.disconnect();
      if (type !== "CONNECT_REQUEST") continue;
      id.bindQp(this.host.createQp(id.portSpace === "TCP" ? "RC" : "UD"));
      id.accept();
    }
    this.host.cm.checkInvariants();
    for (const { bytes } of this.host.port.sent.splice(0)) {
      const mad = decodeCmMad(new DataView(bytes.buffer), 0, 256);
      if (typeof mad !== "string") this.sent.push(mad.message);
    }
  }
}

describe("userspace-cm-vs-kernel: 40 REQ variants and other messages", () => {
  // By packet number: what we say where the kernel says something else, and why.
  const deviations = new Map<number, readonly string[]>([
    // RDMA CM's header names a source without a route back: we have no routes, and it is
    // informative.
    [21, ["REP"]],
    // The primary local GID is a third host's: the kernel tries to reach it.
    [25, ["REJ 12 INVALID_GID of REQ"]],
    [26, ["REJ 12 INVALID_GID of REQ"]],
    // MTUs that this port does not carry: the kernel takes 5 and 0, and fails later with 7.
    [42, ["REJ 26 INVALID_MTU of REQ"]],
    [45, ["REJ 26 INVALID_MTU of REQ"]],
    [48, ["REJ 26 INVALID_MTU of REQ"]],
    // A REQ that comes again while the REP is unanswered: the kernel's REP has its timer only.
    [89, ["REP"]],
  ]);
  const captured = madsOf("userspace-cm-vs-kernel");
  const endpoint = captured[0]?.source as IpAddress;
  const kernel = captured[0]?.destination as IpAddress;

  it("every one is answered as the kernel answered it, but for the listed ones", () => {
    const stand = new Stand(kernel, LINUX_TIMERS);
    stand.host.channel.listen({ address: null, port: 7300 });
    const sidr = captured.at(-2)?.mad?.message as SidrReq;
    const port = sidr.serviceIdLow & 0xffff;
    stand.host.channel.listen({ address: null, port, portSpace: "UDP" });
    const startNs = stand.nowNs;
    const differences: string[] = [];
    const met = new Set<number>();
    for (const [index, said] of captured.entries()) {
      // The wrong Q_Key is the device's to drop.
      if (!said.source.equals(endpoint) || said.qkey !== 0x8001_0000) continue;
      const answers: CmMessage[] = [];
      for (const next of captured.slice(index + 1)) {
        if (next.source.equals(endpoint)) break;
        if (next.mad !== null) answers.push(next.mad.message);
      }
      stand.nowNs = startNs + said.atNs;
      const ours = stand.hear(said);
      for (const answer of answers) stand.learn(answer);
      const expected = deviations.get(said.number) ?? answers.map(textOf);
      if (deviations.has(said.number)) met.add(said.number);
      if (ours[0] === "REP" && answers[0]?.kind === "REJ") stand.endLast(said);
      if (ours.join() !== expected.join()) {
        differences.push(
          `${said.number}: kernel ${expected.join() || "-"}, we ${ours.join() || "-"}`,
        );
      }
    }
    expect(differences).toEqual([]);
    expect(met.size).toBe(deviations.size);
  });
});

describe("a connection with Linux", () => {
  it("cm-accept-private-data: our REP is the kernel's but for what is ours", () => {
    const [req, rep] = madsOf("cm-accept-private-data") as [CapturedMad, CapturedMad];
    const stand = new Stand(req.destination);
    const { serviceIdLow } = (req.mad as CmMad).message as CmReq;
    stand.host.channel.listen({ address: null, port: serviceIdLow & 0xffff });
    expect(stand.hear(req)).toEqual(["REP"]);
    const theirs = rep.mad?.message as Extract<CmMessage, { kind: "REP" }>;
    const ours = stand.sent[0] as typeof theirs;
    expect(ours).toEqual({
      ...theirs,
      localCommId: ours.localCommId,
      qpn: ours.qpn,
      startingPsn: ours.startingPsn,
      caGuidHigh: ours.caGuidHigh,
      caGuidLow: ours.caGuidLow,
      targetAckDelay: 14,
      // The capture's application chose these three.
      rnrRetryCount: 7,
      flowControl: false,
      privateData: new Uint8Array(196),
    });
  });

  it.each(["rping-ipv4", "rping-ipv6", "rping-ipv4-mtu9000"])(
    "%s: our REQ is the kernel's but for what is ours; its REP and DREQ suit us",
    (name) => {
      const mads = madsOf(name);
      const theirs = mads[0]?.mad?.message as CmReq;
      const own = mads[0]?.source as IpAddress;
      const stand = new Stand(own);
      const id = stand.host.channel.createId();
      id.resolve({
        source: own,
        destination: mads[0]?.destination as IpAddress,
        port: theirs.serviceIdLow & 0xffff,
        sourcePort: new DataView(theirs.privateData.buffer).getUint16(2),
      });
      id.bindQp(stand.host.createQp());
      id.connect({
        responderResources: Math.min(theirs.responderResources, 128),
        initiatorDepth: Math.min(theirs.initiatorDepth, 128),
        retryCount: theirs.retryCount,
        rnrRetryCount: theirs.rnrRetryCount,
      });
      stand.pump();
      const ours = stand.sent[0] as CmReq;
      expect(ours).toEqual({
        ...theirs,
        localCommId: ours.localCommId,
        qpn: ours.qpn,
        startingPsn: ours.startingPsn,
        caGuidHigh: ours.caGuidHigh,
        caGuidLow: ours.caGuidLow,
        flowControl: false,
        // Shorter than Linux's, on purpose: one lost packet costs 134 ms instead of 2.15 s.
        primary: { ...theirs.primary, ackTimeout: 15 },
        localResponseTimeout: 17,
        mtuCode: 3,
      });
      for (const { mad, source } of mads.slice(1)) {
        if (mad === null || source.equals(own)) continue;
        expect(mad.message.kind === "REP" || mad.message.kind === "DREP").toBe(true);
      }
      const rep = mads.find(({ mad }) => mad?.message.kind === "REP") as CapturedMad;
      const message = {
        ...(rep.mad as CmMad).message,
        remoteCommId: ours.localCommId,
      } as CmMessage;
      const { transactionHigh, transactionLow } = rep.mad as CmMad;
      const bytes = encodeMad(message, transactionHigh, transactionLow);
      expect(stand.hear({ ...rep, bytes, mad: null })).toEqual(["RTU"]);
      expect(stand.events).toEqual(["ESTABLISHED"]);
      expect(id.qp?.stateName).toBe("RTS");
    },
  );
});

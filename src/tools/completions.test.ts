// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { IpAddress } from "../runtime/index.js";
import {
  type QueuePair,
  RecvWorkRequest,
  SEND_FLAG,
  SendWorkRequest,
  WC_STATUS,
} from "../verbs/index.js";
import { bringUpRc, CompletionReader, completionFailure } from "./index.js";
import { loopback, Stage } from "./tools.fixture.js";

/** Two RC queue pairs of one host, connected to each other by hand. */
async function connected() {
  const address = loopback(1);
  const stage = await Stage.open(address);
  const pd = stage.host.openDevice().allocPd();
  const memory = stage.host.map({ length: 4096 });
  const mr = pd.registerMr(memory);
  const end = () => {
    const cq = pd.context.createCq({ depth: 16 });
    const sizes = { maxSendWr: 8, maxRecvWr: 8 };
    const qp = pd.createQp({ type: "RC", sendCq: cq, recvCq: cq, ...sizes });
    return { cq, qp, reader: new CompletionReader(stage.environment, cq) };
  };
  const [a, b] = [end(), end()];
  const ends = (to: QueuePair) => ({
    port: 0,
    destination: IpAddress.parse(address),
    destinationQpn: to.qpn,
    rqPsn: 7,
    sqPsn: 7,
    pathMtu: 1024 as const,
  });
  bringUpRc(a.qp, ends(b.qp));
  bringUpRc(b.qp, ends(a.qp));
  const receive = (length: number) => {
    const wr = new RecvWorkRequest();
    wr.sgeCount = 1;
    Object.assign(wr.sges[0] ?? {}, { address: mr.address + 2048, length, lkey: mr.lkey });
    b.qp.postRecv(wr);
  };
  const send = (length: number) => {
    const wr = new SendWorkRequest();
    wr.sendFlags = SEND_FLAG.SIGNALED;
    wr.sgeCount = 1;
    Object.assign(wr.sges[0] ?? {}, { address: mr.address, length, lkey: mr.lkey });
    a.qp.postSend(wr);
  };
  return { stage, memory, a, b, receive, send };
}

describe("CompletionReader", () => {
  it("waits that are given up → nothing of them is left on the host", async () => {
    const { stage, a } = await connected();
    await using _ = stage;
    const waiting = () => stage.host["machine"]["failures"].size;
    expect(waiting()).toBe(0);
    for (let i = 0; i < 5; i++) {
      await expect(a.reader.next({ timeoutMs: 1 })).rejects.toMatchObject({ code: "ETIMEDOUT" });
    }
    const left = a.reader.next();
    a.reader.fail(new Error("the peer is gone"));
    await expect(left).rejects.toThrow(/gone/);
    expect(waiting()).toBe(0);
    const stopped = stage.host.completion(a.cq, AbortSignal.timeout(1));
    await expect(stopped).rejects.toMatchObject({ code: "EINTR" });
    expect(waiting()).toBe(0);
  });

  it("a send and its receive → one completion each, the bytes there", async () => {
    const { stage, memory, a, b, receive, send } = await connected();
    await using _ = stage;
    memory.bytes.set([1, 2, 3]);
    receive(16);
    send(3);
    const received = await b.reader.next();
    expect([received.status, received.byteLength]).toEqual([WC_STATUS.SUCCESS, 3]);
    expect((await a.reader.next()).status).toBe(WC_STATUS.SUCCESS);
    expect([...memory.bytes.subarray(2048, 2051)]).toEqual([1, 2, 3]);
    expect(a.reader.poll()).toBe(null);
  });

  it("a message that does not fit → an error that says so, on both sides", async () => {
    const { stage, a, b, receive, send } = await connected();
    await using _ = stage;
    receive(2);
    send(3);
    expect(completionFailure(await b.reader.next(), "the receive")).toMatchObject({
      code: "LOC_LEN_ERR",
      message: expect.stringContaining("the receive failed: the peer's message is longer"),
    });
    expect(completionFailure(await a.reader.next(), "SEND").code).toBe("REM_INV_REQ_ERR");
  });

  it("nothing comes → ETIMEDOUT; Ctrl-C → EINTR; fail → its error", async () => {
    const { stage, b, receive, send } = await connected();
    await using _ = stage;
    receive(16);
    await expect(b.reader.next({ timeoutMs: 5 })).rejects.toMatchObject({ code: "ETIMEDOUT" });
    send(3);
    expect((await b.reader.next()).byteLength).toBe(3);
    const waiting = b.reader.next();
    stage.interrupt();
    await expect(waiting).rejects.toMatchObject({ code: "EINTR" });
    b.reader.fail(new Error("gone"));
    await expect(b.reader.next()).rejects.toThrow("gone");
  });

  it("the host closes → ESHUTDOWN", async () => {
    const { stage, b } = await connected();
    const waiting = b.reader.next();
    const closed = expect(waiting).rejects.toMatchObject({ code: "ESHUTDOWN" });
    await stage.host.close();
    await closed;
  });
});

// SPDX-License-Identifier: MIT
// What is on the wire is RoCEv2, in the eyes of a dissector that nobody here wrote.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { Farpage, has, run, scratch, stopAll } from "./programs.js";

const folders: { remove: () => void }[] = [];
const canCapture = has("tcpdump") && has("tshark") && has("fio") && process.getuid?.() === 0;

afterEach(async () => {
  await stopAll();
  for (const folder of folders.splice(0)) folder.remove();
});

describe.runIf(canCapture)("a capture of the loopback interface", () => {
  for (const segmentation of ["on", "off"]) {
    it(`decodes as RoCEv2 without a malformed packet, segmentation ${segmentation}`, async () => {
      const folder = scratch();
      folders.push(folder);
      const file = join(folder.path, "lo.pcap");
      const tcpdump = spawn(
        "tcpdump",
        [
          "-i",
          "lo",
          "-U",
          "--immediate-mode",
          "-w",
          file,
          "-B",
          "65536",
          "-Z",
          "root",
          "udp",
          "port",
          "4791",
        ],
        { stdio: ["ignore", "ignore", "pipe"] },
      );
      // It says "listening on lo" when it does.
      await once(tcpdump.stderr, "data");
      const farpage = new Farpage([
        "up",
        "--data",
        folder.path,
        "--size",
        "64M",
        "--segmentation",
        segmentation,
      ]);
      const nbd = String((await farpage.event("ready", 0, 60_000))["nbd"]);
      await run("fio", [
        "--name=some",
        "--ioengine=nbd",
        `--uri=${nbd}`,
        "--rw=randrw",
        "--bsrange=512-128k",
        "--blockalign=512",
        "--iodepth=8",
        "--size=64M",
        "--io_size=8M",
        "--fsync=8",
      ]);
      expect(await farpage.stop()).toBe(0);
      tcpdump.kill("SIGINT");
      await once(tcpdump, "exit");
      const total = await frames(file, "");
      expect(total).toBeGreaterThan(500);
      expect(await frames(file, "infiniband.bth")).toBe(total);
      expect(await frames(file, "_ws.malformed || _ws.unreassembled")).toBe(0);
      // The whole conversation is there: connection set-up, requests, answers, the end.
      for (const filter of [
        "infiniband.mad.attributeid == 0x0010", // REQ
        "infiniband.mad.attributeid == 0x0013", // REP
        "infiniband.mad.attributeid == 0x0014", // RTU
        "infiniband.mad.attributeid == 0x0015", // DREQ
        "infiniband.mad.attributeid == 0x0016", // DREP
        "infiniband.bth.opcode == 0x0b", // RDMA WRITE only with immediate: requests
        "infiniband.bth.opcode == 0x09", // last with immediate: long writes
        "infiniband.bth.opcode == 0x0a", // RDMA WRITE only: data of short reads
        "infiniband.bth.opcode == 0x05", // SEND only with immediate: replies with their keys
        "infiniband.bth.opcode == 0x11", // acknowledgements
      ]) {
        expect(await frames(file, filter), filter).toBeGreaterThan(0);
      }
    });
  }
});

/** How many frames of a capture match a display filter. */
async function frames(file: string, filter: string): Promise<number> {
  const select = filter === "" ? [] : ["-Y", filter];
  const { stdout } = await run("tshark", [
    "-n",
    "-r",
    file,
    ...select,
    "-T",
    "fields",
    "-e",
    "frame.number",
  ]);
  return stdout.split("\n").filter((line) => line !== "").length;
}

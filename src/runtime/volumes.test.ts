// SPDX-License-Identifier: MIT
// Opening a server's volumes: usual mistakes, and the epoch that names a file's cache.

import { copyFileSync, linkSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { foreignCallsUnavailable } from "../os/index.js";
import { IpAddress, parseVolume } from "./index.js";
import { SILENT_LOG } from "./log.js";
import { loopback } from "./loopback.fixture.js";
import { Stack } from "./stack.js";
import { type OpenVolume, openVolumes } from "./volumes.js";

let folder: string;
let stack: Stack;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), "farpage-volumes-"));
  const addresses = [IpAddress.parse(loopback(87))];
  stack = await Stack.open({ addresses, log: SILENT_LOG, onFailure: () => {} });
});

afterEach(async () => {
  await stack.close();
  rmSync(folder, { recursive: true });
});

function open(...texts: string[]): Promise<OpenVolume[]> {
  const specs = texts.map((text) => parseVolume(text.replace("=/", `=${folder}/`)));
  return openVolumes(specs, stack, SILENT_LOG);
}

async function epochOf(text: string): Promise<string> {
  const [volume] = await open(text);
  volume?.device.close();
  return `${volume?.epoch.high} ${volume?.epoch.low}`;
}

describe("volumes", () => {
  it.each(["redonly", "READ_ONLY", "cache=none", "size=1M,sice=1M", "ro,x"])(
    "option %s, misspelt → refused, whether or not a file would be made",
    async (options) => {
      const word = (options.split(",").at(-1) ?? "").split("=")[0];
      for (const more of ["", ",size=1M"]) {
        await expect(open(`disk=/x,${options}${more}`)).rejects.toMatchObject({
          code: "EINVAL",
          message: expect.stringContaining(`no option "${word}"`),
        });
      }
    },
  );

  it("a file whose name ends like an option → served", async () => {
    writeFileSync(join(folder, "a,b"), Buffer.alloc(4096));
    const [volume] = await open("disk=/a,b");
    expect(volume?.device.limits.sizeBytes).toBe(4096);
    volume?.device.close();
  });

  it("one file twice → both volumes are named; readers share it", async () => {
    writeFileSync(join(folder, "disk"), Buffer.alloc(4096));
    linkSync(join(folder, "disk"), join(folder, "alias"));
    for (const pair of [
      ["a=/disk", "b=/disk"],
      ["a=/disk", "b=/alias,readonly"],
      ["a=/new,size=1M", "b=/new,size=1M"],
    ]) {
      await expect(open(...pair)).rejects.toMatchObject({
        code: "EBUSY",
        message: expect.stringMatching(/^volumes "a" and "b" are the same file/),
      });
    }
    const both = await open("a=/disk,readonly", "b=/alias,readonly");
    for (const { device } of both) device.close();
  });

  it("epoch: the same file → the same; another in its place, memory → another", async () => {
    const first = await epochOf("disk=/disk,size=1M");
    expect(await epochOf("disk=/disk")).toBe(first);
    copyFileSync(join(folder, "disk"), join(folder, "copy"));
    renameSync(join(folder, "copy"), join(folder, "disk"));
    expect(await epochOf("disk=/disk")).not.toBe(first);
    expect(await epochOf("m=memory:1M")).not.toBe(await epochOf("m=memory:1M"));
  });

  it.runIf(foreignCallsUnavailable() === null)(
    "in memory that lanes share → as in a lane's own: nothing to flush, another at each start",
    async () => {
      const specs = ["memory=memory:1M"].map(parseVolume);
      const limits = [];
      const epochs = new Set<number>();
      for (const isShared of [true, true, false]) {
        const [volume] = await openVolumes(specs, stack, SILENT_LOG, isShared);
        epochs.add(volume?.epoch.high as number);
        const { sizeBytes, volatileCache, fua, readOnly } = (volume as OpenVolume).device.limits;
        limits.push({ sizeBytes, volatileCache, fua, readOnly });
        volume?.device.close();
      }
      expect(limits[0]).toEqual(limits[2]);
      expect(limits[1]).toEqual(limits[2]);
      expect(epochs.size).toBe(3);
    },
  );
});

// SPDX-License-Identifier: MIT
// ibv_rc_pingpong and ibv_ud_pingpong: one message to and fro, every byte compared, of any size.

import { fileURLToPath } from "node:url";
import type { CaseContext, Direction, InteropCase } from "../case.js";
import { addressOf } from "../network.js";
import { checkDone, runPair } from "./pair.js";

const PORT = 18515;

/** The stock server listens on IPv4 alone: for IPv6 only the GIDs are of that version. */
async function pingpong(
  context: CaseContext,
  kind: "rc" | "ud",
  direction: Direction,
  [size, iterations]: readonly [number, number],
): Promise<void> {
  const { guest, here, ip } = context;
  const flags = ["-s", `${size}`, "-n", `${iterations}`];
  const isClient = direction === "kernel to farpage";
  const gid = await guest.gidIndex(ip);
  // -c: the stock program compares, too; the one for datagrams knows that flag as well.
  const words = [`ibv_${kind}_pingpong`, "-c", "-d", "rxe0", "-g", `${gid}`, ...flags];
  const server = isClient ? [] : [addressOf(guest.host, 4)];
  const { farpage } = await runPair(context, {
    direction,
    kernel: [...words, ...(isClient ? [here()] : [])].join(" "),
    farpage: ["pingpong", kind, ...server, "-V", ...flags, "--address", here()],
    door: { kind: "tcp", port: PORT },
  });
  checkDone(farpage, { iterations, size, verified: true });
}

const EMPTY = fileURLToPath(new URL("../../../interop/empty-pingpong.py", import.meta.url));
const EMPTY_COUNT = 100;

/** The stock program refuses 0 bytes, so pyverbs takes its part. */
function emptyCase(direction: Direction): InteropCase {
  const isClient = direction === "kernel to farpage";
  return {
    id: `pingpong-empty-${isClient ? "in" : "out"}`,
    title: `pyverbs, ${EMPTY_COUNT} messages of 0 bytes`,
    direction,
    ips: [4, 6],
    needs: ["/usr/lib/python3/dist-packages/pyverbs"],
    async run(context): Promise<undefined> {
      const { guest, here, ip } = context;
      const server = isClient ? [] : [addressOf(guest.host, 4)];
      const peer = isClient ? here() : "";
      const words = `${guest.put(EMPTY)} ${await guest.gidIndex(ip)} ${EMPTY_COUNT} ${peer}`;
      const flags = ["-s", "0", "-n", `${EMPTY_COUNT}`];
      const { farpage } = await runPair(context, {
        direction,
        kernel: `/usr/bin/python3 ${words}`,
        farpage: ["pingpong", "rc", ...server, ...flags, "--address", here()],
        door: { kind: "tcp", port: PORT },
      });
      checkDone(farpage, { iterations: EMPTY_COUNT, size: 0 });
    },
  };
}

/** Bytes of a message; the path MTU is 1024. */
const SIZES = [1, 3, 1023, 1024, 1025, 65_536, 1_000_003, 16_777_216];

function casesOf(
  name: string,
  title: string,
  kind: "rc" | "ud",
  runs: readonly (readonly [number, number])[],
  smoke: InteropCase["smoke"] = [],
): InteropCase[] {
  return (["kernel to farpage", "farpage to kernel"] as const).map((direction) => ({
    id: `pingpong-${name}-${direction === "kernel to farpage" ? "in" : "out"}`,
    title,
    direction,
    ips: [4, 6],
    smoke,
    needs: [`ibv_${kind}_pingpong`],
    async run(context): Promise<undefined> {
      for (const run of runs) await pingpong(context, kind, direction, run);
    },
  }));
}

const sized = (bytes: number) => [bytes, bytes > 100_000 ? 2 : 10] as const;

export const PINGPONG_CASES: readonly InteropCase[] = [
  ...casesOf("rc", "ibv_rc_pingpong, 100 messages of 4097 bytes", "rc", [[4097, 100]], [4]),
  ...casesOf("ud", "ibv_ud_pingpong, 100 datagrams of 1023 bytes", "ud", [[1023, 100]], [4]),
  ...casesOf("sizes", `ibv_rc_pingpong, messages of ${SIZES.join(", ")} bytes`, "rc", [
    ...SIZES.map(sized),
  ]),
  emptyCase("kernel to farpage"),
  emptyCase("farpage to kernel"),
];

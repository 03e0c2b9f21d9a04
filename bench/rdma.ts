// SPDX-License-Identifier: MIT
// RDMA between two processes over loopback, beside UCX's own benchmark over TCP on loopback.

import { FARPAGE, has, run, start } from "./programs.js";
import type { Comparison, Contender } from "./ratio.js";

const UCX_ENV = { UCX_TLS: "tcp,self", UCX_NET_DEVICES: "lo", UCX_WARN_UNUSED_ENV_VARS: "n" };
let ucxPort = 13_500;

interface Test {
  readonly figure: string;
  /** farpage's test and message size. */
  readonly name: string;
  readonly bytes: number;
  /** Requests under way at once, on both sides; what `farpage bench` takes. */
  readonly depth: number;
  /** UCX's test, and how many iterations take a second or two. */
  readonly ucx: string;
  readonly iterations: number;
  readonly kind: "bandwidth" | "latency" | "rate";
}

const TESTS: readonly Test[] = [
  stream("RDMA WRITE", "write", "ucp_put_bw", 4096, 64, 300_000),
  stream("RDMA WRITE", "write", "ucp_put_bw", 65_536, 16, 40_000),
  stream("RDMA WRITE", "write", "ucp_put_bw", 1 << 20, 4, 3_000),
  stream("RDMA READ", "read", "ucp_get", 4096, 64, 150_000),
  stream("RDMA READ", "read", "ucp_get", 65_536, 16, 40_000),
  stream("RDMA READ", "read", "ucp_get", 1 << 20, 4, 3_000),
  {
    figure: "8-byte WRITE latency",
    name: "latency",
    bytes: 8,
    depth: 1,
    ucx: "ucp_put_lat",
    iterations: 50_000,
    kind: "latency",
  },
  {
    figure: "4 KiB message rate",
    name: "rate",
    bytes: 4096,
    depth: 64,
    ucx: "tag_bw",
    iterations: 300_000,
    kind: "rate",
  },
];

function stream(
  verb: string,
  name: string,
  ucx: string,
  bytes: number,
  depth: number,
  iterations: number,
): Test {
  const size = bytes >= 1 << 20 ? `${bytes >> 20} MiB` : `${bytes >> 10} KiB`;
  return { figure: `${verb} ${size}`, name, bytes, depth, ucx, iterations, kind: "bandwidth" };
}

export function rdmaComparisons(backend: string): Comparison[] {
  if (!has("ucx_perftest")) {
    process.stderr.write("ucx_perftest is not installed (Debian: ucx-utils): RDMA is skipped\n");
    return [];
  }
  return TESTS.map((test) => ({
    figure: test.figure,
    unit: { bandwidth: "GB/s", latency: "us", rate: "messages/s" }[test.kind],
    better: test.kind === "latency" ? "less" : "more",
    ours: { name: "farpage", measure: () => measureFarpage(test, backend) },
    peers: [ucx(test)],
  }));
}

/** The same build for build: this one, and the one whose main file is `before`. */
export function rdmaPairs(before: string, backend: string): Comparison[] {
  return TESTS.map((test) => ({
    figure: test.figure,
    unit: { bandwidth: "GB/s", latency: "us", rate: "messages/s" }[test.kind],
    better: test.kind === "latency" ? "less" : "more",
    ours: { name: "farpage", measure: () => measureFarpage(test, backend) },
    peers: [{ name: "before", measure: () => measureFarpage(test, backend, before) }],
  }));
}

async function measureFarpage(test: Test, backend: string, program = FARPAGE): Promise<number> {
  const args = ["bench", test.name, "--json", "--duration", "1.5", "--backend", backend];
  args.push("--size", String(test.bytes));
  const output = await run(process.execPath, [program, ...args]);
  for (const line of output.trim().split("\n")) {
    const event = JSON.parse(line) as Record<string, number | string>;
    if (event["event"] !== "result" || event["messageBytes"] !== test.bytes) continue;
    if (event["depth"] !== test.depth) throw new Error(`farpage's depth is not ${test.depth}`);
    if (test.kind === "latency") return Number(event["medianUs"]);
    if (test.kind === "rate") return Number(event["operationsPerSecond"]);
    return Number(event["bytesPerSecond"]) / 1e9;
  }
  throw new Error(`farpage bench ${test.name} printed no result`);
}

function ucx(test: Test): Contender {
  return {
    name: `ucx_perftest ${test.ucx}, TCP`,
    measure: async () => {
      const port = String(ucxPort++);
      // The server takes one connection and ends: no probing of its port.
      let grace = 0;
      const server = await start("ucx_perftest", ["-p", port], async () => grace++ > 8, UCX_ENV);
      try {
        const output = await run(
          "ucx_perftest",
          ["127.0.0.1", ...ucxArguments(test, port)],
          UCX_ENV,
        );
        return parseUcx(output, test);
      } finally {
        await server.stop();
      }
    },
  };
}

function ucxArguments(test: Test, port: string): string[] {
  const args = ["-p", port, "-t", test.ucx, "-s", String(test.bytes)];
  args.push("-n", String(test.iterations), "-w", "1000");
  // Without it a get waits for the one before.
  if (test.kind !== "latency") args.push("-O", String(test.depth));
  return args;
}

/** "Final: iterations p50 average overall MB/s-average MB/s-overall rate-average rate-overall". */
function parseUcx(output: string, test: Test): number {
  const final = output.split("\n").find((line) => line.startsWith("Final:"));
  const numbers = (final ?? "").replace("Final:", "").trim().split(/\s+/).map(Number);
  const [, medianUs, , , , megabytes, , rate] = numbers;
  if (medianUs === undefined || megabytes === undefined || rate === undefined) {
    throw new Error(`ucx_perftest printed no result:\n${output}`);
  }
  if (test.kind === "latency") return medianUs;
  // UCX's megabyte is 2^20 bytes.
  return test.kind === "rate" ? rate : (megabytes * 1_048_576) / 1e9;
}

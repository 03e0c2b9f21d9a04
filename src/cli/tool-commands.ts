// SPDX-License-Identifier: MIT
// How the test programs are called: their flags are the stock programs' where both have them.

import { type Command, Option } from "commander";
import { runConnections } from "./connections.js";
import { runPingpongCommand } from "./pingpong.js";
import type { Reporter } from "./reporter.js";
import { runRping } from "./rping.js";

/** What a command line is made with. */
export interface CommandParts {
  readonly program: Command;
  /** Adds the flags that every command has. */
  readonly common: (command: Command) => Command;
  /** A flag that may be given several times. */
  readonly collect: (value: string, before: readonly string[] | undefined) => readonly string[];
  /** Runs a command, and tells its error. */
  readonly run: (json: boolean, command: (reporter: Reporter) => Promise<void>) => Promise<void>;
}

export function addToolCommands(parts: CommandParts): void {
  const { program, run } = parts;
  tool(parts, program.command("rping"))
    .description(
      "rping: RDMA READ and WRITE of a client's buffers; either side may be the stock one",
    )
    .option("-s, --server", "wait for a client", false)
    .option("-c, --client <ip>", "ping this server")
    .option("-p, --port <port>", "RDMA CM port", "7174")
    .option("-C, --count <n>", "client: pings; 0: until stopped", "10")
    .option("-S, --size <bytes>", "client: bytes of a ping, 1 to 65535", "64")
    .option(
      "-P, --persistent",
      "server: serve clients until stopped, not the first one alone",
      false,
    )
    .option("-V, --validate", "compare every byte", false)
    .option("-v, --show-pings", "tell the text of each ping", false)
    .action((options) => run(options.json, (reporter) => runRping(options, reporter)));
  tool(parts, program.command("pingpong"))
    .description("ibv_rc_pingpong, ibv_ud_pingpong: one message to and fro")
    .argument("<kind>", "rc or ud")
    .argument("[server]", "IP address to connect to; without it, be the server")
    .option("-p, --port <port>", "TCP port", "18515")
    .option(
      "-s, --size <bytes>",
      "of a message, the same on both sides (default: rc 4096, ud 2048)",
    )
    .option("-n, --iters <n>", "messages each way, the same on both sides", "1000")
    .option("-m, --mtu <bytes>", "rc: path MTU, the same on both sides", "1024")
    .option("-r, --rx-depth <n>", "receives posted", "500")
    .option("-V, --validate", "check every byte", false)
    .action((kind, server, options) =>
      run(options.json, (reporter) => runPingpongCommand({ kind, server }, options, reporter)),
    );
  connections(parts, "ucmatose", {
    description: "ucmatose: many connections at once, messages both ways, disconnects",
    port: "7471",
  });
  connections(parts, "udaddy", {
    description: "udaddy: queue pairs resolved by RDMA CM, datagrams both ways",
    port: "7174",
  });
}

/** ucmatose and udaddy: the same flags, other protocols. */
function connections(
  parts: CommandParts,
  name: "ucmatose" | "udaddy",
  text: { readonly description: string; readonly port: string },
): void {
  tool(parts, parts.program.command(name))
    .description(text.description)
    .option("-s, --server", "wait for a client", false)
    .option("--client <ip>", "connect to this server")
    .option("-p, --port <port>", "RDMA CM port", text.port)
    .option("-c, --connections <n>", "how many, the same on both sides", "1")
    .option("-C, --count <n>", "messages each way on each, the same on both sides", "10")
    .option("-S, --size <bytes>", "of a message, the same on both sides", "100")
    .option("-V, --validate", "compare the bytes", false)
    .action((options) =>
      parts.run(options.json, (reporter) => runConnections(name, options, reporter)),
    );
}

/** Flags of every test program. */
function tool(parts: CommandParts, command: Command): Command {
  return parts
    .common(command)
    .option(
      "--address <ip>",
      "local address (default: the one towards the server; a server: all); may be repeated",
      parts.collect,
    )
    .addOption(
      new Option("--timeout <seconds>", "how long the peer may stay silent").default("30"),
    );
}

#!/usr/bin/env node
// SPDX-License-Identifier: MIT
// The command line. Each command is a file of its own; here is only how they are called.

import { readFileSync } from "node:fs";
import { Command, InvalidArgumentError, Option } from "commander";
import { z } from "zod";
import { runAttach } from "./attach.js";
import { runBench } from "./bench.js";
import { runCopy } from "./copy.js";
import { addMemCommands } from "./mem-commands.js";
import { addP2pCommands } from "./p2p-commands.js";
import { runPerf } from "./perf.js";
import { ignoreBrokenPipe, Reporter } from "./reporter.js";
import { runServe } from "./serve.js";
import { runStat } from "./stat.js";
import { addToolCommands } from "./tool-commands.js";
import { runTrace } from "./trace.js";
import { runUp } from "./up.js";

const packageJson = z
  .object({ version: z.string() })
  .parse(JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")));

/** A flag that may be given several times. */
function collect(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), ...value.split(",")];
}

/** The same for values that may hold commas. */
function collectWhole(value: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), value];
}

function onOff(value: string): boolean {
  if (["true", "on", "yes", "1"].includes(value)) return true;
  if (["false", "off", "no", "0"].includes(value)) return false;
  throw new InvalidArgumentError("It is neither true nor false.");
}

function common(command: Command): Command {
  return command
    .option("--json", "one JSON object a line on standard output", false)
    .option("--verbose", "log what happens to standard error", false)
    .option("--trace <file>", "write every packet to a file from the first on (pcapng)")
    .addOption(
      new Option("--backend <which>", "how to reach the system: foreign calls, or Node alone")
        .choices(["auto", "native", "node"])
        .default("auto"),
    )
    .addOption(
      new Option(
        "--segmentation <on>",
        "let the kernel cut bursts into packets; off: captures show each packet by itself",
      )
        .argParser(onOff)
        .default(true, "on"),
    );
}

/** What the commands with an NBD endpoint share. */
function endpoint(command: Command): Command {
  return command
    .option("--nbd <endpoint>", "where NBD clients connect: unix:PATH or tcp:HOST:PORT")
    .option("--nbd-connections <n>", "NBD clients at once; each has buffers of its own", "16");
}

const program = new Command("farpage")
  .description("An RDMA host in user space: disks over RoCEv2, on any machine with a UDP socket")
  .version(packageJson.version)
  // "-V" after a command is that command's.
  .enablePositionalOptions()
  .showHelpAfterError("(try farpage --help)")
  .configureHelp({ showGlobalOptions: true });

endpoint(common(program.command("up")))
  .description(
    "everything on one machine: a server, a client and an NBD endpoint, for a first look",
  )
  .option("--data <dir>", "where the volume and the socket go (default: the user's state folder)")
  .option("--size <size>", "size of the volume when it is made (default: 1G)")
  .option("--address <ip>", "two loopback addresses, server's and client's", collect)
  .action((options) => run(options.json, (reporter) => runUp(options, reporter)));

common(program.command("serve"))
  .description("export volumes over RTRS/RNBD, and folders to copy to and from")
  .requiredOption("--address <ip>", "local address to serve on; may be repeated", collect)
  .option(
    "--volume <name=path>",
    "NAME=PATH[,size=SIZE][,readonly] or NAME=memory:SIZE; may be repeated",
    collectWhole,
  )
  .option(
    "--copy <name=dir>",
    "NAME=DIR[,readonly]: a folder that farpage copy may use; may be repeated",
    collectWhole,
  )
  .option("--copy-port <port>", "RTRS port of copies", "1235")
  .option(
    "--allow <rule>",
    "who may open what: CLIENTS[,session=NAME][,volume=NAME][,ro|rw|exclusive|none]; the first " +
      "that fits decides (default: loopback alone)",
    collectWhole,
  )
  .option("--allow-file <file>", "more such rules, one a line, asked behind those of --allow")
  .option("--port <port>", "RTRS port", "1234")
  .option("--data <dir>", "folder that relative volume paths start from")
  .option("--queue-depth <n>", "requests in flight per session", "128")
  .option("--chunk <size>", "bytes of one request's buffer, a power of two", "128K")
  .option("--sessions <n>", "sessions at once", "16")
  .option("--paths <n>", "paths of one session at once", "4")
  .option("--lanes <n>", "threads that serve, each a share of the sessions", "1")
  .addOption(new Option("--until-stdin-ends").default(false).hideHelp())
  .addOption(new Option("--plain-log").default(false).hideHelp())
  .option(
    "--always-invalidate <bool>",
    "peers' keys are invalid while a buffer is looked at",
    onOff,
    true,
  )
  .action((options) => run(options.json, (reporter) => runServe(options, reporter)));

endpoint(common(program.command("attach")))
  .description("volumes of a server as an NBD endpoint here")
  .argument("[uri...]", "rnbd://IP[,IP…][:PORT]/NAME; several of one server may be named")
  .option("--address <ip>", "local address to connect from; may be repeated", collect)
  .option("--path <[source@]destination>", "a further path; may be repeated", collectWhole)
  .option("--policy <name>", "round-robin, min-inflight (default) or min-latency")
  .option("--data <dir>", "folder of the NBD socket when --nbd is not given")
  .option("--readonly", "open the volumes for reading only", false)
  .option("--connections <n>", "RC connections that carry requests", "1")
  .option("--lanes <n>", "threads that serve NBD connections, with a session each", "1")
  .option(
    "--session <name>",
    "session name, unique on the server (default: made from this host's name)",
  )
  .option(
    "--timeout <seconds>",
    "give up when the server can't be reached for so long at the start",
    "30",
  )
  .option(
    "--io-timeout <seconds>",
    "fail requests when the server stays away for so long (default: wait for ever)",
  )
  .option(
    "--always-invalidate <bool>",
    "buffers are writable by the server only while a read is on its way",
    onOff,
    true,
  )
  .optionsGroup("Of an instance that runs (attach [INSTANCE] with one of these, or --policy):")
  .option("--status", "its session, paths and connections", false)
  .option("--add-path <[source@]destination>", "adds a path; may be repeated", collectWhole)
  .option("--remove-path <[source@]destination>", "takes a path away", collectWhole)
  .option("--reset-counters", "counts from 0 again", false)
  .action((uris, options) => run(options.json, (reporter) => runAttach(uris, options, reporter)));

common(program.command("copy"))
  .description("files to a server or from one: farpage copy FILE... rtrs://IP/EXPORT, and back")
  .argument("<what...>", "files, folders or rtrs://IP[:PORT]/EXPORT[/PATH]; the last is the target")
  .option("--address <ip>", "local address (default: the one that leads to the server)")
  .option("--connections <n>", "RC connections that carry requests", "1")
  .option("--timeout <seconds>", "give up when the server can't be reached for so long", "30")
  .option("--quiet", "no progress", false)
  .action((what, options) => run(options.json, (reporter) => runCopy(what, options, reporter)));

common(program.command("bench"))
  .description("bandwidth, latency and message rate of RDMA, between two processes over loopback")
  .argument("[test...]", "write, read, latency, rate; all of them by default")
  .option("--duration <seconds>", "per measurement", "2")
  .option("--size <bytes>", "this message size alone, such as 64K")
  .option("--address <ip>", "two local addresses", collect)
  .addOption(new Option("--role <role>").hideHelp())
  .action((tests, options) => run(options.json, (reporter) => runBench(tests, options, reporter)));

common(program.command("perf"))
  .description("the other side of perftest: ib_write_bw, ib_read_lat and their like")
  .argument("<verb>", "write, read, send, atomic")
  .argument("<kind>", "bw or lat")
  .argument("[server]", "whom to connect to; without it, be the server")
  .option("--address <ip>", "local address (default: towards the server, else all)", collect)
  .option("-s, --size <bytes>", "of a message (default: 64K for bw, 2 for lat, 8 for atomic)")
  .option("-a, --all", "every power of two from 2 bytes to 8 MiB", false)
  .option("-n, --iterations <n>", "messages (default: 5000 for bw, 1000 for lat)")
  .option("-D, --duration <seconds>", "measure for so long instead: one-way write, read, atomic bw")
  .option("-p, --port <port>", "TCP or RDMA CM port", "18515")
  .option("-R, --cm", "connect by RDMA CM", false)
  .addOption(
    new Option("-c, --connection <type>", "kind of queue pair").choices(["RC", "UD"]).default("RC"),
  )
  .option("-b, --bidirectional", "both sides send", false)
  .option("-m, --mtu <bytes>", "path MTU at most, 256 to 4096")
  .option("-t, --tx-depth <n>", "requests under way", "128")
  .option("-r, --rx-depth <n>", "receives posted", "512")
  .option("-o, --outs <n>", "READs and atomics under way", "128")
  .option("-u, --qp-timeout <n>", "ACK timeout, 4 us * 2^n", "18")
  .action((verb, kind, server, options) =>
    run(options.json, (reporter) => runPerf({ verb, kind, server }, options, reporter)),
  );

addToolCommands({ program, common, collect, run });
addMemCommands({ program, collect, run });
addP2pCommands({ program, collect, run });
program
  .command("trace")
  .description("what a running instance sends and receives, as pcapng for tshark and Wireshark")
  .argument("[instance]", "process id, command or address; not needed when only one runs")
  .requiredOption("-w, --write <file>", "the file; - is standard output")
  .option("--data <dir>", "the instance whose state is in this folder")
  .option("--duration <seconds>", "stop after so long")
  .option("--packets <n>", "stop after so many packets")
  .option("--filter <what>", "a peer's address or a QPN (0x12ab); may be repeated", collect)
  .option("--snap <bytes>", "bytes of each packet that are kept at most")
  .option("--buffer <size>", "memory for what the file has not taken yet (default: 16M)")
  .option("--json", "one JSON object on standard output", false)
  .action((target, options) =>
    run(options.json, (reporter) => runTrace(target, options, reporter)),
  );

program
  .command("stat")
  .description("what a running instance has counted, by queue pair")
  .argument("[instance]", "process id, command or address; not needed when only one runs")
  .option("--data <dir>", "the instance whose state is in this folder")
  .option("--json", "one JSON object on standard output", false)
  .action((target, options) => run(options.json, (reporter) => runStat(target, options, reporter)));

async function run(json: boolean, command: (reporter: Reporter) => Promise<void>): Promise<void> {
  const reporter = new Reporter(json);
  try {
    await command(reporter);
  } catch (error) {
    reporter.fail(error);
    process.exitCode = 1;
  }
}

// A reader of our output that goes away ("farpage up 2>&1 | head") is no bug.
for (const stream of [process.stdout, process.stderr]) stream.on("error", ignoreBrokenPipe);

await program.parseAsync();

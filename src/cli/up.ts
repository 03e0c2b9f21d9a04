// SPDX-License-Identifier: MIT
// `farpage up`: a first look. A server host in a process of its own, a client host with an NBD
// endpoint in this one, both on loopback addresses, every byte between them in RoCEv2 packets.

import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants, existsSync, statSync } from "node:fs";
import { join, parse, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import { AttachHost, FarpageError, formatSize, IpAddress, makeFolder } from "../runtime/index.js";
import { attachedFields, attachedText, socketIn } from "./attach.js";
import { createLog } from "./log.js";
import { observing } from "./observe.js";
import { checkOptions, defaultDataDirectory, UP_OPTIONS } from "./options.js";
import type { Reporter } from "./reporter.js";
import { StopSignal } from "./signals.js";

const VOLUME = "disk";
const SIZE_BYTES = 2 ** 30;
/**
 * Pairs of loopback addresses that are tried in turn, so that two users of a machine both get one.
 */
const PAIRS_TRIED = 16;
/** How long the server may take to say that it is ready, and to stop. */
const CHILD_TIMEOUT_MS = 20_000;
/** How long a file that another process holds is tried for, and how often. */
const BUSY_RETRY_MS = 6_000;
const BUSY_PAUSE_MS = 400;

const CHILD_EVENT = z.object({
  event: z.string(),
  code: z.string().optional(),
  text: z.string().optional(),
});

/** The server's process. */
interface ServerProcess {
  readonly pid: number;
  /** Rejects when it ends though nobody stopped it. */
  readonly failed: Promise<never>;
  stop(): Promise<void>;
}

export async function runUp(raw: unknown, reporter: Reporter): Promise<void> {
  const options = checkOptions(UP_OPTIONS, raw);
  // npm, as in `npm start`, may be ended without a word to what it has started.
  const stop = new StopSignal({ orParentEnd: true });
  const folder = dataFolder(options.data ?? defaultDataDirectory());
  const file = join(folder, `${VOLUME}.img`);
  // A disk that is there keeps its size.
  const isThere = existsSync(file);
  if (isThere && options.size !== undefined && statSync(file).size !== options.size) {
    const size = formatSize(statSync(file).size);
    reporter.warn(`--size is for a new disk: ${file} is there and keeps its ${size}`);
  }
  const size = options.size ?? SIZE_BYTES;
  const serveArguments = [
    "--volume",
    isThere ? `${VOLUME}=${file}` : `${VOLUME}=${file},size=${size}`,
    "--backend",
    options.backend,
    "--segmentation",
    options.segmentation ? "on" : "off",
    ...(options.verbose ? ["--verbose"] : []),
    ...(options.trace === undefined ? [] : ["--trace", serverTrace(options.trace)]),
    ...(options.json ? [] : ["--plain-log"]),
  ];
  const { server, addresses } = await startServer(serveArguments, options.address);
  let attached: AttachHost;
  try {
    attached = await AttachHost.start({
      addresses: [addresses[1]],
      target: { addresses: [addresses[0]], port: 1234, volume: VOLUME },
      nbd: options.nbd ?? socketIn(folder, VOLUME),
      nbdConnectionCountMax: options.nbdConnections,
      connectTimeoutMs: 20_000,
      backend: options.backend,
      segmentation: options.segmentation,
      ...observing("up", { ...options, data: folder }),
      log: createLog(options),
    });
  } catch (error) {
    await server.stop();
    throw error;
  }
  const fields = { ...attachedFields(attached), addresses: addresses.map(String), file };
  reporter.event("ready", { ...fields, serverPid: server.pid }, welcome(attached, addresses, file));
  try {
    const signal = await stop.wait(Promise.race([attached.failed, server.failed]));
    reporter.event("stopping", { signal }, null);
  } finally {
    // The client first: what it still has in flight needs the server.
    try {
      await attached.close();
    } finally {
      await server.stop();
    }
  }
  reporter.event("stopped", {}, `stopped; the disk stays in ${file}`);
}

/** The server is another process and needs a file of its own: "x.pcapng" and "x-server.pcapng". */
function serverTrace(path: string): string {
  const { dir, name, ext } = parse(path);
  return join(dir, `${name}-server${ext}`);
}

function dataFolder(path: string): string {
  const folder = resolve(path);
  try {
    makeFolder(folder, 0o700);
    accessSync(folder, constants.W_OK);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? "EIO";
    const why = `can't write in ${folder}; name another folder with --data`;
    throw new FarpageError(code, why, { cause });
  }
  return folder;
}

type Pair = readonly [server: IpAddress, client: IpAddress];

async function startServer(
  serveArguments: readonly string[],
  wanted: readonly IpAddress[] | undefined,
): Promise<{ server: ServerProcess; addresses: Pair }> {
  if (wanted !== undefined) {
    const pair = [wanted[0], wanted[1]] as Pair;
    return { server: await spawnServer(pair[0], serveArguments), addresses: pair };
  }
  for (let i = 1; ; i++) {
    // 127.0.0.2 and 127.0.0.3, then 127.0.0.4 and 127.0.0.5, ...
    const pair: Pair = [IpAddress.v4(0x7f000000 + 2 * i), IpAddress.v4(0x7f000001 + 2 * i)];
    try {
      return { server: await spawnServer(pair[0], serveArguments), addresses: pair };
    } catch (error) {
      const taken = error instanceof FarpageError && error.code === "EADDRINUSE";
      if (!taken || i === PAIRS_TRIED) throw error;
    }
  }
}

/**
 * Starts the server. The server of a former `up` that was killed may need a moment to notice, and
 * holds the file until then.
 */
async function spawnServer(
  address: IpAddress,
  serveArguments: readonly string[],
): Promise<ServerProcess> {
  const endMs = performance.now() + BUSY_RETRY_MS;
  for (;;) {
    try {
      return await spawnOnce(address, serveArguments);
    } catch (error) {
      const busy = error instanceof FarpageError && error.code === "EBUSY";
      if (!busy || performance.now() + BUSY_PAUSE_MS > endMs) throw error;
      await new Promise((resolveWait) => setTimeout(resolveWait, BUSY_PAUSE_MS));
    }
  }
}

async function spawnOnce(
  address: IpAddress,
  serveArguments: readonly string[],
): Promise<ServerProcess> {
  const main = fileURLToPath(new URL("main.js", import.meta.url));
  const child = spawn(
    process.execPath,
    [
      main,
      "serve",
      "--json",
      "--until-stdin-ends",
      "--address",
      String(address),
      ...serveArguments,
    ],
    // A group of its own: Ctrl-C reaches this process alone, which stops the client first.
    { stdio: ["pipe", "pipe", "pipe"], detached: true },
  );
  const ended = new Promise<number | null>((resolveEnd) => {
    child.once("exit", (status) => resolveEnd(status));
    child.once("error", () => resolveEnd(null));
  });
  // Its error reaches us as an event, and our user once, from us.
  await readyOf(child, ended);
  child.stderr?.pipe(process.stderr);
  let stopping = false;
  const failed = ended.then((status): Promise<never> => {
    if (stopping) return new Promise(() => {});
    throw new FarpageError("ESHUTDOWN", `the server process ended (status ${status ?? "none"})`);
  });
  failed.catch(() => {});
  return {
    pid: child.pid ?? 0,
    failed,
    async stop() {
      stopping = true;
      child.kill("SIGTERM");
      const timer = setTimeout(() => child.kill("SIGKILL"), CHILD_TIMEOUT_MS);
      await ended;
      clearTimeout(timer);
    },
  };
}

/** Reads the server's events until it is ready; throws its error as ours. */
async function readyOf(child: ChildProcess, ended: Promise<number | null>): Promise<void> {
  if (child.stdout === null) throw new FarpageError("EIO", "the server process has no output");
  let complaints = "";
  const keep = (text: unknown): void => {
    complaints = `${complaints}${String(text)}`.slice(-4096);
  };
  child.stderr?.on("data", keep);
  const lines = createInterface({ input: child.stdout });
  const timer = setTimeout(() => child.kill("SIGKILL"), CHILD_TIMEOUT_MS);
  try {
    for await (const line of lines) {
      const event = CHILD_EVENT.parse(JSON.parse(line));
      if (event.event === "ready") {
        process.stderr.write(complaints);
        return;
      }
      if (event.event === "error") {
        throw new FarpageError(event.code ?? "EIO", event.text ?? "the server failed");
      }
    }
  } finally {
    clearTimeout(timer);
    lines.close();
    child.stdout.resume();
    child.stderr?.off("data", keep);
  }
  process.stderr.write(complaints);
  throw new FarpageError("ESHUTDOWN", `the server process ended (status ${await ended})`);
}

function welcome(attached: AttachHost, addresses: Pair, file: string): string {
  return [
    `server host ${addresses[0]} (${file}), client host ${addresses[1]}, RoCEv2 between them`,
    attachedText(attached),
    "",
    "try:",
    `  nbdinfo '${attached.nbdUri}'`,
    `  qemu-img info '${attached.nbdUri}'`,
    `  nbdcopy FILE '${attached.nbdUri}'`,
    "  tcpdump -i lo udp port 4791",
    "",
    "Ctrl-C stops it.",
  ].join("\n");
}

// SPDX-License-Identifier: MIT
// The asking side of control sockets: finds running instances and talks to them.

import { readdirSync, unlinkSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { FarpageError } from "../../base/index.js";
import {
  CONTROL_VERSION,
  type ControlRequest,
  HELLO,
  type Hello,
  REPLY,
  REPLY_BYTES_MAX,
} from "./protocol.js";
import { checkRuntimeFolder, runtimeFolder } from "./runtime-folder.js";

/** How long an instance may take to answer. */
const ANSWER_MS = 5_000;
const NEWLINE = 10;

/** An instance that runs. */
export interface Instance extends Hello {
  readonly path: string;
}

/** A connection to an instance. */
export class ControlClient {
  readonly socket: Socket;
  private chunks: Buffer[] = [];
  private size = 0;
  private failure: Error | null = null;
  private isEnded = false;
  private wake: (() => void) | null = null;

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.chunks.push(chunk);
      this.size += chunk.length;
      // As much as a reader may have waiting; it goes on when somebody takes it.
      if (this.size > REPLY_BYTES_MAX) socket.pause();
      this.wakeUp();
    });
    socket.on("end", () => this.finish(null));
    socket.on("error", (error) => this.finish(error));
    socket.on("close", () => this.finish(null));
  }

  /** @throws FarpageError ECONNREFUSED (nobody listens), EACCES, ENOENT. */
  static async connect(path: string): Promise<ControlClient> {
    const socket = connect({ path });
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", (cause: NodeJS.ErrnoException) => {
        const code = cause.code ?? "EIO";
        reject(new FarpageError(code, `can't reach the instance at ${path}: ${code}`, { cause }));
      });
    });
    socket.removeAllListeners("error");
    return new ControlClient(socket);
  }

  /**
   * Asks and waits for the answer.
   * @throws FarpageError what the instance refused with; ETIMEDOUT, EPROTO, EPIPE.
   */
  async ask(request: ControlRequest): Promise<Readonly<Record<string, unknown>>> {
    this.say(request);
    const line = await this.line();
    let reply: unknown;
    try {
      reply = JSON.parse(line);
    } catch {
      throw new FarpageError("EPROTO", "the instance's answer is no JSON");
    }
    const checked = REPLY.safeParse(reply);
    if (!checked.success) throw new FarpageError("EPROTO", "the instance's answer is none");
    if (!checked.data.ok) {
      const { code, text } = checked.data as { code: string; text: string };
      throw new FarpageError(code, text);
    }
    return checked.data;
  }

  /** Says something that has no answer of its own. */
  say(request: ControlRequest): void {
    this.socket.write(`${JSON.stringify(request)}\n`);
  }

  /** What comes after an answer, as it comes, until the instance ends the connection. */
  async *bytes(): AsyncGenerator<Buffer, void, undefined> {
    for (;;) {
      for (let chunk = this.chunks.shift(); chunk !== undefined; chunk = this.chunks.shift()) {
        this.size -= chunk.length;
        yield chunk;
        this.socket.resume();
      }
      if (this.isEnded) return;
      await this.more();
    }
  }

  /** From now on the connection ends when nothing comes for so long, though it would be taken. */
  endAfterSilence(milliseconds: number): void {
    this.socket.setTimeout(milliseconds, () => {
      if (!this.socket.isPaused()) this.socket.destroy();
    });
  }

  close(): void {
    this.socket.destroy();
  }

  private async line(): Promise<string> {
    const timer = setTimeout(() => {
      this.finish(new FarpageError("ETIMEDOUT", "the instance does not answer"));
    }, ANSWER_MS);
    try {
      for (;;) {
        const all = Buffer.concat(this.chunks);
        const end = all.indexOf(NEWLINE);
        if (end >= 0) {
          this.chunks = [all.subarray(end + 1)];
          this.size = all.length - end - 1;
          this.socket.resume();
          return all.toString("utf8", 0, end);
        }
        if (all.length > REPLY_BYTES_MAX) {
          throw new FarpageError("EPROTO", "the instance's answer has no end");
        }
        if (this.failure !== null) throw this.failure;
        if (this.isEnded) throw new FarpageError("EPIPE", "the instance ended without an answer");
        this.chunks = [all];
        await this.more();
      }
    } finally {
      clearTimeout(timer);
    }
  }

  private more(): Promise<void> {
    return new Promise((resolve) => {
      this.wake = resolve;
    });
  }

  private wakeUp(): void {
    this.wake?.();
    this.wake = null;
  }

  private finish(error: Error | null): void {
    this.failure ??= error;
    this.isEnded = true;
    this.wakeUp();
  }
}

/** Whether somebody listens at a socket's path. */
export async function isAnswering(path: string): Promise<"answers" | "stale" | "absent"> {
  try {
    (await ControlClient.connect(path)).close();
    return "answers";
  } catch (error) {
    const code = error instanceof FarpageError ? error.code : "";
    if (code === "ENOENT") return "absent";
    // Somebody is there who can't take us now, or whom we may not ask: not ours to remove.
    return code === "ECONNREFUSED" ? "stale" : "answers";
  }
}

/** @throws FarpageError as `ControlClient`, and EPROTO for an instance of another version. */
export async function helloOf(path: string): Promise<Instance> {
  const client = await ControlClient.connect(path);
  try {
    const hello = HELLO.safeParse(await client.ask({ request: "hello" }));
    if (!hello.success || hello.data.version !== CONTROL_VERSION) {
      throw new FarpageError("EPROTO", `${path} is of another version of farpage`);
    }
    return { ...hello.data, path };
  } finally {
    client.close();
  }
}

/**
 * Instances of this user, by process id. What a killed process has left is removed.
 * @param folder default: `runtimeFolder()`.
 * @throws FarpageError EACCES when somebody else could have put a socket there.
 */
export async function listInstances(folder = runtimeFolder()): Promise<Instance[]> {
  checkRuntimeFolder(folder);
  let names: string[];
  try {
    names = readdirSync(folder).filter((name) => /^\d+(-\d+)?\.sock$/.test(name));
  } catch {
    return [];
  }
  // All at once: one that is stopped costs its time limit, and none of the others'.
  const found = await Promise.all(names.map((name) => answerOf(join(folder, name))));
  return found
    .filter((instance) => instance !== null)
    .sort((a, b) => a.pid - b.pid || a.startedMs - b.startedMs);
}

async function answerOf(path: string): Promise<Instance | null> {
  try {
    return await helloOf(path);
  } catch (error) {
    if (error instanceof FarpageError && error.code === "ECONNREFUSED") removeStale(path);
    return null;
  }
}

function removeStale(path: string): void {
  try {
    unlinkSync(path);
  } catch {
    // Somebody else was quicker, or it is not ours.
  }
}

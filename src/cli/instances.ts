// SPDX-License-Identifier: MIT
// Which running instance a command means.

import { realpathSync } from "node:fs";
import { resolve } from "node:path";
import { FarpageError, helloOf, type Instance, listInstances } from "../runtime/index.js";

/**
 * Finds the one instance that is meant.
 * @param target a process id, a command's name, an address of the host, or a control socket's path;
 *   undefined: the only one that runs.
 * @param data its state folder.
 * @param names commands that it can be one of; default any.
 * @throws FarpageError ENOENT when none is meant, EINVAL when several are, listing them.
 */
export async function findInstance(
  target: string | undefined,
  data: string | undefined,
  names: readonly string[] = [],
): Promise<Instance> {
  if (target?.includes("/")) return helloOf(resolve(target));
  const all = await listInstances();
  const folder = data === undefined ? null : realPath(data);
  const found = all.filter(
    (instance) =>
      (target === undefined || isCalled(instance, target)) &&
      (target !== undefined || names.length === 0 || names.includes(instance.name)) &&
      (folder === null || (instance.data !== null && realPath(instance.data) === folder)),
  );
  const [first] = found;
  if (first !== undefined && found.length === 1) return first;
  if (found.length > 1) {
    throw new FarpageError(
      "EINVAL",
      `several are running, name one by its process id or an address\n${listOf(found)}`,
    );
  }
  const others = all.length === 0 ? "" : `, but these\n${listOf(all)}`;
  const kind = names.length === 0 ? "instance of farpage" : `farpage ${names.join(" or ")}`;
  const what = target === undefined && folder === null ? "no" : "no such";
  throw new FarpageError("ENOENT", `${what} ${kind} is running for this user${others}`);
}

function isCalled(instance: Instance, target: string): boolean {
  return (
    String(instance.pid) === target ||
    instance.name === target ||
    instance.addresses.includes(target)
  );
}

function listOf(instances: readonly Instance[]): string {
  return instances
    .map(({ pid, name, addresses, data }) => {
      const folder = data === null ? "" : `, data in ${data}`;
      return `  ${pid}  ${name} on ${addresses.join(", ")}${folder}`;
    })
    .join("\n");
}

function realPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return resolve(path);
  }
}

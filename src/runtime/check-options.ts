// SPDX-License-Identifier: MIT
// What callers of the library hand over, checked: not all of them have a compiler that does. Each
// check throws FarpageError EINVAL naming the field; none costs an allocation.

import { FarpageError } from "../base/index.js";
import { MemoryRegion, ProtectionDomain } from "../verbs/index.js";

function invalid(field: string, wanted: string): FarpageError {
  return new FarpageError("EINVAL", `${field}: ${wanted} is wanted`);
}

/** An object of options; `{}` when it is missing is the caller's to say. */
export function checkObject(field: string, value: unknown): void {
  if (typeof value !== "object" || value === null) throw invalid(field, "an object");
}

export function checkText(field: string, value: unknown): void {
  if (typeof value !== "string" || value === "") throw invalid(field, "a string");
}

/** A whole number, `min` .. `max`. */
export function checkWhole(field: string, value: unknown, min: number, max: number): void {
  if (Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max) return;
  throw invalid(field, `a whole number, ${min} to ${max},`);
}

export function checkBytes(field: string, value: unknown): void {
  if (!(value instanceof Uint8Array)) throw invalid(field, "a Uint8Array");
}

export function checkBigint(field: string, value: unknown): void {
  if (typeof value !== "bigint") throw invalid(field, "a bigint");
}

export function checkPd(field: string, value: unknown): void {
  if (value instanceof ProtectionDomain) return;
  throw invalid(field, "a protection domain (openDevice().allocPd())");
}

export function checkRegion(field: string, value: unknown): void {
  if (value instanceof MemoryRegion) return;
  throw invalid(field, "a memory region (pd.registerMr())");
}

/** An immediate: 32 bits, as a number of either sign. */
export function checkImmediate(field: string, value: unknown): void {
  checkWhole(field, value, -0x8000_0000, 0xffff_ffff);
}

/** A place in a peer's memory. */
export function checkPlace(field: string, value: unknown): void {
  checkObject(field, value);
  const { address, rkey } = value as { address: unknown; rkey: unknown };
  const isAddress = typeof address === "bigint" || Number.isSafeInteger(address);
  if (!isAddress || (address as number | bigint) < 0) {
    throw invalid(`${field}.address`, "a number below 2^53 or a bigint, not negative,");
  }
  checkWhole(`${field}.rkey`, rkey, -0x8000_0000, 0xffff_ffff);
}

/** Options of both ends of a connection. */
export function checkQueues(options: unknown): void {
  checkObject("options", options);
  const { pd, privateData, sendDepth, receiveDepth } = options as Record<string, unknown>;
  checkPd("pd", pd);
  if (privateData !== undefined) checkBytes("privateData", privateData);
  if (sendDepth !== undefined) checkWhole("sendDepth", sendDepth, 1, 0xffff);
  if (receiveDepth !== undefined) checkWhole("receiveDepth", receiveDepth, 1, 0xffff);
}

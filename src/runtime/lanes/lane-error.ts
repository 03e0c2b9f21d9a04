// SPDX-License-Identifier: MIT
import { FarpageError } from "../../base/index.js";
import type { LaneError } from "./protocol.js";

/** What of an error can go to another thread. */
export function packError(error: unknown): LaneError {
  if (!(error instanceof Error)) return { code: null, message: String(error), stack: "" };
  const code = error instanceof FarpageError ? error.code : null;
  return { code, message: error.message, stack: error.stack ?? "" };
}

/** The error again: a FarpageError if it was one. */
export function unpackError(packed: LaneError): Error {
  const { code, message, stack } = packed;
  const error = code === null ? new Error(message) : new FarpageError(code, message);
  if (stack !== "") error.stack = stack;
  return error;
}

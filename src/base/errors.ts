// SPDX-License-Identifier: MIT

/**
 * An error of the caller or the environment, thrown from control-plane calls only (a bad packet is
 * a `DropReason`, a failed work request is a completion).
 *
 * `code` is stable and meant for programs: an errno name (`"EADDRINUSE"`), or a name of the layer
 * (`"CM_REJECTED"`). `message` is one sentence that a person can act on.
 */
export class FarpageError<Code extends string = string> extends Error {
  readonly code: Code;

  constructor(code: Code, message: string, options?: { readonly cause?: unknown }) {
    super(message, options);
    this.name = "FarpageError";
    this.code = code;
  }
}

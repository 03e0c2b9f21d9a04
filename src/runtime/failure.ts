// SPDX-License-Identifier: MIT

/** A promise that never resolves and rejects once: how a running host says that it broke. */
export class Failure {
  readonly promise: Promise<never>;
  private reject: (error: unknown) => void = () => {};

  constructor() {
    this.promise = new Promise<never>((_, reject) => {
      this.reject = reject;
    });
    // Whoever doesn't look must not bring the process down by not looking.
    this.promise.catch(() => {});
  }

  fail(error: unknown): void {
    this.reject(error);
  }
}

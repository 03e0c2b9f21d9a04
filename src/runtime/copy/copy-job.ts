// SPDX-License-Identifier: MIT
import type { FarpageError, IpAddress, Machine } from "../../base/index.js";

/** How far a copy is. Totals are of what has been found so far. */
export interface CopyStatus {
  readonly files: number;
  readonly bytes: number;
  /** Of those: were there already, as they are. */
  readonly skippedFiles: number;
  readonly skippedBytes: number;
  readonly filesFound: number;
  readonly bytesFound: number;
  readonly isFoundAll: boolean;
  /** What could not be copied. */
  readonly problems: number;
}

/** What is copied by either way: a machine that ends. */
export interface CopyJob extends Machine {
  readonly isOver: boolean;
  readonly error: FarpageError | null;
  /** Whether the server has answered at all, and whether it does now. */
  readonly hasConnected: boolean;
  readonly isConnected: boolean;
  readonly lastError: FarpageError | null;
  status(): CopyStatus;
  stop(error: FarpageError): void;
  /** Preconditions: `isOver`. */
  free(): void;
}

/** A file that can't be copied. `path` is a byte string. */
export type OnProblem = (path: string, errno: number, isRemote: boolean) => void;

/** What a job's session is made with. */
export interface JobRtrs {
  readonly sessionName: string;
  readonly paths: readonly { readonly source: IpAddress; readonly destination: IpAddress }[];
  readonly port: number;
  readonly connectionCount: number;
}

// SPDX-License-Identifier: MIT
// What must not compile. Checked by `tsc -p tsconfig.test.json`; nothing runs it.

import * as room from "../index.js";
import {
  ACCESS,
  type AddressSpace,
  type CpuBorrow,
  type DmaDevice,
  type FileLease,
  type LongTermPin,
  type Pinner,
  type RemoteCaller,
  type ShortDmaPin,
} from "../index.js";

declare const pinner: Pinner;
declare const space: AddressSpace;
declare const lease: FileLease;
declare const device: DmaDevice;
declare const caller: RemoteCaller;
const { READ, WRITE } = ACCESS;

// @ts-expect-error what the walk can be told is not for others
export const hidden = room.INTENT;

export function optionsOfOtherPurposes(): void {
  // @ts-expect-error a transfer is over soon: no lease is needed
  pinner.pinForShortDma(space, 0, 1, READ, { lease });
  // @ts-expect-error a transfer is not taken back, it ends
  pinner.pinForShortDma(space, 0, 1, READ, { device, onRevoke: () => {} });
  // @ts-expect-error what is held for long may take a fault
  pinner.pinForLongTermDma(space, 0, 1, READ, { presentOnly: true });
  // @ts-expect-error the CPU's copy has no device
  pinner.borrowForCpuCopy(space, 0, 1, READ, { device });
  // @ts-expect-error nor pieces
  pinner.borrowForCpuCopy(space, 0, 1, READ, { runsMax: 1 });
  // @ts-expect-error another process's memory is faulted in as its own touch does
  pinner.borrowRemote(caller, space, 0, 1, READ, { presentOnly: true });
  // @ts-expect-error who reaches into another process says who it is
  pinner.borrowRemote(space, 0, 1, READ);
}

export function conflicts(): void {
  // @ts-expect-error a device's memory is held for long by who gives it back
  pinner.pinForLongTermDma(space, 0, 1, READ, { device });
  // @ts-expect-error and by a device
  pinner.pinForLongTermDma(space, 0, 1, READ, { onRevoke: () => {} });
  const both = { device, onRevoke: () => {}, presentOnly: true };
  // @ts-expect-error also where an object is handed on
  pinner.pinForLongTermDma(space, 0, 1, READ, both);
  // @ts-expect-error an access is to read or to write
  pinner.pinForShortDma(space, 0, 1, 3);
}

export function releases(): void {
  const reads = pinner.pinForShortDma(space, 0, 1, READ);
  const writes = pinner.pinForLongTermDma(space, 0, 1, WRITE);
  // @ts-expect-error what could only be read is not dirty
  reads.release(true);
  // @ts-expect-error what could be written says whether it was
  writes.release();
  // @ts-expect-error taken for a transfer, not for long
  const long: LongTermPin = pinner.pinForShortDma(space, 0, 1, WRITE);
  // @ts-expect-error taken for long, not for a transfer
  const short: ShortDmaPin = writes;
  // @ts-expect-error a pin is not a borrow
  const borrow: CpuBorrow = writes;
  // @ts-expect-error nor a borrow of another process
  const other: CpuBorrow = pinner.borrowRemote(caller, space, 0, 1, READ);
  void [long, short, borrow, other];
}

// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { ERRNO } from "../base/index.js";
import { BLOCK_OPERATION, MemoryDevice } from "../block/index.js";
import { Volume } from "../rnbd/index.js";
import { SILENT_LOG } from "./log.js";
import { RepeatedWarning } from "./repeated-warning.js";
import { warnOfErrors } from "./volume-errors.js";

describe("a volume's I/O errors", () => {
  it("name, path and reason, once per operation and errno; a client's mistakes never", () => {
    const said: string[] = [];
    const warning = new RepeatedWarning({ ...SILENT_LOG, warn: (text) => said.push(text) });
    const device = new MemoryDevice({ name: "disk", sizeBytes: 4096 });
    const volume = new Volume("disk", device, {});
    warnOfErrors(volume, "/srv/disk.img", warning);
    for (let i = 0; i < 3; i++) volume.onDeviceError?.(BLOCK_OPERATION.WRITE, ERRNO.ENOSPC);
    volume.onDeviceError?.(BLOCK_OPERATION.FLUSH, ERRNO.EIO);
    volume.onDeviceError?.(BLOCK_OPERATION.READ, ERRNO.EINVAL);
    expect(said).toEqual([
      'volume "disk" (/srv/disk.img): write failed with ENOSPC: no space is left where it lies',
      'volume "disk" (/srv/disk.img): flush failed with EIO: ' +
        "the disk failed, or the file was cut short",
    ]);
    warning.flush();
    expect(said[2]).toMatch(/^volume "disk" .*ENOSPC.* \(2 more in \d+ s\)$/);
  });
});

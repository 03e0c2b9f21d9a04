// SPDX-License-Identifier: MIT
import { describe, expect, it } from "vitest";
import { IpAddress } from "../base/index.js";
import { clientSettings, serverSettings } from "./options.js";

const path = { source: IpAddress.parse("192.0.2.1"), destination: IpAddress.parse("192.0.2.2") };
const client = { sessionName: "blue", paths: [path] };

describe("options", () => {
  it("defaults → those of Linux where the wire shows them", () => {
    const settings = serverSettings({});
    expect(settings).toMatchObject({ port: 1234, queueDepth: 512, chunkBytes: 131_072 });
    expect(settings).toMatchObject({ alwaysInvalidate: true, heartbeatIntervalNs: 5e9 });
    expect(clientSettings(client)).toMatchObject({ port: 1234, invalidate: true });
  });

  it.each([
    ["sessionName", { sessionName: "a/b" }],
    ["paths", { paths: [] }],
    ["paths", { paths: [path, path] }],
    ["port", { port: 0 }],
    ["connectionCount", { connectionCount: 4096 }],
    ["userBytesMax", { userBytesMax: 4096 }],
    ["reservedRequests", { reservedRequests: -1 }],
    ["queueDepthMax", { queueDepthMax: 0.5 }],
    ["reconnectDelayNs", { reconnectDelayNs: 0 }],
    ["connectAttemptsMax", { connectAttemptsMax: 0 }],
    ["heartbeatMissedMax", { heartbeatMissedMax: 0 }],
  ])("client with a bad %s → EINVAL", (_name, change) => {
    expect(() => clientSettings({ ...client, ...change })).toThrow(
      expect.objectContaining({ code: "EINVAL" }),
    );
  });

  it.each([
    ["queueDepth", { queueDepth: 65_536 }],
    ["chunkBytes", { chunkBytes: 4096 }],
    ["chunkBytes that is no power of two", { chunkBytes: 12_288 }],
    ["product that no immediate holds", { queueDepth: 1024, chunkBytes: 1 << 19 }],
    ["sessionCountMax", { sessionCountMax: 0 }],
    ["connectTimeoutNs", { connectTimeoutNs: Number.NaN }],
  ])("server with a bad %s → EINVAL", (_name, change) => {
    expect(() => serverSettings(change)).toThrow(expect.objectContaining({ code: "EINVAL" }));
  });
});

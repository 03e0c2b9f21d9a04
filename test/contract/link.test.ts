// SPDX-License-Identifier: MIT
import { IpAddress, SeededRandom } from "../../src/base/index.js";
import { type Backend, foreignCallsUnavailable, openLink, openPoller } from "../../src/os/index.js";
import { SimClock, SimNetwork } from "../../src/sim/index.js";
import { type LinkPair, linkContract } from "./link.contract.js";

async function socketPair(backend: Backend, left: string, right: string): Promise<LinkPair> {
  const poller = openPoller(backend);
  const options = { poller, backend, port: 0, burstCount: 4 };
  const leftLink = await openLink({ ...options, addresses: [left] });
  const rightLink = await openLink({ ...options, addresses: [right] });
  return {
    left: leftLink,
    right: rightLink,
    rightUdpPort: rightLink.port,
    // Loopback has only one IPv6 address, where nobody else is, too.
    nowhere: IpAddress.parse(left.includes(":") ? "::ffff:127.0.0.99" : "127.0.0.99"),
    settle: () => poller.wait(20_000_000),
    close: () => {
      leftLink.close();
      rightLink.close();
      poller.close();
    },
  };
}

async function simPair(gro: "never" | "always"): Promise<LinkPair> {
  const clock = new SimClock();
  const network = new SimNetwork(clock, new SeededRandom(1));
  const address = (text: string) => [IpAddress.parse(text)];
  const left = network.attach("left", { addresses: address("192.0.2.1") });
  const right = network.attach("right", { addresses: address("192.0.2.2"), gro });
  return {
    left,
    right,
    rightUdpPort: 4791,
    nowhere: IpAddress.parse("192.0.2.99"),
    settle: async () => clock.advanceTo(clock.nowNs + 10_000_000),
    close: () => {
      network.detach("left");
      network.detach("right");
    },
  };
}

if (foreignCallsUnavailable() === null) {
  linkContract("native, IPv4", () => socketPair("native", "127.0.0.11", "127.0.0.12"));
  linkContract("native, IPv6", () => socketPair("native", "::1", "::1"));
}
linkContract("node:dgram, IPv4", () => socketPair("node", "127.0.0.13", "127.0.0.14"));
linkContract("node:dgram, IPv6", () => socketPair("node", "::1", "::1"));
linkContract("simulated, no offload", () => simPair("never"));
linkContract("simulated, GRO", () => simPair("always"));

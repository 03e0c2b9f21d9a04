// SPDX-License-Identifier: MIT
// Peers by hand, which the tests of this room share with those of whole systems.

export {
  RAW_DEPTH,
  RawClient,
  type RawConnection,
  RawPeer,
  RawServer,
} from "../../test/support/raw-peer.js";

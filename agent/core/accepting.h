// SPDX-License-Identifier: GPL-2.0-or-later
// What a kernel is to accept of the packets to the shared addresses, or has said that it does.
#pragma once

#include "agent/core/block_set.h"

namespace saru {

struct Accepting {
  BlockSet owned{};  // every packet of them
  // Blocks that went to another node: of them the established TCP connections, as this kernel's
  // conntrack knows them.
  BlockSet lingering{};
  // Of `owned`, those that may linger elsewhere: of TCP what is established here, and what begins.
  BlockSet contested{};

  static Accepting nothing(unsigned blocks) {
    return {BlockSet(blocks), BlockSet(blocks), BlockSet(blocks)};
  }
  // These blocks, and nobody else has any connection in them.
  static Accepting all_of(const BlockSet& owned) {
    return {owned, BlockSet(owned.blocks()), BlockSet(owned.blocks())};
  }

  unsigned blocks() const { return owned.blocks(); }
  bool empty() const { return owned.empty() && lingering.empty(); }
  bool operator==(const Accepting&) const = default;
};

}  // namespace saru

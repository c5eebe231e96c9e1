// SPDX-License-Identifier: GPL-2.0-or-later
// Which block the packets of a connection belong to, as the gate decides it (kmod/saru_block.h).
// Pure.
#pragma once

#include <optional>
#include <vector>

#include "agent/core/types.h"
#include "agent/sync/flow.h"
#include "nft/address.h"
#include "nft/selector.h"

namespace saru::sync {

// What is needed of a configuration.
struct FlowRule {
  std::vector<IpAddress> addresses;    // shared; clients come to them
  std::vector<ServiceAddress> inside;  // shared; what is in their subnets is no client
  Selection selection;
  unsigned blocks = kDefaultBlocks;
};

class FlowBlocks {
 public:
  explicit FlowBlocks(FlowRule rule);

  // Nothing for a connection that no block decides of: with neither end at a shared address nor
  // (where there is an inside) in an inside subnet, or begun by this node from a shared address.
  std::optional<BlockId> block_of(const Flow& flow) const;

  const FlowRule& rule() const { return rule_; }

 private:
  bool is_shared(bool v4, const AddressBytes& address) const;
  bool is_inside(bool v4, const AddressBytes& address) const;

  FlowRule rule_;
  BlockRule block_rule_;
};

}  // namespace saru::sync

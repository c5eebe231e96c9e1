// SPDX-License-Identifier: GPL-2.0-or-later
// Which events conntrack tells of the connections whose packets this node accepts
// (TableConfig::syncs): those by which another node could go on with them, and no more. A short TCP
// connection has three then, not seven.
//
//   events     behind conntrack: what begins
//     └─► told, from outside or inside
#include "nft/plan_rules.h"

namespace saru::nft {
namespace {

constexpr std::uint32_t kNew = 1U << 3;  // NF_CT_STATE_BIT of IP_CT_NEW
// IPCT_* of linux/netfilter/nf_conntrack_common.h.
constexpr std::uint32_t kDestroy = 1U << 2, kReply = 1U << 3, kAssuredNow = 1U << 4,
                        kHelper = 1U << 6, kMarked = 1U << 7, kShifted = 1U << 8,
                        kLabelled = 1U << 10;
constexpr std::uint32_t kWorthTelling =
    kDestroy | kReply | kAssuredNow | kHelper | kMarked | kShifted | kLabelled;

}  // namespace

std::vector<Chain> event_chains(const TableConfig& config) {
  Chain told{"told", "what conntrack tells sarud of a connection", std::nullopt, {}};
  told.rules.push_back(
      {"answered, assured, over; mark, labels, helper",
       {LoadConstant{host_bytes(kWorthTelling)}, StoreConnection{NFT_CT_EVENTMASK}}});
  Chain events{"events", "", Hook{NF_INET_PRE_ROUTING, kBehindConntrack, "", true}, {}};
  events.rules.push_back({"only what begins",
                          {LoadConnection{NFT_CT_STATE}, Mask{host_bytes(kNew)},
                           Compare{NFT_CMP_EQ, host_bytes(std::uint32_t{0})}, accept()}});
  if (config.inside) {
    events.rules.push_back(through_link(config.inside->link, "told", "from the hosts inside"));
    events.rules.push_back(through_link(config.link, "told", "from outside to the hosts inside"));
  }
  for (Rule& rule : to_shared(config, false, "told")) events.rules.push_back(std::move(rule));
  return {std::move(told), std::move(events)};
}

}  // namespace saru::nft

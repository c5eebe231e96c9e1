// SPDX-License-Identifier: GPL-2.0-or-later
// Which events conntrack tells of the connections whose packets this node accepts
// (TableConfig::syncs): those by which another node could go on with them, and no more. A short TCP
// connection has three then, and some more where its server closes it.
//
//   events     behind conntrack: what begins, what ends
//     ├─► told, from outside or inside
//     └─► ends ──► told_of_end
#include "nft/plan_rules.h"

namespace saru::nft {
namespace {

constexpr std::uint32_t kNew = 1U << 3;  // NF_CT_STATE_BIT of IP_CT_NEW
// IPCT_* of linux/netfilter/nf_conntrack_common.h.
constexpr std::uint32_t kDestroy = 1U << 2, kReply = 1U << 3, kAssuredNow = 1U << 4,
                        kHelper = 1U << 6, kMarked = 1U << 7, kShifted = 1U << 8,
                        kProtocolInfo = 1U << 5, kLabelled = 1U << 10;
constexpr std::uint32_t kWorthTelling =
    kDestroy | kReply | kAssuredNow | kHelper | kMarked | kShifted | kLabelled;

}  // namespace

std::vector<Chain> event_chains(const TableConfig& config) {
  const auto set = [](const char* name, const char* chain_comment, const char* comment,
                      std::uint32_t events) {
    return Chain{
        name,
        chain_comment,
        std::nullopt,
        {{comment, {LoadConstant{host_bytes(events)}, StoreConnection{NFT_CT_EVENTMASK}}}}};
  };
  const auto of_ours = [&config](Chain& chain, const std::string& next) {
    if (config.inside) {
      chain.rules.push_back(through_link(config.inside->link, next, "from the hosts inside"));
      chain.rules.push_back(through_link(config.link, next, "from outside to the hosts inside"));
    }
    for (Rule& rule : to_shared(config, false, next)) chain.rules.push_back(std::move(rule));
  };
  constexpr std::uint8_t kReplyDirection = 1, kFin = 0x01;
  Chain ends{"ends", "the server closes", std::nullopt, {}};
  of_ours(ends, "told_of_end");
  Chain events{"events", "", Hook{NF_INET_PRE_ROUTING, kBehindConntrack, "", true}, {}};
  events.rules.push_back(
      {"else it would count as alive until conntrack forgets it",
       protocol(IPPROTO_TCP) + Expressions{LoadPayload{kTransport, 13, 1}, Mask{{kFin}},
                                           equals({kFin}), LoadConnection{NFT_CT_DIRECTION},
                                           equals({kReplyDirection}), go_to("ends")}});
  events.rules.push_back({"only what begins",
                          {LoadConnection{NFT_CT_STATE}, Mask{host_bytes(kNew)},
                           Compare{NFT_CMP_EQ, host_bytes(std::uint32_t{0})}, accept()}});
  of_ours(events, "told");
  return {set("told", "what conntrack tells sarud of a connection",
              "answered, assured, over; mark, labels, helper", kWorthTelling),
          set("told_of_end", "what conntrack tells of one that ends", "its states besides",
              kWorthTelling | kProtocolInfo),
          std::move(ends), std::move(events)};
}

}  // namespace saru::nft

// SPDX-License-Identifier: GPL-2.0-or-later
// Established TCP that stays on its node while its block moves (TableConfig::stays).
//
//   linger        before conntrack: our connections in blocks that went to another node, by the
//   lease connections   behind conntrack: which of them are ours
//       └─► moved ─┬─► moved_services ──► moved_<selector> ──► lingering, contested
//                  └─► moved4, moved6 (ICMP errors) ──► moved4_<selector>, ...
//   beginning     on the way out: who gave a block up begins nothing in it
//   resetting     behind conntrack: who gave it up, or shares it, resets its own connections alone
//
// What has passed the first one and is of no set behind conntrack (they have just changed) is
// dropped.
//
// A pure SYN of a lingering block comes as far as conntrack: what is over there (TIME_WAIT) would
// otherwise take the next connection of the same ports for its own.
#include "nft/plan_rules.h"

namespace saru::nft {
namespace {

// NF_CT_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED, in either direction.
constexpr std::uint32_t kEstablished = 1U << 1, kRelated = 1U << 2;
// IPS_ASSURED: the handshake is over.
constexpr std::uint32_t kAssured = 1U << 2;

Expressions begun_here() {
  return {LoadConnection{NFT_CT_STATE}, Mask{host_bytes(kEstablished | kRelated)},
          Compare{NFT_CMP_NEQ, host_bytes(std::uint32_t{0})}};
}

Rule stray_drop(const char* comment) { return {comment, {Count{"stray"}, drop()}}; }

Chain linger_chain(const TableConfig& config) {
  Chain chain{"linger", "to conntrack, which knows whose it is", std::nullopt, {under_lease()}};
  chain.rules.push_back({"TCP", protocol(IPPROTO_TCP) + Expressions{accept()}});
  if (has_family(config, true)) {
    chain.rules.push_back({"errors about TCP", protocol(IPPROTO_ICMP) + Expressions{accept()}});
  }
  if (has_family(config, false)) {
    chain.rules.push_back({"errors about TCP", protocol(IPPROTO_ICMPV6) + Expressions{accept()}});
  }
  chain.rules.push_back(foreign_drop("other protocols move at once"));
  return chain;
}

void add_moved(Chain& chain, const TableConfig& config, Selector selector) {
  add_by_value(chain, config, selector, "lingering", {go_to("lingering")}, "it went away");
  add_by_value(chain, config, selector, "contested", {go_to("contested")}, "it came");
  add_by_value(chain, config, selector, "owned", {accept()}, "it is this node's alone");
  chain.rules.push_back(stray_drop("it has just gone"));
}

void add_moved_icmp(std::vector<Chain>& chains, Chain& moved, const TableConfig& config, bool v4) {
  const IcmpNames& names = v4 ? kIcmp4 : kIcmp6;
  const std::string name = v4 ? "moved4" : "moved6";
  const auto& selection = config.selection;
  const bool services = !selection.services.empty();
  const std::string next =
      services ? name + "_services" : chain_name(name.c_str(), selection.selector);
  moved.rules.push_back({"errors", family(v4) + type_in(names.l4proto, names.errors) +
                                       quoted_protocol(v4, {equals({IPPROTO_TCP})}) +
                                       Expressions{go_to(next)}});
  if (services) {
    chains.push_back(by_service(config, {name + "_services", "which selector, seen from the client",
                                         name, Way::kQuoted, v4, true}));
  }
  for (const Selector selector : kSelectors) {
    if (!selection.uses(selector)) continue;
    Chain chain{chain_name(name.c_str(), selector),
                std::string("quoted: by ") + meaning(selector),
                std::nullopt,
                {}};
    const Place place{v4, Way::kQuoted};
    chain.rules.push_back({"it went away", value_in(config, selector, place, "lingering") +
                                               Expressions{go_to("lingering")}});
    chain.rules.push_back({"it came", value_in(config, selector, place, "contested") +
                                          Expressions{go_to("contested")}});
    chain.rules.push_back({"it is this node's alone",
                           value_in(config, selector, place, "owned") + Expressions{accept()}});
    chain.rules.push_back(stray_drop("it has just gone"));
    chains.push_back(std::move(chain));
  }
}

void add_behind_conntrack(std::vector<Chain>& chains, const TableConfig& config) {
  const auto& selection = config.selection;
  chains.push_back(
      {"lingering",
       "of blocks that went to another node, only what was begun here",
       std::nullopt,
       {{"the other node answers it", tcp_flags(kSyn) + Expressions{Count{"stray"}, drop()}},
        {"begun here", begun_here() + answered()},
        stray_drop("not of a connection of this node")}});
  chains.push_back({"contested",
                    "of blocks that came, what begins and what was begun here",
                    std::nullopt,
                    {{"a client begins", tcp_flags(kSyn) + Expressions{accept()}},
                     {"begun here", begun_here() + Expressions{accept()}},
                     stray_drop("it may belong to another node's connection")}});
  Chain moved{"moved", "is its block lingering or contested?", std::nullopt, {}};
  const bool services = !selection.services.empty();
  moved.rules.push_back(
      {"TCP", protocol(IPPROTO_TCP) +
                  Expressions{go_to(services ? "moved_services"
                                             : chain_name("moved", selection.selector))}});
  if (services) {
    chains.push_back(
        by_service(config, {"moved_services", "which selector: the first service that fits",
                            "moved", Way::kIn, std::nullopt, true}));
  }
  for (const Selector selector : kSelectors) {
    if (!selection.uses(selector)) continue;
    Chain chain{
        chain_name("moved", selector), std::string("by ") + meaning(selector), std::nullopt, {}};
    add_moved(chain, config, selector);
    chains.push_back(std::move(chain));
  }
  for (const bool v4 : {true, false}) {
    if (has_family(config, v4)) add_moved_icmp(chains, moved, config, v4);
  }
  chains.push_back(std::move(moved));
  Chain behind{"connections", "", Hook{NF_INET_PRE_ROUTING, kBehindConntrack, "", true}, {}};
  behind.rules.push_back(over_loopback(NFT_META_IIF, "this node's own access to its addresses"));
  for (Rule& rule : to_shared(config, false, "moved")) behind.rules.push_back(std::move(rule));
  chains.push_back(std::move(behind));
}

// Of what this node says to clients, segments with these flags in blocks of these sets are dropped.
void add_leaving(std::vector<Chain>& chains, const TableConfig& config, const std::string& name,
                 std::int32_t priority, std::uint8_t flags, const std::vector<const char*>& sets) {
  const auto& selection = config.selection;
  const bool services = !selection.services.empty();
  if (services) {
    chains.push_back(by_service(config, {name + "_services", "which selector, seen from the client",
                                         name, Way::kOut, std::nullopt, true}));
  }
  for (const Selector selector : kSelectors) {
    if (!selection.uses(selector)) continue;
    Chain chain{chain_name(name.c_str(), selector),
                std::string("by ") + meaning(selector),
                std::nullopt,
                {}};
    for (const char* set : sets) {
      add_by_value(chain, config, selector, set, {Count{"stray"}, drop()},
                   "another node answers that, or may", Way::kOut);
    }
    chains.push_back(std::move(chain));
  }
  const std::string next =
      services ? name + "_services" : chain_name(name.c_str(), selection.selector);
  chains.push_back({name, "", std::nullopt, to_shared(config, true, next)});
  Chain output{name + "_out", "", Hook{NF_INET_LOCAL_OUT, priority, "", true}, {}};
  output.rules.push_back(over_loopback(NFT_META_OIF, "to this node itself"));
  if (flags == kRst) {
    output.rules.push_back({"of a connection of this node",
                            {LoadConnection{NFT_CT_STATUS}, Mask{host_bytes(kAssured)},
                             Compare{NFT_CMP_NEQ, host_bytes(std::uint32_t{0})}, accept()}});
  }
  output.rules.push_back({flags == kRst ? "answers to strays" : "answers to what begins",
                          tcp_flags(flags) + Expressions{go_to(name)}});
  chains.push_back(std::move(output));
}

}  // namespace

std::vector<Chain> connection_chains(const TableConfig& config) {
  std::vector<Chain> chains{linger_chain(config)};
  add_behind_conntrack(chains, config);
  add_leaving(chains, config, "beginning", kPriority, kSynAck, {"lingering"});
  add_leaving(chains, config, "resetting", kBehindConntrack, kRst, {"lingering", "contested"});
  return chains;
}

}  // namespace saru::nft

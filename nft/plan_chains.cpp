// SPDX-License-Identifier: GPL-2.0-or-later
// Whose packet is it? kmod/saru_block.h in the words of nf_tables.
//
//   shared ─┬─► services ──► by_<selector> ──► answer_<selector> ──► new_<selector>
//           └─► icmp ─┬────► answer ◄── quoted4_by_<selector>
//                     └────► icmp_error ──► quoted4
//
// What comes from the inside of a director has the same chains once more, from `inside` on: they
// look at what an answer to the client has where the client's own packet has it. So both
// directions of a connection are of one block. The packet that an error from there quotes is as
// the client sent it.
//
// What says that this node answers jumps to `open` first, which is the lease.
// A packet that a rule cannot read (it ends before) goes on to the drop at the end of its chain.
#include "nft/plan_rules.h"

namespace saru::nft {
namespace {

// Where packets come from, and so which way they and what they quote went.
struct From {
  Way way;
  Way quoted;
  const IcmpNames& icmp4;
  const IcmpNames& icmp6;
  const char* first;  // the chain in which they begin
  const char* by;
  const char* comment;

  bool inside() const { return way == Way::kOut; }
  const IcmpNames& icmp(bool v4) const { return v4 ? icmp4 : icmp6; }
};
constexpr From kOutside{Way::kIn,
                        Way::kQuoted,
                        kIcmp4,
                        kIcmp6,
                        "shared",
                        "by",
                        "packets to a shared address: one node accepts each"};
constexpr From kInside{Way::kOut,
                       Way::kQuotedIn,
                       kInsideIcmp4,
                       kInsideIcmp6,
                       "inside",
                       "inside_by",
                       "packets from inside, mirrored: one node accepts each"};

// ---- TCP, UDP and their like
// -----------------------------------------------------------------------

// The first packet of a connection counts for its block.
Chain new_chain(const TableConfig& config, Selector selector) {
  Chain chain{chain_name("new", selector), "new connections, counted by block", std::nullopt, {}};
  add_by_value(chain, config, selector, "load", answered(), "counted in the set load");
  chain.rules.push_back({"not counted, but answered", answered()});
  return chain;
}

Chain answer_chain(Selector selector) {
  constexpr std::uint8_t kInit = 1;
  const std::string counted = chain_name("new", selector);
  Chain chain{chain_name("answer", selector), "this node answers", std::nullopt, {}};
  chain.rules.push_back(under_lease());
  chain.rules.push_back({"TCP: a client begins", tcp_flags(kSyn) + Expressions{go_to(counted)}});
  // Byte 12 of an SCTP packet: the type of the first chunk.
  chain.rules.push_back(
      {"SCTP: a client begins (INIT)",
       protocol(IPPROTO_SCTP) + bytes_are(kTransport, 12, {kInit}) + Expressions{go_to(counted)}});
  chain.rules.push_back({"this node answers", answered()});
  return chain;
}

Chain by_chain(const TableConfig& config, Selector selector, const From& from) {
  Chain chain{
      chain_name(from.by, selector), std::string("by ") + meaning(selector), std::nullopt, {}};
  add_by_value(chain, config, selector, "owned",
               {go_to(from.inside() ? "answer" : chain_name("answer", selector))},
               "in a block of this node", from.way);
  if (config.stays) {
    add_by_value(chain, config, selector, "lingering", {go_to("linger")},
                 "in a block that went to another node");
  }
  chain.rules.push_back(foreign_drop("another node accepts it"));
  return chain;
}

// A packet of a foreign TCP connection passes three rules here and one of `by_...` before it is
// dropped.
Chain first_chain(const TableConfig& config, const From& from) {
  const std::string next = config.selection.services.empty()
                               ? chain_name(from.by, config.selection.selector)
                               : "services";
  Chain chain{from.first, from.comment, std::nullopt, {}};
  if (!from.inside()) {
    chain.rules.push_back(over_loopback(NFT_META_IIF, "this node's own access to its addresses"));
  }
  chain.rules.push_back(
      {"TCP first, being the most", protocol(IPPROTO_TCP) + Expressions{go_to(next)}});
  chain.rules.push_back({"the other protocols with ports",
                         {LoadMeta{NFT_META_L4PROTO}, Lookup{"with_ports"}, go_to(next)}});
  if (has_family(config, true)) {
    chain.rules.push_back({"ICMP has no ports", family(true) + protocol(IPPROTO_ICMP) +
                                                    Expressions{go_to(from.icmp4.chain)}});
  }
  if (has_family(config, false)) {
    chain.rules.push_back({"ICMPv6 has no ports", family(false) + protocol(IPPROTO_ICMPV6) +
                                                      Expressions{go_to(from.icmp6.chain)}});
  }
  chain.rules.push_back(foreign_drop("nobody serves this protocol"));
  return chain;
}

// ---- ICMP
// ------------------------------------------------------------------------------------------

std::string quoted_by(const IcmpNames& names, Selector selector) {
  return chain_name((std::string(names.quoted_chain) + "_by").c_str(), selector);
}

Chain quoted_by_chain(const TableConfig& config, bool v4, Selector selector, const From& from) {
  Chain chain{quoted_by(from.icmp(v4), selector),
              std::string("quoted: by ") + meaning(selector),
              std::nullopt,
              {{"in a block of this node", value_in(config, selector, {v4, from.quoted}, "owned") +
                                               Expressions{go_to("answer")}}}};
  if (config.stays) {
    chain.rules.push_back({"in a block that went to another node",
                           quoted_protocol(v4, {equals({IPPROTO_TCP})}) +
                               value_in(config, selector, {v4, Way::kQuoted}, "lingering") +
                               Expressions{go_to("linger")}});
  }
  chain.rules.push_back(foreign_drop(from.inside() ? "another node forwarded the quoted packet"
                                                   : "another node sent the quoted packet"));
  return chain;
}

void add_icmp_chains(std::vector<Chain>& chains, const TableConfig& config, bool v4,
                     const From& from) {
  const IcmpNames& names = from.icmp(v4);
  const Expressions by_client =
      value_in(config, Selector::kSrcAddr, {v4, from.way}, "owned") + Expressions{go_to("answer")};

  Chain icmp{names.chain, "", std::nullopt, {}};
  if (!v4) {
    icmp.rules.push_back({"neighbour discovery: every node answers",
                          type_in(names.l4proto, "neighbour") + Expressions{accept()}});
  }
  icmp.rules.push_back(
      {"errors", type_in(names.l4proto, names.errors) + Expressions{go_to(names.error_chain)}});
  icmp.rules.push_back({"queries: by the low 16 bits of the client's address",
                        type_in(names.l4proto, names.queries) + by_client});
  icmp.rules.push_back(foreign_drop("another node accepts it, or nobody serves this type"));
  chains.push_back(std::move(icmp));

  const std::string next = config.selection.services.empty()
                               ? quoted_by(names, config.selection.selector)
                               : names.quoted_chain;
  Chain error{names.error_chain, "errors, also fragmentation needed (path MTU)", std::nullopt, {}};
  error.rules.push_back({"quotes a plain packet",
                         quoted_protocol(v4, {Lookup{"with_ports"}}) + Expressions{go_to(next)}});
  error.rules.push_back({from.inside() ? "quotes something else: by the receiver's address"
                                       : "quotes something else: by the sender's address",
                         by_client});
  error.rules.push_back(foreign_drop("another node accepts it"));
  chains.push_back(std::move(error));

  if (!config.selection.services.empty()) {
    chains.push_back(
        by_service(config, {names.quoted_chain, "which selector, seen from the client",
                            std::string(names.quoted_chain) + "_by", Way::kQuoted, v4}));
  }
  for (const Selector selector : kSelectors) {
    if (!config.selection.uses(selector)) continue;
    chains.push_back(quoted_by_chain(config, v4, selector, from));
  }
}

}  // namespace

std::vector<Chain> ownership_chains(const TableConfig& config) {
  std::vector<Chain> chains{first_chain(config, kOutside)};
  if (!config.selection.services.empty()) {
    chains.push_back(
        by_service(config, {"services", "which selector: the first service that fits", "by"}));
  }
  for (const Selector selector : kSelectors) {
    if (!config.selection.uses(selector)) continue;
    chains.push_back(by_chain(config, selector, kOutside));
    chains.push_back(answer_chain(selector));
    chains.push_back(new_chain(config, selector));
  }
  for (const bool v4 : {true, false}) {
    if (has_family(config, v4)) add_icmp_chains(chains, config, v4, kOutside);
  }
  if (config.inside) {
    // Without services, so of one selector: see check().
    chains.push_back(first_chain(config, kInside));
    chains.push_back(by_chain(config, config.selection.selector, kInside));
    for (const bool v4 : {true, false}) {
      if (has_family(config, v4)) add_icmp_chains(chains, config, v4, kInside);
    }
  }
  chains.push_back({"answer",
                    "this node answers",
                    std::nullopt,
                    {under_lease(), {"this node answers", answered()}}});
  return chains;
}

}  // namespace saru::nft

// SPDX-License-Identifier: GPL-2.0-or-later
// What becomes of a packet in somebody else's nftables ruleset, as `nft -j list ruleset` prints it
// (libnftables-json(5)). Where a rule looks at what is not known of the packet, both ways are
// possible; so what is certain here is certain there, as far as these words go. Pure.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "nft/address.h"

namespace saru {

// nullopt, empty: not known.
struct Packet {
  IpAddress from_or_to;  // the shared address
  bool inward = true;    // to it; else from it
  bool arp = false;      // an ARP request for it instead
  std::string iif, oif;
  std::string mac;               // destination
  std::optional<unsigned> port;  // of the service, TCP
  bool translated = false;       // DNAT may have changed it
};

struct BaseChain {
  std::string family, table, name, hook;
  int priority = 0;
  bool drops = false;  // policy
  std::vector<std::string> devices;

  std::string text() const { return "table " + family + " " + table + ", chain " + name; }
};

// What a walk may end with.
struct Fates {
  bool passes = false;
  bool drops = false;
  std::string dropped_by;  // one of the rules that may drop it, or the policy

  bool surely_drops() const { return drops && !passes; }
};

class RuleWalk {
 public:
  // `chains`: `nft list chains`, since nft 1.0.6 leaves the devices out of its JSON. Throws as json
  // does when this is no ruleset.
  RuleWalk(const nlohmann::json& ruleset, const std::string& chains);

  const std::vector<BaseChain>& base_chains() const { return base_chains_; }
  Fates walk(const BaseChain& chain, const Packet& packet) const;

  // A rule of the chain that may set another destination address in the packet; empty: none does.
  std::string rewriting(const BaseChain& chain, const Packet& packet) const;

  // Whether DNAT or a redirection may apply to it.
  bool may_translate(const Packet& packet) const;
  // The table with a rule that drops IPv6 packets whose way back is over another interface.
  std::optional<std::string> reverse_path_filter() const;
  // Tables of this name: whether there is one, whether a rule of it names this interface.
  bool has_table(const std::string& name) const;
  bool names_interface(const std::string& table, const std::string& interface) const;
  // "table inet f, flowtable x" of those that take packets from one of the devices.
  std::vector<std::string> flowtables(const std::vector<std::string>& devices) const;

 private:
  using Key = std::tuple<std::string, std::string, std::string>;  // family, table, chain or set
  class Walker;

  std::vector<BaseChain> base_chains_;
  std::map<Key, std::vector<nlohmann::json>> rules_;
  std::map<Key, nlohmann::json> sets_;
  std::vector<std::string> tables_;
  std::vector<nlohmann::json> flowtables_;
};

}  // namespace saru

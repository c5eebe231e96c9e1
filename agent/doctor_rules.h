// SPDX-License-Identifier: GPL-2.0-or-later
// saructl doctor: what other rulesets of this node do to the shared addresses. Pure.
//   firewall   a foreign chain drops what comes to them or their answers, or rewrites it too early
//   firewalld  its zones know the interface on which packets come in
//   flowtable  none takes packets past saru's rules
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "agent/doctor.h"
#include "nft/address.h"

namespace saru {

struct RulesSight {
  nlohmann::json ruleset;  // nft -j list ruleset
  std::string chains;      // nft list chains
  std::string nic, link;   // "eth0", "saru1"
  std::string mac;
  std::vector<IpAddress> addresses;
  bool inside = false;  // of a director: what comes in is forwarded
  // TCP ports that must get through: those that were asked for, or that somebody listens on at a
  // shared address.
  std::vector<unsigned> ports;
  // Ports that somebody listens on at any address: one of them, at least, should get through.
  std::vector<unsigned> any_ports;
};

// Throws as json does, when the ruleset is none.
[[nodiscard]] Findings judge_rules(const RulesSight& sight);

}  // namespace saru

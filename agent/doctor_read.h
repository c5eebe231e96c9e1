// SPDX-License-Identifier: GPL-2.0-or-later
// saructl doctor: reads what its judges judge. Nothing here changes anything; every wait is
// bounded.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <tl/expected.hpp>
#include <vector>

#include "agent/doctor_cluster.h"
#include "agent/doctor_node.h"
#include "agent/doctor_rules.h"
#include "agent/doctor_switch.h"

namespace saru {

// One NIC of the service with what it carries.
struct ServiceSide {
  std::string nic, link;  // "eth0", "saru1"
  MacAddress mac;         // shared
  std::vector<IpAddress> addresses;
  bool inside = false;  // of a director
};
// Of sarud's status; throws as json does.
[[nodiscard]] std::vector<ServiceSide> sides_of(const nlohmann::json& status);

// Asks the LAN for about a second. `facts`: for the names of nodes, where they are known.
[[nodiscard]] tl::expected<SwitchSight, std::string> read_switch(const ServiceSide& side,
                                                                 const nlohmann::json& status,
                                                                 const ClusterFacts* facts);
[[nodiscard]] tl::expected<RulesSight, std::string> read_rules(const ServiceSide& side,
                                                               const std::vector<unsigned>& ports);
[[nodiscard]] BridgeSight read_bridge(const ServiceSide& side);
[[nodiscard]] std::vector<std::string> read_saved();
[[nodiscard]] std::vector<ManagerSight> read_managers();
[[nodiscard]] ConntrackSight read_conntrack(const nlohmann::json& status);
[[nodiscard]] FencingSight read_fencing();
[[nodiscard]] ClockSight read_clock();

}  // namespace saru

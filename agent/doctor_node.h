// SPDX-License-Identifier: GPL-2.0-or-later
// saructl doctor: what sarud, the kernel's settings and other programs of this node say. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "agent/doctor.h"

namespace saru {

// `status` of agent/report.h: what sarud itself warns of, which is `kernel` where it is about the
// kernel's settings (arp_ignore, arp_announce, rp_filter and others), else `service`.
[[nodiscard]] Findings judge_service(const nlohmann::json& status);
// `audit` of agent/audit.h.
[[nodiscard]] Findings judge_blocks(const nlohmann::json& audit);
// Of sarud and of saructl.
[[nodiscard]] Finding judge_version(const std::string& daemon, const std::string& own);

struct BridgeSight {
  std::string nic;
  std::vector<std::string> ports;  // of the NIC, where it is a bridge
  std::vector<std::string> calls;  // settings bridge-nf-call-* that are 1 and concern the addresses
};
[[nodiscard]] Finding judge_bridge(const BridgeSight& sight);

// Files that a boot loads and that have tables of saru in them.
[[nodiscard]] Finding judge_saved(const std::vector<std::string>& files);

struct ManagerSight {
  std::string name;  // "NetworkManager"
  bool running = false;
  bool told = false;   // a file of its configuration leaves saru* alone
  std::string file;    // which is missing
  std::string reload;  // a command
};
[[nodiscard]] Finding judge_managers(const std::vector<ManagerSight>& managers);

struct ConntrackSight {
  std::string connections;  // of the status: none, stay, sync
  std::optional<long> count, max;
};
[[nodiscard]] Finding judge_conntrack(const ConntrackSight& sight);

struct ClockSight {
  std::string source;                  // "tsc"; empty: not known
  std::vector<std::string> available;  // sources
  bool synchronised = false;           // the wall clock, as the kernel was told
};
[[nodiscard]] Finding judge_clock(const ClockSight& sight);

}  // namespace saru
